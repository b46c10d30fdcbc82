"""Generators that run as far as the next item whenever that is asked for."""

from __future__ import annotations

import threading
from functools import partial

from manyhands.core.attempt import describe_call
from manyhands.core.model import Call
from manyhands.engines.inline.runs import InlineRun, drive, run_apart

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from manyhands.core.attempt import Outcome
    from manyhands.engines.inline.actors import Actor
    from manyhands.engines.inline.engine import InlineEngine

END = object()
"""What an iterator gives that has nothing more to give."""


class InlineStream:
    """A stream that nobody runs but its consumer; called, it gives the next item.

    Attributes
    ----------
    run
    lock
        Held while it runs.
    thread
        The one that runs it; 0 for none.
    has_begun
        Whether it ran already.
    items
        How many there were.
    """

    def __init__(self, engine: InlineEngine, call: Call, actor: Actor | None) -> None:
        self.__qualname__ = describe_call(call)
        self.run = InlineRun(engine, Call(call.key, self, (), {}, call.options), call, actor)
        self.lock = threading.Lock()
        self.thread = 0
        self.has_begun = False
        self.items = 0
        self._call = call
        self._source: Any = None
        self._runner: asyncio.Runner | None = None

    def __call__(self) -> Any:
        """The next item, or `END`; of an asynchronous generator, something to await that gives it."""
        if not self.has_begun:
            self.has_begun = True
            stream: Any = self._call.fn  # a `StreamCall`, whose function gives what is iterated
            source = stream.fn(*self._call.args, **self._call.kwargs)
            self._source = source if hasattr(source, "__anext__") else iter(source)
        if hasattr(self._source, "__anext__"):
            return anext(self._source, END)
        return next(self._source, END)

    def drive(self, awaitable: Any) -> Outcome:
        """Run an asynchronous generator as far as its next item, on the one event loop that it stays on."""
        import asyncio

        if self._runner is None:
            self._runner = asyncio.Runner()
        return drive(self.run, awaitable, self._runner)

    def close(self) -> None:
        """End the generator, whose ``finally`` blocks run; what it raises then is for nobody."""
        source, self._source = self._source, None
        runner, self._runner = self._runner, None
        context, close = self.run.context, getattr(source, "close", None)
        if runner is not None:
            run_apart(partial(self._close_loop, source, runner))
        elif close is not None and context is not None:
            try:
                context.run(close)
            except Exception:
                pass

    def _close_loop(self, source: Any, runner: asyncio.Runner) -> None:
        from asyncio import CancelledError

        async def end() -> None:
            await source.aclose()

        with runner:
            if hasattr(source, "aclose"):
                try:
                    runner.run(end(), context=self.run.context)
                except (Exception, CancelledError):
                    pass
