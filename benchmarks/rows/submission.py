"""Many calls that do nothing, submitted one by one and then gathered."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contenders import EVERYONE, OURS, find_entry, list_titles, open_contender
from benchmarks.contenders.contender import Contender, Submitter
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.processes import measure_resident
from benchmarks.statistics import compute_median
from benchmarks.work import noop, wait_for_file


def measure_submission(contender: str, setting: Setting) -> Reading:
    """Rate of calls from the first submission to the last result."""
    calls = 1_000 if setting.quick else 10_000
    repeats = 3
    if find_entry(contender).heavy:
        calls, repeats = calls // 5, 1
    with open_contender(contender, setting.workers) as opened:
        walls = [_time_submission(opened, range(calls)) for _ in range(repeats)]
    return Reading({"rate": calls / compute_median(walls)}, f"{calls:,} calls")


def measure_growth(contender: str, setting: Setting) -> Reading:
    """Time per call at a million calls beside that at ten thousand, in one process."""
    few, many = (1_000, 50_000) if setting.quick else (10_000, 1_000_000)
    with open_contender(contender, setting.workers) as opened:
        walls = [_time_submission(opened, range(few)) for _ in range(5)]
        at_few = compute_median(walls) / few
        at_many = _time_submission(opened, range(many)) / many
    return Reading(
        {"few": at_few, "many": at_many, "growth": at_many / at_few},
        f"{few:,} and {many:,} calls",
    )


def measure_waiting_memory(contender: str, setting: Setting) -> Reading:
    """Growth of the parent's resident memory while calls wait behind busy workers."""
    calls = 50_000 if setting.quick else 250_000
    with (
        tempfile.TemporaryDirectory() as directory,
        open_contender(contender, setting.workers) as opened,
    ):
        if not isinstance(opened, Submitter):
            raise TypeError(f"{contender} cannot leave calls waiting")
        gate = Path(directory, "gate")
        blockers = opened.submit_each(wait_for_file, [str(gate)] * setting.workers)
        time.sleep(0.3)  # the workers must hold the blockers before the queue fills
        try:
            growth, handles = _grow_queue(opened, calls)
        finally:
            gate.touch()
        opened.gather(blockers)
        _check(opened.gather(handles), range(calls))
    return Reading({"bytes": growth / calls}, f"{calls:,} waiting calls")


def _grow_queue(contender: Submitter, calls: int) -> tuple[int, list[object]]:
    gc.collect()
    before = measure_resident()
    handles = contender.submit_each(noop, range(calls))
    gc.collect()
    return measure_resident() - before, handles


def _time_submission(contender: Contender, arguments: Sequence[int]) -> float:
    gc.collect()
    begin = time.perf_counter()
    results = contender.submit_many(noop, arguments)
    wall = time.perf_counter() - begin
    _check(results, arguments)
    return wall


def _check(results: list[object], arguments: Sequence[int]) -> None:
    if results != list(arguments):
        raise RuntimeError("the results are not those of the calls, in order")


TEN_THOUSAND = Row(
    name="submit-10k",
    title="10,000 no-op calls submitted one by one, then gathered",
    metrics=(Metric("rate", "calls", Unit.RATE, higher_is_better=True),),
    targets=tuple(
        Target("rate", limit, at_least=True, against=Against.PEER, peer=peer)
        for peer, limit in {"pool": 3.0, "executor": 6.0, "ray": 40.0, "dask": 150.0}.items()
    ),
    contenders=list_titles(*EVERYONE),
    measure=measure_submission,
)

MILLION = Row(
    name="submit-1m",
    title="1,000,000 no-op calls submitted one by one, then gathered",
    metrics=(
        Metric("few", "per call at 10,000", Unit.SECONDS),
        Metric("many", "per call at 1,000,000", Unit.SECONDS),
        Metric("growth", "the second over the first", Unit.FACTOR),
    ),
    targets=(Target("growth", 1.2),),
    contenders=list_titles(OURS, "pool"),
    measure=measure_growth,
    most_rounds=3,
)

WAITING_MEMORY = Row(
    name="waiting-memory",
    title="Memory of the parent for each call that waits",
    metrics=(Metric("bytes", "per waiting call", Unit.BYTES),),
    targets=(Target("bytes", 1.5 * 1024),),
    contenders=list_titles(OURS, "pool"),
    measure=measure_waiting_memory,
    most_rounds=3,
)
