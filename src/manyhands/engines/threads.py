"""The engine of threads: for work that releases the interpreter's lock, and for Python without one."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic, perf_counter

from manyhands.core.attempt import attempt
from manyhands.core.model import Capabilities, EngineStats
from manyhands.errors import WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.engine import Sink
    from manyhands.core.model import Call, EngineConfig


class ThreadsEngine:
    """Workers that are threads of this process; see `manyhands.core.engine.Engine` for the members."""

    name = "threads"
    capabilities = Capabilities(isolates=False, parallel=False, pickles=False)

    def start(self, config: EngineConfig, sink: Sink) -> None:
        self._config = config
        self._sink = sink
        self._stats = EngineStats()
        self._begin = monotonic()
        self._queue: deque[Call] = deque()
        self._change = threading.Condition(threading.Lock())
        self._progress = threading.Condition(threading.Lock())
        self._running: set[int] = set()
        self._is_closed = False
        self._broken: WorkerStartError | None = None
        self._threads = [
            threading.Thread(target=self._serve, name=f"manyhands-worker-{number}", daemon=True)
            for number in range(config.workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Call) -> None:
        with self._change:
            if self._broken is not None:
                raise self._broken
            self._queue.append(call)
            self._change.notify()

    def load(self, value: Any) -> tuple[Any, BaseException | None]:
        return value, None

    def cancel(self, keys: Iterable[int], *, kill: bool = False) -> set[int]:  # noqa: ARG002 - a thread cannot be killed
        wanted = set(keys)
        with self._change:
            withdrawn = {call.key for call in self._queue if call.key in wanted}
            self._queue = deque(call for call in self._queue if call.key not in withdrawn)
        return withdrawn

    def is_running(self, key: int) -> bool:
        return key in self._running

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        with self._progress:
            return self._progress.wait_for(is_done, timeout)

    def attend(self) -> None:
        """Threads deliver by themselves."""

    def stats(self) -> EngineStats:
        return self._stats

    def close(self, grace: float) -> None:
        with self._change:
            self._is_closed = True
            self._queue.clear()
            self._change.notify_all()
        deadline = monotonic() + grace
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))

    def _serve(self) -> None:
        if not self._initialize():
            return
        while True:
            with self._change:
                while not self._queue and not self._is_closed:
                    self._change.wait()
                if self._is_closed:
                    return
                call = self._queue.popleft()
                self._running.add(call.key)
            begin = perf_counter()
            value, error = attempt(call)
            seconds = perf_counter() - begin
            self._running.discard(call.key)
            self._deliver(call.key, value, error, seconds)
            del call, value, error

    def _initialize(self) -> bool:
        config = self._config
        try:
            if config.initializer is not None:
                config.initializer(*config.initargs)
        except BaseException as cause:
            error = WorkerStartError(
                f"the initializer failed in a worker: {type(cause).__name__}: {cause}"
            )
            error.__cause__ = cause
            self._break(error)
            return False
        if not self._stats.starting:
            self._stats.starting = monotonic() - self._begin
        return True

    def _deliver(self, key: int, value: Any, error: BaseException | None, seconds: float) -> None:
        if error is None:
            self._sink.take_results([(key, value)])
        else:
            self._sink.take_error(key, error)
        with self._progress:
            self._stats.computing += seconds
            self._progress.notify_all()

    def _break(self, error: WorkerStartError) -> None:
        with self._change:
            self._broken = error
            calls = list(self._queue)
            self._queue.clear()
        for call in calls:
            self._sink.take_error(call.key, error)
        self._sink.take_breakdown(error)
        with self._progress:
            self._progress.notify_all()
