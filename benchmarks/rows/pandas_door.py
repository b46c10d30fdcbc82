"""pandas with our workers beside pandas alone and pandarallel: the same functions over rows and groups."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
from collections.abc import Callable
from typing import Any

from benchmarks.contenders import OURS, find_entry
from benchmarks.loads import Load, choose_repeats
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median
from benchmarks.work import pause

_TITLES = {OURS: "df.mh.apply", "loop": "df.apply", "pandarallel": "df.parallel_apply"}
_SECONDS = 5.0


def _measure(name: str) -> Callable[[str, Setting], Reading]:
    def measure(contender: str, setting: Setting) -> Reading:
        work = importlib.import_module("benchmarks.frame_work")
        size = min(work.SIZES[name], 5_000) if setting.quick else work.SIZES[name]
        if contender == "pandarallel":
            return _measure_elsewhere(name, size, setting)
        frame = work.make_frame(size)
        expected = float(work.CASES[name](frame, "apply").sum())
        if contender != OURS:
            return _time(lambda: work.CASES[name](frame, "apply"), expected, contender, setting)
        mh = importlib.import_module(OURS)
        with mh.Session("local", workers=setting.workers) as session:
            # Calls that sleep cannot all be taken by the worker that came up first.
            session.map(_warm, range(4 * setting.workers), batch=1)
            return _time(lambda: work.CASES[name](frame, "mh"), expected, contender, setting)

    return measure


def _warm(_: int) -> None:
    importlib.import_module("manyhands.frontends.pandas.groups")
    pause(0.05)


def _time(run: Callable[[], Any], expected: float, contender: str, setting: Setting) -> Reading:
    load = Load(run, lambda found: _expect_sum(float(found.sum()), expected))
    walls = load.time_rounds(choose_repeats(contender, setting))
    return Reading({"wall": compute_median(walls)}, f"{len(walls)} a round")


def _measure_elsewhere(name: str, size: int, setting: Setting) -> Reading:
    interpreter = os.environ[find_entry("pandarallel").interpreter]
    seconds = 0.1 if setting.quick else _SECONDS
    arguments = [name, str(size), str(setting.workers), str(seconds)]
    done = subprocess.run(
        [interpreter, "-m", "benchmarks.pandarallel_turn", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    work = importlib.import_module("benchmarks.frame_work")
    _expect_sum(found["sum"], float(work.CASES[name](work.make_frame(size), "apply").sum()))
    return Reading({"wall": compute_median(found["walls"])}, f"{len(found['walls'])} a round")


def _expect_sum(found: float, expected: float) -> None:
    if not math.isclose(found, expected, rel_tol=1e-9):
        raise AssertionError(f"the results' sum is {found}, not {expected}")


def _make_row(name: str, title: str, *targets: Target) -> Row:
    wall = Metric("wall", "wall", Unit.SECONDS)
    return Row(name, title, (wall,), targets, _TITLES, _measure(name))


_AHEAD = (
    Target("wall", 1 / 1.8, against=Against.PEER, peer="loop"),
    Target("wall", 1 / 1.5, against=Against.PEER, peer="pandarallel"),
)

ROWS = (
    _make_row("pandas-rows", "pandas: a function over 200,000 rows", *_AHEAD),
    _make_row("pandas-groups", "pandas: a function over 20,000 groups", *_AHEAD),
    _make_row("pandas-small", "pandas: a function over 20 rows", Target("wall", 0.01)),
)
