"""The engine that runs every call at once, in the caller: the reference, and the debugger's friend."""

from __future__ import annotations

import threading
from time import perf_counter

from manyhands.core.attempt import attempt
from manyhands.core.model import Capabilities, EngineStats
from manyhands.core.objects import ObjectStore
from manyhands.errors import WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.engine import Sink
    from manyhands.core.model import Call, EngineConfig


class InlineEngine(ObjectStore):
    """Runs a call inside `submit`; see `manyhands.core.engine.Engine` for the members."""

    name = "inline"
    capabilities = Capabilities(isolates=False, parallel=False, pickles=False, concurrent=False)

    def start(self, config: EngineConfig, sink: Sink) -> None:
        self._sink = sink
        self._stats = EngineStats()
        self._running: set[int] = set()
        self._change = threading.Condition(threading.RLock())
        if config.initializer is not None:
            try:
                config.initializer(*config.initargs)
            except Exception as cause:
                raise WorkerStartError(
                    f"the initializer failed: {type(cause).__name__}: {cause}"
                ) from cause

    def submit(self, call: Call) -> None:
        begin = perf_counter()
        self._running.add(call.key)
        value, error = attempt(call)
        self._running.discard(call.key)
        self._stats.computing += perf_counter() - begin
        if isinstance(error, KeyboardInterrupt):
            raise error
        if error is None:
            self._sink.take_results([(call.key, value)])
        else:
            self._sink.take_error(call.key, error)
        with self._change:
            self._change.notify_all()

    def load(self, value: Any) -> tuple[Any, BaseException | None]:
        return value, None

    def cancel(self, keys: Iterable[int], *, kill: bool = False) -> set[int]:  # noqa: ARG002 - all have ended
        return set()

    def is_running(self, key: int) -> bool:
        return key in self._running

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        # Nothing comes of this engine, but inputs of calls may come from other threads and sessions.
        with self._change:
            return self._change.wait_for(is_done, timeout)

    def rouse(self) -> None:
        with self._change:
            self._change.notify_all()

    def attend(self) -> None:
        """Nothing is ever outstanding."""

    def stats(self) -> EngineStats:
        return self._stats

    def close(self, grace: float) -> None:
        """Nothing to stop."""
