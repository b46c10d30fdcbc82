"""Rounds of work with data: what each does, and how rounds are timed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import find_entry
from benchmarks.measurement import Setting

_MOST_SECONDS = 10.0


@dataclass(frozen=True)
class Load:
    """A round of work that can be done again and again.

    Attributes
    ----------
    run : callable
        Does one round and gives all that came of it, so that letting go of it is not timed.
    check : callable
        Raises where that is not what should have come; not timed.
    """

    run: Callable[[], Any]
    check: Callable[[Any], None]

    def run_checked(self) -> None:
        """One round, not timed."""
        self.check(self.run())

    def time_rounds(self, rounds: int) -> list[float]:
        """Wall seconds of each of so many rounds, or of as many as begin within a few seconds.

        Two more rounds go before, as memory may be taken in the first and mapped in the second.
        """
        for _ in range(2):
            self.run_checked()
        walls: list[float] = []
        end = time.perf_counter() + _MOST_SECONDS
        while not walls or (len(walls) < rounds and time.perf_counter() < end):
            gc.collect()
            begin = time.perf_counter()
            outcome = self.run()
            walls.append(time.perf_counter() - begin)
            self.check(outcome)
            del outcome  # else the next round runs with this one's memory still held
        return walls


def choose_repeats(contender: str, setting: Setting) -> int:
    """Rounds that a turn times."""
    if setting.quick:
        return 2
    return 3 if find_entry(contender).heavy else 7


def expect(found: object, expected: object) -> None:
    """Raise where a result is not what it should be."""
    if found != expected:
        raise RuntimeError(f"the results are not those of the calls: {found!r:.200}")
