"""Whole processes: start to exit, and import."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.contenders import EVERYONE, OURS, find_entry
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.processes import time_command
from benchmarks.programs import IMPORTS, list_program_titles, write_start_command
from benchmarks.statistics import compute_median


def measure_start(contender: str, setting: Setting) -> Reading:
    """Wall of a process that maps one item with two workers and ends."""
    command = write_start_command(contender)
    runs = 1 if setting.quick or find_entry(contender).heavy else 7
    walls = [time_command(command, expected="[1]") for _ in range(runs + 1)]
    return Reading({"wall": compute_median(walls[1:])}, f"{runs} a round")


def measure_import(contender: str, setting: Setting) -> Reading:
    """Wall of a process that imports, less that of one that does not, in alternation."""
    module = IMPORTS[contender]
    runs = 5 if setting.quick or find_entry(contender).heavy else 20
    bare, importing = [], []
    time_command(_write_import(module))  # writes the bytecode files, warms the file cache
    for _ in range(runs):
        bare.append(time_command(_write_import("")))
        importing.append(time_command(_write_import(module)))
    values = {"wall": compute_median(importing) - compute_median(bare)}
    if contender == OURS:
        values["unwanted"] = float(len(_list_unwanted(module)))
    return Reading(values, f"{runs} pairs a round")


def _write_import(module: str) -> list[str]:
    return [sys.executable, "-c", f"import {module}" if module else "pass"]


def _list_unwanted(module: str) -> list[str]:
    program = f"import sys, {module}; print(*{{'numpy', 'asyncio'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


START = Row(
    name="start",
    title="Whole process that maps abs over [-1] with two workers",
    metrics=(Metric("wall", "start to exit", Unit.SECONDS),),
    targets=(
        Target("wall", 1.5, against=Against.PEER, peer="pool"),
        Target("wall", 0.7, against=Against.PEER, peer="pool-spawn"),
    ),
    contenders=list_program_titles(
        OURS, "pool", "pool-spawn", *(name for name in EVERYONE if name not in (OURS, "pool"))
    ),
    measure=measure_start,
)

IMPORT = Row(
    name="import",
    title="Import, beyond a bare interpreter",
    metrics=(
        Metric("wall", "import", Unit.SECONDS),
        Metric("unwanted", "of numpy and asyncio loaded", Unit.COUNT),
    ),
    targets=(
        Target("wall", 1.0, against=Against.PEER, peer="executor"),
        Target("unwanted", 0.0),
    ),
    contenders={name: f"import {IMPORTS[name]}" for name in EVERYONE},
    measure=measure_import,
)
