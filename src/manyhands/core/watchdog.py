"""When runs are to be looked at again: deadlines that mostly pass unused."""

from __future__ import annotations

import threading
from functools import partial
from math import inf
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Watchdog:
    """Tells when something has taken too long, unless it is called off.

    Nearly all deadlines are called off. So there is one timer for all of them, for the earliest, and calling that one
    off leaves the timer as it is.

    Parameters
    ----------
    on_due
        Is given what was watched, once, in the thread of `core.timers`. It must not raise, and not take long.
    """

    def __init__(self, on_due: Callable[[Any], object]) -> None:
        self._on_due: Callable[[Any], object] | None = on_due
        self._lock = threading.Lock()
        self._due: dict[Any, float] = {}
        self._next = inf  # the moment of the timer that counts

    def watch(self, what: Any, seconds: float) -> None:
        """Have it looked at after so many seconds; a deadline that it has already is replaced."""
        with self._lock:
            due = self._due[what] = monotonic() + seconds
            self._set_timer(due)

    def unwatch(self, what: Any) -> None:
        """Call it off; nothing happens where it is not watched."""
        with self._lock:
            self._due.pop(what, None)

    def close(self) -> None:
        """Call everything off, and let go of `on_due`: timers may be under way for hours."""
        with self._lock:
            self._due.clear()
            self._on_due = None

    def _set_timer(self, due: float) -> None:
        if due < self._next:
            from manyhands.core.timers import timers

            self._next = due
            timers.call_later(due - monotonic(), partial(self._look, due))

    def _look(self, moment: float) -> None:
        with self._lock:
            if moment != self._next:
                return  # a timer for an earlier moment was set later, and has seen to this one
            self._next = inf
            now = monotonic()
            on_due = self._on_due
            over = [what for what, due in self._due.items() if due <= now]
            for what in over:
                del self._due[what]
            if self._due:
                self._set_timer(min(self._due.values()))
        for what in over:
            if on_due is not None:
                on_due(what)
