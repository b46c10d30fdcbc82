"""Rounds of work with data: what each does, and how rounds are timed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import find_entry
from benchmarks.contenders.contender import Step
from benchmarks.measurement import Setting
from benchmarks.statistics import compute_median

_MOST_SECONDS = 10.0

_MOST_BLOCKS = 15


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


def time_step(step: Step, expected: object, setting: Setting) -> float:
    """Wall seconds of one round of a case: the median over blocks, each long enough to be timed.

    Parameters
    ----------
    expected
        What a round gives, looked at before and after, outside the time; None for what is not
        looked at.
    """
    block, seconds = (0.02, 0.3) if setting.quick else (0.1, 3.0)
    _check_step(step, expected)
    times = _fit_block(step, block)
    walls: list[float] = []
    end = time.perf_counter() + seconds
    while not walls or (len(walls) < _MOST_BLOCKS and time.perf_counter() < end):
        walls.append(_time_block(step, times) / times)
    _check_step(step, expected)
    return compute_median(walls)


def _check_step(step: Step, expected: object) -> None:
    found = step()
    if expected is not None:
        expect(found, expected)


def _fit_block(step: Step, seconds: float) -> int:
    """How many rounds take about `seconds`; warms up on its way there."""
    times = 1
    while (wall := _time_block(step, times)) < seconds:
        times = max(times + 1, min(times * 10, round(times * seconds / max(wall, 1e-9))))
    return times


def _time_block(step: Step, times: int) -> float:
    gc.collect()
    begin = time.perf_counter()
    for _ in range(times):
        step()
    return time.perf_counter() - begin


def choose_repeats(contender: str, setting: Setting) -> int:
    """Rounds that a turn times."""
    if setting.quick:
        return 2
    return 3 if find_entry(contender).heavy else 7


def expect(found: object, expected: object) -> None:
    """Raise where a result is not what it should be."""
    if found != expected:
        raise RuntimeError(f"the results are not those of the calls: {found!r:.200}")
