"""Calls that keep a core busy: uneven ones, one-millisecond ones, and the smallest that pay.

The work is a fixed number of loop iterations, the same for every contender. How long an
iteration takes alone is timed in each turn, before the workers start and after they ended,
so that a change of the machine's clock is not taken for an overhead.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from statistics import fmean

from benchmarks.calibration import Speed, measure_speed
from benchmarks.contenders import EVERYONE, find_entry, list_titles, open_contender
from benchmarks.measurement import Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import (
    compute_efficiency,
    compute_ideal_wall,
    draw_durations,
    find_crossing,
)
from benchmarks.work import spin

_SEED = 20_260_101
_SIGMA = 1.5

_Run = Callable[[Callable[[int], None], Sequence[int]], Sequence[object]]


def measure_uneven(contender: str, setting: Setting) -> Reading:
    """Wall of a map of calls with log-normal durations, over the ideal wall."""
    count = 300 if setting.quick else 2_000
    durations = draw_durations(count, median=1.0, sigma=_SIGMA, seed=_SEED)
    iterations = [max(1, round(ms * setting.iterations_per_ms)) for ms in durations]
    # Pool's default chunks would put its long calls behind each other.
    chunksize = 1 if contender == "pool" else None
    before = measure_speed()
    with open_contender(contender, setting.workers) as opened:
        wall = _time(lambda f, xs: opened.map(f, xs, chunksize), iterations)
    speed = _average(before, measure_speed())
    ideal = compute_ideal_wall([speed.predict(n) for n in iterations], setting.workers)
    note = f"{count:,} calls, ideal {ideal:.3f} s"
    return Reading({"factor": wall / ideal}, note + (", chunksize 1" if chunksize else ""))


def measure_one_ms(contender: str, setting: Setting) -> Reading:
    """Share of the workers' time that computes calls of one millisecond."""
    count = 300 if setting.quick else 2_000
    if find_entry(contender).heavy:
        count //= 3
    iterations = [setting.iterations_per_ms] * count
    before = measure_speed()
    with open_contender(contender, setting.workers) as opened:
        wall = _time(opened.submit_many, iterations)
    speed = _average(before, measure_speed())
    total = sum(speed.predict(n) for n in iterations)
    efficiency = compute_efficiency(total, setting.workers, wall)
    return Reading({"efficiency": efficiency}, f"{count:,} calls")


def measure_smallest(contender: str, setting: Setting) -> Reading:
    """Shortest call at which half of the workers' time computes, by submit and by map."""
    work = 0.05 if setting.quick else 0.25
    tolerance = 1.3 if setting.quick else 1.08
    speed = measure_speed()

    def search(run: _Run, shortest: float, most_calls: int) -> float:
        def probe(duration: float) -> float:
            iterations = speed.fit(duration)
            count = round(min(max(work / duration, 40), most_calls))
            wall = _time(run, [iterations] * count)
            return compute_efficiency(speed.predict(iterations) * count, setting.workers, wall)

        return find_crossing(probe, shortest, 0.1, level=0.5, tolerance=tolerance)

    with open_contender(contender, setting.workers) as opened:
        # Long enough to be found out as hopeless, short enough not to take minutes.
        values = {"submit": search(opened.submit_many, 1e-6, 20_000)}
        opened.map(spin, [0] * 1_000)
        values["map"] = search(opened.map, 2e-7, 1_000_000)
    return Reading(values)


def _time(run: _Run, iterations: Sequence[int]) -> float:
    gc.collect()
    begin = time.perf_counter()
    results = run(spin, iterations)
    wall = time.perf_counter() - begin
    if len(results) != len(iterations):
        raise RuntimeError(f"{len(results)} results of {len(iterations)} calls")
    return wall


def _average(first: Speed, second: Speed) -> Speed:
    return Speed(
        fmean([first.call, second.call]),
        fmean([first.iteration, second.iteration]),
    )


UNEVEN = Row(
    name="uneven",
    title="Map of 2,000 calls of log-normal duration (median 1 ms, sigma 1.5)",
    metrics=(Metric("factor", "wall over ideal", Unit.FACTOR),),
    targets=(Target("factor", 1.1),),
    contenders=list_titles(*EVERYONE, "bare"),
    measure=measure_uneven,
)

ONE_MS = Row(
    name="one-ms",
    title="Calls of 1 ms submitted one by one",
    metrics=(Metric("efficiency", "parallel efficiency", Unit.SHARE, higher_is_better=True),),
    targets=(Target("efficiency", 0.95, at_least=True),),
    contenders=list_titles(*EVERYONE, "bare"),
    measure=measure_one_ms,
)

SMALLEST = Row(
    name="smallest",
    title="Smallest call with a parallel efficiency of 50 %",
    metrics=(
        Metric("submit", "by submit", Unit.SECONDS),
        Metric("map", "by map", Unit.SECONDS),
    ),
    targets=(Target("submit", 40e-6), Target("map", 5e-6)),
    contenders=list_titles(*EVERYONE),
    measure=measure_smallest,
)
