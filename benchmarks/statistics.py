"""The arithmetic of the benchmarks: pure, no clock and no process."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Summary:
    """The middle of several values and how far they spread.

    Attributes
    ----------
    median : float
    low, high : float
        First and third quartile.
    count : int
        How many values there were.
    """

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """The interquartile range."""
        return self.high - self.low if self.high != self.low else 0.0


def compute_percentile(values: Sequence[float], percent: float) -> float:
    """Value below which `percent` of the values lie, linear between the two nearest ranks.

    Raises
    ------
    ValueError
        If `values` is empty or `percent` lies outside 0 to 100.
    """
    if not values:
        raise ValueError("no values to take a percentile of")
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must lie between 0 and 100, not {percent}")
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    if ordered[below] == ordered[above]:  # also where both are infinite, whose difference is NaN
        return ordered[below]
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def compute_median(values: Sequence[float]) -> float:
    """The 50th percentile."""
    return compute_percentile(values, 50)


def summarize(values: Sequence[float]) -> Summary:
    """Median and quartiles of at least one value."""
    return Summary(
        median=compute_median(values),
        low=compute_percentile(values, 25),
        high=compute_percentile(values, 75),
        count=len(values),
    )


def compute_ratio(ours: float, theirs: float) -> float:
    """`ours` divided by `theirs`; infinite when `theirs` is zero."""
    return ours / theirs if theirs else math.inf


def compute_efficiency(total: float, workers: int, wall: float) -> float:
    """Share of the workers' time that computed: `total` work over `workers` times `wall`."""
    return total / (workers * wall)


def compute_ideal_wall(durations: Sequence[float], workers: int) -> float:
    """Shortest possible wall time: total work over workers, or the longest call if larger."""
    return max(sum(durations) / workers, max(durations, default=0.0))


def draw_durations(count: int, median: float, sigma: float, seed: int) -> list[float]:
    """Log-normal durations in the unit of `median`; the same for the same `seed`."""
    source = random.Random(seed)
    return [source.lognormvariate(math.log(median), sigma) for _ in range(count)]


def find_crossing(
    measure: Callable[[float], float],
    low: float,
    high: float,
    level: float,
    tolerance: float,
) -> float:
    """Smallest argument at which a rising `measure` reaches `level`.

    Bisects in the logarithm of the argument, so that `low` may be microseconds and `high`
    seconds.

    Parameters
    ----------
    measure
        Rising, but for noise.
    low, high
        Ends of the search, both above zero.
    level
        What `measure` must reach.
    tolerance
        Stop when the bracket's ends differ by at most this factor, such as 1.1.

    Returns
    -------
    float
        The geometric middle of the last bracket. `low` if every probe was enough,
        infinite if none was.
    """
    bottom, top = low, high
    while high / low > tolerance:
        middle = math.sqrt(low * high)
        if measure(middle) >= level:
            high = middle
        else:
            low = middle
    if low == bottom:
        return low
    return math.inf if high == top else math.sqrt(low * high)


def divide(length: int, parts: int) -> list[tuple[int, int]]:
    """Cut `length` items into consecutive parts whose sizes differ by at most one: first and past-last."""
    bounds = [length * number // parts for number in range(parts + 1)]
    return list(pairwise(bounds))
