"""The engine of threads: for work that releases the interpreter's lock, and for Python without one."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic, perf_counter

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


class ThreadsEngine(ObjectStore):
    """Workers that are threads of this process; see `manyhands.core.engine.Engine` for the members."""

    name = "threads"
    capabilities = Capabilities(isolates=False, parallel=False, pickles=False)

    def start(self, config: EngineConfig, sink: Sink) -> None:
        self._config = config
        self._sink = sink
        self._stats = EngineStats()
        self._begin = monotonic()
        self._queue: deque[Call] = deque()
        self._change = threading.Condition(threading.Lock())  # of the queue, or of what has ended
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
            self._change.notify_all()

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
        deadline = None if timeout is None else monotonic() + timeout
        helps = threading.current_thread() in self._threads
        while not is_done():
            with self._change:
                left = None if deadline is None else deadline - monotonic()
                if is_done() or (left is not None and left <= 0):
                    break
                if not (helps and self._queue):
                    self._change.wait(left)
                    continue
                call = self._take()
            # A worker that waits for other calls runs them, or all workers might wait for what nobody runs.
            self._run(call)
        return is_done()

    def rouse(self) -> None:
        with self._change:
            self._change.notify_all()

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
                call = self._take()
            self._run(call)
            del call

    def _take(self) -> Call:
        """The next call; whoever calls this holds the condition."""
        call = self._queue.popleft()
        self._running.add(call.key)
        return call

    def _run(self, call: Call) -> None:
        begin = perf_counter()
        value, error = attempt(call)
        seconds = perf_counter() - begin
        self._running.discard(call.key)
        if error is None:
            self._sink.take_results([(call.key, value)])
        else:
            self._sink.take_error(call.key, error)
        with self._change:
            self._stats.computing += seconds
            self._change.notify_all()

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

    def _break(self, error: WorkerStartError) -> None:
        with self._change:
            self._broken = error
            calls = list(self._queue)
            self._queue.clear()
        for call in calls:
            self._sink.take_error(call.key, error)
        self._sink.take_breakdown(error)
        with self._change:
            self._change.notify_all()
