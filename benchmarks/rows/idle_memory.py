"""Memory of a program with two idle workers, all its processes together."""

from __future__ import annotations

import os
import subprocess
import time

from benchmarks.contenders import EVERYONE
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.processes import become_subreaper, list_descendants, measure_pss
from benchmarks.programs import list_program_titles, write_idle_command


def measure_idle_memory(contender: str, setting: Setting) -> Reading:
    """Proportional set size of the process and its descendants, half a second after use."""
    become_subreaper()  # Parsl's workers leave their parent, and would be missed
    program = subprocess.Popen(
        write_idle_command(contender),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        for line in program.stdout:
            if line.strip() == "idle":
                break
        else:
            raise RuntimeError(f"the program of {contender} ended with {program.wait()}")
        time.sleep(0.2 if setting.quick else 0.5)
        pids = list_descendants(os.getpid())
        pss = measure_pss(pids)
        program.communicate()
    return Reading({"pss": float(pss)}, f"{len(pids)} processes")


ROW = Row(
    name="idle-memory",
    title="Proportional memory with two idle workers, all processes together",
    metrics=(Metric("pss", "memory (PSS)", Unit.BYTES),),
    targets=(Target("pss", 2.0, against=Against.PEER, peer="pool"),),
    contenders=list_program_titles(*EVERYONE),
    measure=measure_idle_memory,
)
