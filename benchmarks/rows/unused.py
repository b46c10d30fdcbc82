"""What features cost a program that does not use them: this library beside another checkout of it."""

from __future__ import annotations

import gc
import time
from pathlib import Path

from benchmarks.case_work import locate_library
from benchmarks.contenders import BEFORE, OURS, list_titles, open_contender
from benchmarks.contenders.contender import Contender
from benchmarks.loads import expect
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median
from benchmarks.work import noop

_WARM_CALLS = 200


def measure_unused(contender: str, setting: Setting) -> Reading:
    """Time per no-op call, of many at once and of each waited for.

    The other checkout's turns are those of this one, with another `manyhands` in front on the
    path; both must be the one that is meant, in the program and in a worker.
    """
    many, calls, seconds = (1_000, 500, 0.5) if setting.quick else (10_000, 20_000, 5.0)
    arguments = range(many)
    with open_contender(contender, setting.workers) as opened:
        root = _check_library(opened, contender, setting)
        _time_submissions(opened, arguments, 2, seconds)
        submissions = _time_submissions(opened, arguments, 25, seconds)
        _time_round_trips(opened, _WARM_CALLS, seconds)
        walls = _time_round_trips(opened, calls, seconds)
    return Reading(
        {
            "submit": compute_median([wall for wall, _ in submissions]) / many,
            "round-trip": compute_median(walls),
            "processor": compute_median([used for _, used in submissions]) / many,
        },
        f"{len(submissions)} times {many:,} and {len(walls):,} calls, {root}",
    )


def _check_library(opened: Contender, contender: str, setting: Setting) -> Path:
    """The checkout that the contender is; raises where it is not the one that is asked for."""
    found = Path(locate_library(0))
    root = found.parents[2]
    if str(opened.round_trip(locate_library, 0)) != str(found):
        raise RuntimeError(f"the program has {found}, but its workers have another manyhands")
    wanted = Path(setting.against) if contender == BEFORE else Path(__file__).parents[2]
    if root != wanted.resolve():
        raise RuntimeError(f"manyhands comes from {root}, not from {wanted}")
    return root


def _time_submissions(
    opened: Contender, arguments: range, repeats: int, seconds: float
) -> list[tuple[float, float]]:
    """Wall and the program's processor time, in seconds, of as many as begin within `seconds`."""
    expected = list(arguments)
    found: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while not found or (len(found) < repeats and time.perf_counter() < end):
        gc.collect()
        begin, used = time.perf_counter(), time.process_time()
        results = opened.submit_many(noop, arguments)
        found.append((time.perf_counter() - begin, time.process_time() - used))
        expect(results, expected)
        del results
    return found


def _time_round_trips(opened: Contender, calls: int, seconds: float) -> list[float]:
    walls: list[float] = []
    end = time.perf_counter() + seconds
    while len(walls) < calls and (begin := time.perf_counter()) < end:
        found = opened.round_trip(noop, 7)
        walls.append(time.perf_counter() - begin)
        expect(found, 7)
    return walls


ROW = Row(
    name="cost-of-unused",
    title="No-op calls that use no feature, beside those of another checkout (--against)",
    metrics=(
        Metric("submit", "a call of 10,000", Unit.SECONDS),
        Metric("round-trip", "round trip", Unit.SECONDS),
        Metric("processor", "processor time of the program for a call of 10,000", Unit.SECONDS),
    ),
    targets=tuple(
        Target(metric, 1.05, against=Against.PEER, peer=BEFORE)
        for metric in ("submit", "round-trip")
    ),
    contenders=list_titles(OURS, BEFORE),
    measure=measure_unused,
)
