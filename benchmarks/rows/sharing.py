"""One large value that sixteen calls read a part of each: an array, a data frame."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contenders import OURS, open_contender
from benchmarks.contenders.contender import Contender, Sharer
from benchmarks.data_work import (
    make_array,
    make_frame,
    read_and_hold,
    settle,
    sum_kept,
    sum_part,
    summarize_part,
)
from benchmarks.loads import Load, choose_repeats, expect
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.processes import become_subreaper, list_family, measure_memory
from benchmarks.statistics import compute_median, divide

CALLS = 16
_NONE = "manyhands-none"
_HOLD_SECONDS = 5.0


def measure_array(contender: str, setting: Setting) -> Reading:
    """Wall of sixteen calls that sum a slice each, and what the array takes beside the program's own."""
    become_subreaper()  # what leaves its parent counts too
    count = (2 if setting.quick else 32) * 2**20
    repeats = choose_repeats(contender, setting)
    with open_contender(contender, setting.workers) as opened:
        if contender == _NONE:
            walls = make_empty_load(opened, count, setting.workers).time_rounds(repeats)
            return Reading({"wall": compute_median(walls)}, f"{len(walls)} a round")
        sharer = _check(opened)
        # With it the workers import NumPy, which is not to count as the array's memory.
        opened.submit_many(settle, [(0, 0.05)] * (2 * setting.workers))
        # Made now, as workers that fork later would have it for nothing.
        value = sharer.prepare(make_array(count))
        load = make_array_load(sharer, value)
        idle = measure_memory(list_family())
        walls = load.time_rounds(repeats)
        values = {"wall": compute_median(walls)}
        if contender != "loop":
            held = _measure_held(sharer, value, setting.workers)
            values["memory"] = (held - idle) / value.nbytes
    return Reading(values, f"{count * 8 // 2**20} MiB, {len(walls)} a round")


def measure_frame(contender: str, setting: Setting) -> Reading:
    """Wall of sixteen calls that aggregate a slice of rows each."""
    rows = 200_000 if setting.quick else 10_000_000
    repeats = choose_repeats(contender, setting)
    with open_contender(contender, setting.workers) as opened:
        walls = make_frame_load(_check(opened), make_frame(rows)).time_rounds(repeats)
    return Reading({"wall": compute_median(walls)}, f"{rows:,} rows, {len(walls)} a round")


def make_array_load(opened: Sharer, value: Any) -> Load:
    """Calls that each sum a slice of the array `value`."""
    return _make_load(opened, value, len(value), sum_part)


def make_frame_load(opened: Sharer, value: Any) -> Load:
    """Calls that each aggregate a slice of the data frame `value`."""
    return _make_load(opened, value, len(value), summarize_part)


def make_empty_load(opened: Contender, count: int, workers: int) -> Load:
    """The calls of `make_array_load` with nothing to send: each worker keeps an array like a slice."""
    part = count // CALLS
    opened.submit_many(settle, [(part, 0.05)] * (2 * workers))
    expected = [sum_kept(part)] * CALLS
    return Load(
        run=lambda: opened.submit_many(sum_kept, [part] * CALLS),
        check=lambda results: expect(results, expected),
    )


def _make_load(opened: Sharer, value: Any, length: int, function: Callable[..., Any]) -> Load:
    parts = divide(length, CALLS)
    expected = [function(value, part) for part in parts]
    return Load(
        run=lambda: opened.share(function, value, parts),
        check=lambda results: expect(results, expected),
    )


def _check(opened: Contender) -> Sharer:
    if not isinstance(opened, Sharer):
        raise TypeError(f"{type(opened).__name__} has no way to share a value")
    return opened


def _measure_held(opened: Sharer, value: Any, workers: int) -> int:
    """Memory of all processes when each worker has read the whole of `value` and still has it.

    A moment at which nothing moves: sizes that are read process by process, while pages come and
    go, would count some of them twice.
    """
    with tempfile.TemporaryDirectory() as directory:
        sizes: list[int] = []

        def watch() -> None:
            deadline = time.monotonic() + _HOLD_SECONDS
            folder = Path(directory)
            while len(list(folder.glob("read-*"))) < workers and time.monotonic() < deadline:
                time.sleep(0.005)
            if len(list(folder.glob("read-*"))) == workers:
                sizes.append(measure_memory(list_family()))
            (folder / "gate").touch()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            opened.share(read_and_hold, value, [directory] * workers)
        finally:
            watcher.join()
    if not sizes:
        raise RuntimeError("the calls did not go to all workers")
    return sizes[0]


ARRAY = Row(
    name="array",
    title="One 256 MiB float64 array to 16 calls that sum a slice each",
    metrics=(
        Metric("wall", "wall", Unit.SECONDS),
        Metric("memory", "memory beyond idle, in arrays", Unit.FACTOR),
    ),
    targets=(
        Target("wall", 1.0, against=Against.BEST),
        Target("wall", 1.0, against=Against.BEST, of="manyhands-implicit"),
        Target("wall", 2.0, against=Against.PEER, peer=_NONE, of="manyhands-empty"),
        Target("memory", 1.15),
        Target("memory", 1.15, of="manyhands-implicit"),
        Target("memory", 1.15, of="manyhands-empty"),
    ),
    contenders={
        OURS: "manyhands, put anew",
        "manyhands-implicit": "manyhands, passed as it is",
        "manyhands-empty": "manyhands, born shared",
        "pool-segment": "Pool, new shared_memory",
        "pool-kept": "Pool, kept shared_memory",
        "joblib": "joblib, memmap",
        "ray": "Ray, put",
        "dask": "Dask, scatter",
        "loop": "plain loop",
        _NONE: "manyhands, no array",
    },
    measure=measure_array,
)

FRAME = Row(
    name="frame",
    title="A data frame of 10,000,000 rows to 16 calls that aggregate a slice each",
    metrics=(Metric("wall", "wall", Unit.SECONDS),),
    targets=tuple(
        Target("wall", 1 / 3, against=Against.PEER, peer="joblib", of=name)
        for name in (OURS, "manyhands-implicit")
    ),
    contenders={
        OURS: "manyhands, put anew",
        "manyhands-implicit": "manyhands, passed as it is",
        "joblib": "joblib",
        "ray": "Ray, put",
        "dask": "Dask, scatter",
        "loop": "plain loop",
    },
    measure=measure_frame,
)
