"""Things that are due in a while, in one thread of the process that sleeps meanwhile."""

from __future__ import annotations

import os
import threading
from heapq import heappop, heappush
from itertools import count
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


_LONGEST_SECONDS = 86_400.0
"""Of a wait at a time: there is a longest one that the system takes."""


class Timers:
    """Calls functions later; the thread is started by the first and lives on."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._change = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    def call_later(self, seconds: float, fn: Callable[[], object]) -> None:
        """Call `fn` in a thread of its own after so many seconds. It must not raise, and not take long."""
        with self._change:
            heappush(self._due, (monotonic() + seconds, next(self._numbers), fn))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="manyhands-timers", daemon=True
                )
                self._thread.start()
            self._change.notify()

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._due or self._due[0][0] > monotonic():
                    left = self._due[0][0] - monotonic() if self._due else None
                    self._change.wait(None if left is None else min(left, _LONGEST_SECONDS))
                fn = heappop(self._due)[2]
            fn()
            del fn


timers = Timers()


def _renew() -> None:
    """In a forked child: the thread is its parent's, and so is what was due."""
    global timers
    timers = Timers()


os.register_at_fork(after_in_child=_renew)
