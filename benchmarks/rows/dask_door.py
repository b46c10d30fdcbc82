"""Collections of Dask, computed by a session and by Dask's own schedulers: the same program each time."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.contenders import OURS
from benchmarks.loads import Load, choose_repeats, expect
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median
from benchmarks.work import noop

_TITLES = {
    OURS: "Dask over manyhands",
    "dask-threads": "Dask, threads",
    "dask-processes": "Dask, processes",
    "dask": "Dask, LocalCluster",
}


def make_mean(setting: Setting) -> Any:
    """The article's own example of an array that is larger than its chunks."""
    array = importlib.import_module("dask.array")
    size, chunk = (400, 100) if setting.quick else (8_000, 1_000)
    x = array.random.default_rng(1).random((size, size), chunks=(chunk, chunk))
    return (x + x.T).mean(axis=0)


def make_svd(setting: Setting) -> Any:
    """A chain of products and factorisations; what it gives are the singular values."""
    array = importlib.import_module("dask.array")
    rows, chunk = (2_000, 500) if setting.quick else (100_000, 10_000)
    x = array.random.default_rng(1).random((rows, 100), chunks=(chunk, 100))
    return array.linalg.svd_compressed(x, 10, seed=1)[1]


def make_rechunk(setting: Setting) -> Any:
    """From rows to columns, so that each chunk needs a piece of every other."""
    array = importlib.import_module("dask.array")
    size, chunk = (400, 100) if setting.quick else (8_000, 400)
    x = array.random.default_rng(1).random((size, size), chunks=(chunk, size))
    return x.rechunk((size, chunk)).sum(axis=0)


def make_words(setting: Setting) -> Any:
    """Words of lines, counted: nothing but Python."""
    bag = importlib.import_module("dask.bag")
    chance = random.Random(1)
    words = [f"word{number}" for number in range(2_000)]
    count = 2_000 if setting.quick else 200_000
    lines = [" ".join(chance.choices(words, k=5)) for _ in range(count)]
    counts = (
        bag.from_sequence(lines, npartitions=16)
        .str.split()
        .flatten()
        .foldby(identify, count_one, 0, add, 0)
    )
    return counts.map_partitions(make_sorted)


def make_python(setting: Setting) -> Any:
    """Delayed functions that hold the global lock."""
    delayed = importlib.import_module("dask").delayed
    calls, steps = (20, 1_000) if setting.quick else (200, 100_000)
    return delayed(sum)([delayed(add_up)(number, steps) for number in range(calls)])


def make_group(setting: Setting) -> Any:
    """Group-by of five million rows."""
    return _make_frame(setting).groupby("group").value.mean()


def make_merge(setting: Setting) -> Any:
    """A merge of five million rows with as many keys as a tenth of them."""
    left = _make_frame(setting)
    right = _make_frame(setting, "other").drop_duplicates("key", split_out=4)
    return left.merge(right[["key", "other"]], on="key").other.sum()


def make_shuffle(setting: Setting) -> Any:
    """A shuffle of five million rows by a key."""
    return _make_frame(setting).shuffle("key").value.sum()


def _make_frame(setting: Setting, name: str = "value") -> Any:
    numpy, pandas = importlib.import_module("numpy"), importlib.import_module("pandas")
    rows = 20_000 if setting.quick else 5_000_000
    chance = numpy.random.default_rng(1)
    frame = pandas.DataFrame(
        {
            "key": chance.integers(0, rows // 10, rows),
            "group": chance.integers(0, 1_000, rows),
            name: chance.random(rows),
        }
    )
    return importlib.import_module("dask.dataframe").from_pandas(frame, npartitions=16)


def identify(word: str) -> str:
    return word


def count_one(count: int, _: str) -> int:
    return count + 1


def add(left: int, right: int) -> int:
    return left + right


def make_sorted(pairs: Any) -> list[Any]:
    return sorted(pairs)


def add_up(number: int, steps: int) -> int:
    total = 0
    for step in range(steps):
        total += step ^ number
    return total


def _measure(make: Callable[[Setting], Any]) -> Callable[[str, Setting], Reading]:
    def measure(contender: str, setting: Setting) -> Reading:
        collection = make(setting)
        expected = _describe(collection.compute(scheduler="synchronous"))
        with open_scheduler(contender, setting.workers) as options:
            load = Load(
                lambda: collection.compute(**options),
                lambda found: expect(_describe(found), expected),
            )
            walls = load.time_rounds(choose_repeats(contender, setting))
        return Reading({"wall": compute_median(walls)}, f"{len(walls)} a round")

    return measure


def _describe(found: Any) -> Any:
    """What is compared: numbers as far as they do not depend on the order of additions."""
    numpy = importlib.import_module("numpy")
    if isinstance(found, list):
        return found
    return numpy.round(numpy.sort(numpy.asarray(found, dtype=float).ravel()), 6).tolist()


@contextmanager
def open_scheduler(contender: str, workers: int) -> Iterator[dict[str, Any]]:
    """Keywords of `compute` by which this contender computes; its workers have begun, if it keeps any."""
    dask: Any = importlib.import_module("dask")
    if contender == OURS:
        with importlib.import_module(OURS).Session("local", workers=workers) as session:
            session.map(noop, range(100))
            yield {}
    elif contender == "dask":
        distributed: Any = importlib.import_module("distributed")
        with (
            distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=50,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            client.wait_for_workers(workers)
            yield {}
    else:
        with dask.config.set(num_workers=workers):
            yield {"scheduler": contender.removeprefix("dask-")}


def _make_row(name: str, title: str, make: Callable[[Setting], Any], limit: float) -> Row:
    return Row(
        name=f"dask-{name}",
        title=title,
        metrics=(Metric("wall", "wall", Unit.SECONDS),),
        targets=(Target("wall", limit, against=Against.BEST),),
        contenders=_TITLES,
        measure=_measure(make),
    )


ROWS = (
    _make_row(
        "mean", "dask.array: (x + x.T).mean(axis=0), 8000 x 8000 in chunks of 1000", make_mean, 1.0
    ),
    _make_row("svd", "dask.array: svd_compressed, 100,000 x 100, rank 10", make_svd, 1.0),
    _make_row(
        "rechunk", "dask.array: 8000 x 8000 from rows of chunks to columns", make_rechunk, 1.0
    ),
    _make_row("words", "dask.bag: words of 200,000 lines counted by foldby", make_words, 0.5),
    _make_row("delayed", "dask.delayed: 200 Python functions of some 10 ms", make_python, 0.5),
    _make_row("group", "dask.dataframe: group-by of 5 million rows", make_group, 1.0),
    _make_row("merge", "dask.dataframe: merge of 5 million rows", make_merge, 1.0),
    _make_row("shuffle", "dask.dataframe: shuffle of 5 million rows", make_shuffle, 1.0),
)
