"""What the engine knows of a call that runs in its caller, of coroutines too."""

from __future__ import annotations

import threading

from manyhands.core.attempt import describe_exit
from manyhands.core.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any, TypeVar

    from manyhands.core.attempt import Outcome
    from manyhands.core.model import Call
    from manyhands.engines.inline.actors import Actor
    from manyhands.engines.inline.engine import InlineEngine

    T = TypeVar("T")


class InlineRun(Run):
    """A call that runs; to the call it is the way to its session, see `manyhands.core.roles.Post`.

    Attributes
    ----------
    attempt
        What is tried again: the call as it was submitted.
    actor
        That it is a call of, or makes; None for none.
    is_making
        Whether it makes that.
    used : float
        Seconds that it took, where it runs by and by.
    """

    is_alone = False

    __slots__ = ("_engine", "actor", "attempt", "is_making", "used")

    def __init__(
        self,
        engine: InlineEngine,
        call: Call,
        attempt: Call | None = None,
        actor: Actor | None = None,
        *,
        is_making: bool = False,
    ) -> None:
        super().__init__(call)
        self.attempt = call if attempt is None else attempt
        self.actor = actor
        self.is_making = is_making
        self.used = 0.0
        self._engine = engine

    def emit(self, item: Any) -> None:
        self._engine.send(self, item)

    def keep(self, actor: int, state: Any) -> None:  # noqa: ARG002 - a call keeps the state of its own actor
        if self.actor is not None:
            self.actor.keep(state)


def run_apart(fn: Callable[[], T]) -> T:
    """Call a function where it can run an event loop: in a thread of its own, if one runs in this one already."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return fn()
    found: list[T] = []
    thread = threading.Thread(
        target=lambda: found.append(fn()), name="manyhands-inline-loop", daemon=True
    )
    thread.start()
    thread.join()
    return found[0]


def drive(run: InlineRun, awaitable: Any, runner: asyncio.Runner) -> Outcome:
    """Run what a call gave to await to its end; its value, or its error."""
    try:
        return runner.run(_attend(run, awaitable), context=run.context), None
    except SystemExit as request:
        return None, describe_exit(run.call, request)
    except BaseException as error:
        return None, error


async def _attend(run: InlineRun, awaitable: Any) -> Any:
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop() -> None:
        try:
            loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:
            pass  # it has ended, and its loop has closed

    if not run.set_stop(stop):
        stop()
    return await awaitable
