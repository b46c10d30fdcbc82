"""Programs written for the pools of the standard library, on those pools and on our workers."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.contenders import OURS, find_entry, open_contender
from benchmarks.contenders.contender import Contender
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median
from benchmarks.work import noop, square

_REPEATS = 5


def measure_door(door: str, contender: str, setting: Setting) -> Reading:
    """Rates of single calls and of a map's items, and the time of a call that is waited for at once."""
    calls, items, trips = (500, 5_000, 200) if setting.quick else (10_000, 100_000, 2_000)
    if contender == "executor":
        items //= 10  # each of its items is a call
    way = {OURS: door, "manyhands-none": OURS}.get(contender, contender)
    with open_contender(way, setting.workers) as opened:
        submitted = [_time(opened.submit_many, noop, range(calls)) for _ in range(_REPEATS)]
        mapped = [_time(opened.map, square, range(items)) for _ in range(_REPEATS)]
        waited = [_time_round_trip(opened) for _ in range(trips)]
    values = {
        "submit": calls / compute_median(submitted),
        "map": items / compute_median(mapped),
        "trip": compute_median(waited),
    }
    return Reading(values, f"{calls:,} calls, {items:,} items")


def _time(
    run: Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]],
    function: Callable[[Any], Any],
    items: Sequence[Any],
) -> float:
    gc.collect()
    begin = time.perf_counter()
    results = run(function, items)
    wall = time.perf_counter() - begin
    if results != list(map(function, items)):
        raise RuntimeError("the results are not those of the calls, in order")
    return wall


def _time_round_trip(contender: Contender) -> float:
    begin = time.perf_counter()
    contender.round_trip(noop, 0)
    return time.perf_counter() - begin


def _make_row(name: str, title: str, peer: str, factor: float) -> Row:
    door = f"manyhands-{peer}"
    return Row(
        name=name,
        title=title,
        metrics=(
            Metric("submit", "single calls", Unit.RATE, higher_is_better=True),
            Metric("map", "items of a map", Unit.RATE, higher_is_better=True),
            Metric("trip", "a call that is waited for, median", Unit.SECONDS),
        ),
        targets=(
            Target("submit", factor, at_least=True, against=Against.PEER, peer=peer),
            Target("map", factor, at_least=True, against=Against.PEER, peer=peer),
            Target("trip", 0.5, against=Against.PEER, peer=peer),
            # What the door costs beside the functions of the package.
            Target("submit", 1 / 1.2, at_least=True, against=Against.PEER, peer="manyhands-none"),
            Target("trip", 1.2, against=Against.PEER, peer="manyhands-none"),
        ),
        contenders={
            OURS: find_entry(door).title,
            peer: find_entry(peer).title,
            "manyhands-none": "manyhands, no door",
        },
        measure=partial(measure_door, door),
    )


EXECUTOR = _make_row(
    "executor-door", "A program written for ProcessPoolExecutor", "executor", factor=5.0
)
POOL = _make_row("pool-door", "A program written for multiprocessing.Pool", "pool", factor=2.0)
