"""A map of a trivial function over integers, without hints."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Sequence

from benchmarks.contenders import EVERYONE, list_titles, open_contender
from benchmarks.contenders.contender import Contender
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median
from benchmarks.work import square

# Enough items for about a second; a rate does not need more.
_MOST_ITEMS = {
    "executor": 20_000,
    "loky": 20_000,
    "mpire": 200_000,
    "ray": 200_000,
    "dask": 2_000,
    "parsl": 2_000,
}
_PARTS_PER_WORKER = (1, 2, 4, 8, 16, 32, 64)


def measure_hundred_thousand(contender: str, setting: Setting) -> Reading:
    """Rates of maps over 100,000 integers."""
    return _measure(contender, setting, 10_000 if setting.quick else 100_000)


def measure_million(contender: str, setting: Setting) -> Reading:
    """Rates of maps over 1,000,000 integers."""
    return _measure(contender, setting, 100_000 if setting.quick else 1_000_000)


def _measure(contender: str, setting: Setting, items: int) -> Reading:
    items = min(items, _MOST_ITEMS.get(contender, items))
    inputs: dict[str, Sequence[int]] = {"list": list(range(items)), "range": range(items)}
    rates, sizes = {}, []
    with open_contender(contender, setting.workers) as opened:
        for kind, numbers in inputs.items():
            opened.map(square, numbers[:1_000])
            size = _search_chunksize(opened, numbers, setting) if contender == "pool" else None
            rates[kind] = items / _time_map(opened, numbers, size, repeats=5, seconds=3.0)
            sizes.append(f"{size:,}" if size else "")
    note = f"{items:,} items"
    if any(sizes):
        note += f", best chunksize {' and '.join(sizes)}"
    return Reading(rates, note)


def _search_chunksize(contender: Contender, numbers: Sequence[int], setting: Setting) -> int:
    """The chunksize with the shortest median; the row then measures it afresh."""
    sizes = [math.ceil(len(numbers) / (setting.workers * parts)) for parts in _PARTS_PER_WORKER]
    walls = {size: _time_map(contender, numbers, size, repeats=3, seconds=2.0) for size in sizes}
    return min(walls, key=walls.__getitem__)


def _time_map(
    contender: Contender,
    numbers: Sequence[int],
    chunksize: int | None,
    repeats: int,
    seconds: float,
) -> float:
    """Median wall seconds of a map, over `repeats` or as many as start within `seconds`."""
    expected = [number * number for number in numbers]
    walls: list[float] = []
    end = time.perf_counter() + seconds
    while not walls or (len(walls) < repeats and time.perf_counter() < end):
        gc.collect()
        begin = time.perf_counter()
        results = contender.map(square, numbers, chunksize)
        walls.append(time.perf_counter() - begin)
        if list(results) != expected:
            raise RuntimeError("the results are not those of the items, in order")
        del results  # else the next map is timed with this one's memory still held
    return compute_median(walls)


_METRICS = (
    Metric("list", "over a list", Unit.RATE, higher_is_better=True),
    Metric("range", "over a range", Unit.RATE, higher_is_better=True),
)
_TARGETS = tuple(
    Target(metric.key, limit, at_least=True, against=Against.PEER, peer=peer)
    for metric in _METRICS
    for peer, limit in {"pool": 1.2, "joblib": 8.0}.items()
)

HUNDRED_THOUSAND = Row(
    name="map-100k",
    title="Map of x*x over 100,000 integers, no hints",
    metrics=_METRICS,
    targets=_TARGETS,
    contenders=list_titles(*EVERYONE),
    measure=measure_hundred_thousand,
)

MILLION = Row(
    name="map-1m",
    title="Map of x*x over 1,000,000 integers, no hints",
    metrics=_METRICS,
    targets=_TARGETS,
    contenders=list_titles(*EVERYONE),
    measure=measure_million,
)
