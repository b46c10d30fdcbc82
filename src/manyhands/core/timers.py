"""Things that are due in a while, in one thread of the process that sleeps meanwhile."""

from __future__ import annotations

import os
import threading
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


_LONGEST_SECONDS = 86_400.0
"""Of a wait at a time: there is a longest one that the system takes."""


class Timers:
    """Calls functions later; the thread is started by the first and lives on."""

    def __init__(self) -> None:
        # No lock: finalizers use this, and one may run amid anything here, in the same thread.
        self._given: SimpleQueue[tuple[float, Callable[[], object]]] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def call_later(self, seconds: float, fn: Callable[[], object]) -> None:
        """Call `fn` in a thread of its own after so many seconds. It must not raise, and not take long."""
        self._given.put((monotonic() + seconds, fn))
        if self._thread is None and self._starting.acquire(blocking=False):
            try:
                if self._thread is None:
                    thread = threading.Thread(
                        target=self._run, name="manyhands-timers", daemon=True
                    )
                    thread.start()
                    self._thread = thread
            finally:
                self._starting.release()

    def _run(self) -> None:
        numbers = count()  # of those due at once the first given goes first
        waiting: list[tuple[float, int, Callable[[], object]]] = []
        while True:
            left = max(0.0, waiting[0][0] - monotonic()) if waiting else _LONGEST_SECONDS
            try:
                at, fn = self._given.get(timeout=min(left, _LONGEST_SECONDS))
            except Empty:
                if left > 0:
                    continue
                fn = heappop(waiting)[2]
                fn()
            else:
                heappush(waiting, (at, next(numbers), fn))
            del fn


timers = Timers()


def _renew() -> None:
    """In a forked child: the thread is its parent's, and so is what was due."""
    global timers
    timers = Timers()


os.register_at_fork(after_in_child=_renew)
