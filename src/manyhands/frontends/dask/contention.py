"""Whether threads that compute keep each other waiting for the interpreter's lock."""

from __future__ import annotations

from statistics import median
from time import monotonic, process_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

_LOOK_SECONDS = 0.05

_LEAST_LOOKS = 10

_LATE_SECONDS = 0.0012
"""Who wakes up and finds the lock held waits for it up to `sys.getswitchinterval`, five milliseconds, and mostly two;
for a core, a fifth of one."""

_ONE_CORE = (0.1, 1.3)
"""Cores that are in use where all but one thread wait for the lock."""


class Contention:
    """What a thread sees that waits while others compute: how late it wakes up, and how many cores are used."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._begin = monotonic()
        self._used = process_time()

    def wait(self, change: threading.Condition, is_done: Callable[[], object]) -> None:
        """Wait until `is_done`, with the lock of `change` held."""
        while not is_done():
            begin = monotonic()
            if not change.wait(_LOOK_SECONDS):
                self._late.append(monotonic() - begin - _LOOK_SECONDS)

    def is_likely(self) -> bool:
        """Whether the threads were kept from using more than one core by that lock."""
        if len(self._late) < _LEAST_LOOKS:
            return False
        cores = (process_time() - self._used) / (monotonic() - self._begin)
        return median(self._late) > _LATE_SECONDS and _ONE_CORE[0] < cores < _ONE_CORE[1]
