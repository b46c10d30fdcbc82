"""Group-bys of Dask's that move every row or element to another partition: our exchange beside Dask's own."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

from benchmarks.contenders import OURS
from benchmarks.loads import Load, choose_repeats, expect
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.processes import list_family, measure_memory
from benchmarks.rows.dask_door import open_scheduler
from benchmarks.statistics import compute_median

_TITLES = {
    OURS: "Dask over manyhands",
    "dask-threads": "Dask, threads, disk shuffle",
    "dask-processes": "Dask, processes, disk shuffle",
    "dask": "Dask, LocalCluster",
}
_FRAMES = {name: _TITLES[name] for name in (OURS, "dask-threads")}
_EVERY_SECONDS = 0.02


def make_medians(setting: Setting) -> Any:
    """Medians of groups, for which all rows of a group must come together."""
    numpy, pandas = importlib.import_module("numpy"), importlib.import_module("pandas")
    rows = 20_000 if setting.quick else 5_000_000
    chance = numpy.random.default_rng(1)
    frame = pandas.DataFrame(
        {
            "key": chance.integers(0, rows // 10, rows),
            "value": chance.random(rows),
            "weight": chance.random(rows),
            "day": chance.integers(0, 365, rows),
        }
    )
    lazy = importlib.import_module("dask.dataframe").from_pandas(frame, npartitions=16)
    return lazy.groupby("key")[["value", "weight", "day"]].median(split_out=16).sum()


def make_groups(setting: Setting) -> Any:
    """Groups of 200,000 texts."""
    bag = importlib.import_module("dask.bag")
    count = 2_000 if setting.quick else 200_000
    texts = [f"{number % 997:03d}-{number}" for number in range(count)]
    return bag.from_sequence(texts, npartitions=16).groupby(read_group).map(count_group)


def make_pairs(setting: Setting) -> Any:
    """As many groups as elements, which is the hardest case."""
    bag = importlib.import_module("dask.bag")
    count = 2_000 if setting.quick else 200_000
    return bag.from_sequence(range(count), npartitions=16).groupby(abs).map(count_group)


def read_group(text: str) -> str:
    return text[:3]


def count_group(item: tuple[Any, list[Any]]) -> tuple[Any, int]:
    return item[0], len(item[1])


def _describe(found: Any) -> Any:
    return sorted(found) if isinstance(found, list) else found.round(6).to_dict()


def _measure(make: Callable[[Setting], Any]) -> Callable[[str, Setting], Reading]:
    def measure(contender: str, setting: Setting) -> Reading:
        collection = make(setting)
        with open_scheduler(contender, setting.workers) as options:
            # First of all, while there is no memory that an earlier round has left to be used again.
            found, peak = measure_peak(lambda: collection.compute(**options))
            expected = _describe(found)
            load = Load(
                lambda: collection.compute(**options),
                lambda found: expect(_describe(found), expected),
            )
            walls = load.time_rounds(choose_repeats(contender, setting))
        expect(_describe(collection.compute(scheduler="synchronous")), expected)
        return Reading({"wall": compute_median(walls), "peak": peak}, f"{len(walls)} a round")

    return measure


def measure_peak(run: Callable[[], Any]) -> tuple[Any, float]:
    """What comes of a run, and bytes by which the memory of all processes grows meanwhile, at most."""
    family = list_family()
    before = measure_memory(family)
    peak = before
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(_EVERY_SECONDS):
            peak = max(peak, measure_memory(family))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found = run()
    finally:
        is_over.set()
        watcher.join()
    return found, float(peak - before)


def _make_row(
    name: str,
    title: str,
    make: Callable[[Setting], Any],
    contenders: dict[str, str],
    targets: tuple[Target, ...],
) -> Row:
    return Row(
        name=f"dask-{name}",
        title=title,
        metrics=(Metric("wall", "wall", Unit.SECONDS), Metric("peak", "memory", Unit.BYTES)),
        targets=targets,
        contenders=contenders,
        measure=_measure(make),
    )


_FASTEST = (Target("wall", 0.5, against=Against.BEST),)

ROWS = (
    _make_row(
        "medians",
        "dask.dataframe: medians of 500,000 groups of 5 million rows",
        make_medians,
        _FRAMES,
        (
            Target("wall", 0.5, against=Against.PEER, peer="dask-threads"),
            Target("peak", 0.6, against=Against.PEER, peer="dask-threads"),
        ),
    ),
    _make_row("groups", "dask.bag: 200,000 texts in 1,000 groups", make_groups, _TITLES, _FASTEST),
    _make_row("pairs", "dask.bag: 200,000 groups of one", make_pairs, _TITLES, _FASTEST),
)
