"""Apps of a Parsl program that do nothing, on our workers and on Parsl's own."""

from __future__ import annotations

import gc
import time

from benchmarks.contenders import OURS, find_entry, open_contender
from benchmarks.contenders.contender import Contender
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median
from benchmarks.work import noop

_REPEATS = 5


def measure_apps(contender: str, setting: Setting) -> Reading:
    """Rate of apps from the first call to the last result, and the time of one that is waited for at once."""
    calls, trips = (200, 50) if setting.quick else (2_000, 500)
    way = "manyhands-parsl" if contender == OURS else contender
    with open_contender(way, setting.workers) as opened:
        walls = [_time_apps(opened, calls) for _ in range(_REPEATS)]
        waits = [_time_round_trip(opened) for _ in range(trips)]
    return Reading(
        {"rate": calls / compute_median(walls), "trip": compute_median(waits)}, f"{calls:,} apps"
    )


def _time_apps(contender: Contender, calls: int) -> float:
    gc.collect()
    begin = time.perf_counter()
    results = contender.submit_many(noop, range(calls))
    wall = time.perf_counter() - begin
    if results != list(range(calls)):
        raise RuntimeError("the results are not those of the apps, in order")
    return wall


def _time_round_trip(contender: Contender) -> float:
    begin = time.perf_counter()
    contender.round_trip(noop, 0)
    return time.perf_counter() - begin


ROW = Row(
    name="parsl-apps",
    title="2,000 no-op apps of a Parsl program, called one by one and then gathered",
    metrics=(
        Metric("rate", "apps", Unit.RATE, higher_is_better=True),
        Metric("trip", "an app that is waited for, median", Unit.SECONDS),
    ),
    targets=(Target("rate", 5.0, at_least=True, against=Against.PEER, peer="parsl"),),
    contenders={
        OURS: find_entry("manyhands-parsl").title,
        "parsl": "Parsl, HighThroughputExecutor",
        "parsl-threads": find_entry("parsl-threads").title,
    },
    measure=measure_apps,
)
