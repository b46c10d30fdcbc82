"""One warm call that does nothing, waited for at once."""

from __future__ import annotations

import time

from benchmarks.contenders import EVERYONE, list_titles, open_contender
from benchmarks.contenders.contender import Contender
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median, compute_percentile
from benchmarks.work import noop

_WARM_CALLS = 50


def measure_round_trip(contender: str, setting: Setting) -> Reading:
    """Time call after call, until there are enough of them or the time is up."""
    calls, seconds = (500, 1.0) if setting.quick else (5_000, 3.0)
    with open_contender(contender, setting.workers) as opened:
        _time_calls(opened, _WARM_CALLS, seconds)
        walls = _time_calls(opened, calls, seconds)
    return Reading(
        {"median": compute_median(walls), "p99": compute_percentile(walls, 99)},
        f"{len(walls):,} calls a round",
    )


def _time_calls(contender: Contender, calls: int, seconds: float) -> list[float]:
    walls: list[float] = []
    end = time.perf_counter() + seconds
    while len(walls) < calls and (begin := time.perf_counter()) < end:
        contender.round_trip(noop, 7)
        walls.append(time.perf_counter() - begin)
    return walls


ROW = Row(
    name="round-trip",
    title="Round trip of one no-op call, warm",
    metrics=(
        Metric("median", "median", Unit.SECONDS),
        Metric("p99", "99th percentile", Unit.SECONDS),
    ),
    targets=(
        Target("median", 0.5, against=Against.BEST),
        Target("p99", 1.0, against=Against.BEST, best_by="median"),
    ),
    contenders=list_titles(*EVERYONE),
    measure=measure_round_trip,
)
