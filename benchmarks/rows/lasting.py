"""Memory of a program that works with data for long."""

from __future__ import annotations

import gc
from collections.abc import Callable

from benchmarks.contenders import OURS, list_titles, open_contender
from benchmarks.contenders.contender import Contender, Sharer
from benchmarks.data_work import make_array, make_frame
from benchmarks.loads import Load
from benchmarks.measurement import Metric, Reading, Row, Setting, Target, Unit
from benchmarks.processes import list_family, measure_memory
from benchmarks.rows.results import make_chain_load, make_results_load
from benchmarks.rows.sharing import make_array_load, make_frame_load
from benchmarks.rows.storing import make_storing_load
from benchmarks.statistics import compute_median

_PART = 64
"""How many times smaller than in the other rows the data is."""

_MakeLoad = Callable[[Contender, int, int], Load]

_SAMPLES = 5


def measure_lasting(_: str, setting: Setting) -> Reading:
    """Memory of all processes late in a long series of rounds, over that early in it."""
    early, late = (10, 30) if setting.quick else (100, 1_000)
    part = _PART * 8 if setting.quick else _PART
    values = {}
    for name, (contender, make_load) in _LOADS.items():
        with open_contender(contender, setting.workers) as opened:
            first, last = _follow(make_load(opened, setting.workers, part), early, late)
        values[name] = last / first
        values[f"{name}-late"] = last
    return Reading(values, f"rounds {early} and {late:,}")


def _follow(load: Load, early: int, late: int) -> tuple[float, float]:
    """Memory around two rounds, counted from one: medians over the last few rounds up to each."""
    sizes: dict[int, list[float]] = {early: [], late: []}
    for number in range(1, late + 1):
        load.run_checked()
        for end, found in sizes.items():
            if end - _SAMPLES < number <= end:
                gc.collect()
                found.append(measure_memory(list_family()))
    return compute_median(sizes[early]), compute_median(sizes[late])


def _make_array(opened: Contender, _: int, part: int) -> Load:
    assert isinstance(opened, Sharer)
    return make_array_load(opened, opened.prepare(make_array(2**25 // part)))


def _make_results(opened: Contender, workers: int, part: int) -> Load:
    return make_results_load(opened, 2**25 // part, workers)


def _make_chain(opened: Contender, _: int, part: int) -> Load:
    return make_chain_load(opened, 2**26 // part, is_born_shared=False)


def _make_chain_born_shared(opened: Contender, _: int, part: int) -> Load:
    return make_chain_load(opened, 2**26 // part, is_born_shared=True)


def _make_storing(opened: Contender, _: int, part: int) -> Load:
    return make_storing_load(opened, 10_000 // part)


def _make_frame(opened: Contender, _: int, part: int) -> Load:
    assert isinstance(opened, Sharer)
    return make_frame_load(opened, make_frame(10_000_000 // part))


_LOADS: dict[str, tuple[str, _MakeLoad]] = {
    "array": (OURS, _make_array),
    "array-implicit": ("manyhands-implicit", _make_array),
    "array-empty": ("manyhands-empty", _make_array),
    "results": (OURS, _make_results),
    "chain": (OURS, _make_chain),
    "chain-empty": (OURS, _make_chain_born_shared),
    "put": (OURS, _make_storing),
    "frame": (OURS, _make_frame),
    "frame-implicit": ("manyhands-implicit", _make_frame),
}
"""By metric: the contender, and what makes the rounds."""

ROW = Row(
    name="lasting-memory",
    title="Memory after 1,000 rounds over that after 100, each with a 64th of the data",
    metrics=tuple(
        metric
        for name in _LOADS
        for metric in (
            Metric(name, name, Unit.FACTOR),
            Metric(f"{name}-late", f"{name}, in the end", Unit.BYTES),
        )
    ),
    targets=tuple(Target(name, 1.05) for name in _LOADS),
    contenders=list_titles(OURS),
    measure=measure_lasting,
    most_rounds=2,
)
