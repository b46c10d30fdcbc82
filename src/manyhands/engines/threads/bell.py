"""How one thread wakes another."""

from __future__ import annotations

import threading


class Bell:
    """Belongs to one thread, which sleeps until others ring.

    But for `sleep`, it is used with the engine's lock held.
    """

    __slots__ = ("_is_rung", "_lock")

    def __init__(self) -> None:
        self._is_rung = False
        self._lock = (
            threading.Lock()
        )  # held while it is not rung; a condition would take three times as long
        self._lock.acquire()

    def sleep(self, seconds: float | None) -> None:
        """Until it is rung, or for so many seconds; perhaps less. `hush` comes next."""
        limit = -1 if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX)
        self._lock.acquire(timeout=limit)

    def ring(self) -> None:
        """Wake the thread, or keep it from falling asleep."""
        if not self._is_rung:
            self._is_rung = True
            self._lock.release()

    def hush(self) -> None:
        """The thread is awake, and looks now."""
        if self._is_rung:
            self._is_rung = False
            self._lock.acquire(blocking=False)  # rung as its time was over
