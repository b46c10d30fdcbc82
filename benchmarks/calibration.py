"""How long `work.spin` takes alone, on an otherwise idle machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.statistics import compute_median
from benchmarks.work import spin


@dataclass(frozen=True)
class Speed:
    """Cost of ``spin(n)``: one call plus `n` iterations, in seconds."""

    call: float
    iteration: float

    def predict(self, iterations: int) -> float:
        """Seconds that ``spin(iterations)`` takes alone."""
        return self.call + self.iteration * iterations

    def fit(self, seconds: float) -> int:
        """Iterations with which a call takes about `seconds`; zero if none is short enough."""
        return max(0, round((seconds - self.call) / self.iteration))


def measure_speed(seconds: float = 0.2) -> Speed:
    """Time `spin` alone in this process, for about `seconds`.

    Medians of short stretches, so that an interruption of one of them does not count.
    """
    spin(100_000)  # the interpreter specialises the loop in its first run
    iterations = 20_000
    iteration = compute_median(_time_calls(iterations, 1, seconds / 2)) / iterations
    call = compute_median(_time_calls(0, 1_000, seconds / 2)) / 1_000
    return Speed(call, iteration)


def _time_calls(iterations: int, calls: int, seconds: float) -> list[float]:
    walls: list[float] = []
    end = time.perf_counter() + seconds
    while not walls or time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(calls):
            spin(iterations)
        walls.append(time.perf_counter() - begin)
    return walls
