"""The demo: real work on real input, beside its own plain loop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import rich

from benchmarks.contenders import OURS, list_titles
from benchmarks.measurement import Metric, Reading, Row, Setting, Target, Unit


def measure_demo(contender: str, setting: Setting) -> Reading:
    """Run ``manyhands demo``, which times itself and its plain loop over the same files."""
    command = [sys.executable, "-m", contender, "demo", "--json"]
    command += ["--workers", str(setting.workers)]
    if setting.quick:
        # One installed package, about a hundred files.
        command += ["--path", str(Path(rich.__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the demo ended with {done.returncode}: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout)
    values = {
        "speedup": answer["speedup"],
        "wall": answer["wall_seconds"],
        "loop": answer["plain_loop_seconds"],
    }
    return Reading(values, f"{answer['files']:,} files")


ROW = Row(
    name="demo",
    title="The demo beside its plain loop",
    metrics=(
        Metric("speedup", "speed-up", Unit.FACTOR, higher_is_better=True),
        Metric("wall", "wall", Unit.SECONDS),
        Metric("loop", "plain loop", Unit.SECONDS),
    ),
    targets=(Target("speedup", 1.8, at_least=True),),
    contenders=list_titles(OURS),
    measure=measure_demo,
    most_rounds=3,
)
