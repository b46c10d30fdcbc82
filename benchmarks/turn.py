"""One turn of one contender in one row, as a process of its own.

A fresh process for each turn keeps contenders apart: the threads, imported modules and heap of
one do not slow the fork, the garbage collection or the loop of the next.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.contenders import BEFORE
from benchmarks.measurement import Reading, Setting
from benchmarks.processes import stop_descendants

_ROOT = Path(__file__).resolve().parent.parent


class TurnFailedError(RuntimeError):
    """A turn raised, or did not end in time."""


def take_turn(row: str, contender: str, setting: Setting, limit: float) -> Reading:
    """Run one turn in a new process, end whatever it leaves behind, and return its reading.

    Parameters
    ----------
    limit
        Seconds after which the turn is ended.

    Raises
    ------
    TurnFailedError
        If the turn raised or took longer than `limit`.
    """
    # Short, as Ray puts sockets with long names below it. Everything that contenders write
    # goes there, and with it.
    with tempfile.TemporaryDirectory(prefix="mhb-", ignore_cleanup_errors=True) as directory:
        answer = Path(directory, "reading.json")
        order = json.dumps({"row": row, "contender": contender, "setting": asdict(setting)})
        command = [sys.executable, "-m", "benchmarks.turn", order, str(answer)]
        try:
            library = Path(setting.against) if contender == BEFORE else _ROOT
            _run(command, directory, library, limit)
            reading = json.loads(answer.read_text())
        finally:
            left = stop_descendants()
        note = reading["note"] + (f", left {left} processes" if left else "")
        return Reading(reading["values"], note)


def _run(command: list[str], directory: str, library: Path, limit: float) -> None:
    log = Path(directory, "log")
    with log.open("wb") as output:
        turn = subprocess.Popen(
            command,
            cwd=directory,
            env=_make_environment(directory, library),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to handle, once
        )
        try:
            code = turn.wait(limit)
        except subprocess.TimeoutExpired:
            raise TurnFailedError(f"no end after {limit:.0f} s") from None
        finally:
            if turn.returncode is None:
                os.killpg(turn.pid, signal.SIGKILL)
                turn.wait()
    if code != 0:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise TurnFailedError(f"exit code {code}: {lines[-1]}")


def _make_environment(directory: str, library: Path) -> dict[str, str]:
    environment = dict(os.environ)
    # The other checkout's folder would bring its own benchmarks.
    paths = [str(_ROOT), str(library / "src"), environment.get("PYTHONPATH", "")]
    scripts = str(Path(sys.executable).parent)
    environment.update(
        # Ours from this tree or the other, whether or not it is installed.
        PYTHONPATH=os.pathsep.join(filter(None, paths)),
        # Parsl starts its workers by the name of a script.
        PATH=os.pathsep.join([scripts, environment.get("PATH", os.defpath)]),
        TMPDIR=directory,
        RAY_TMPDIR=directory,
        RAY_USAGE_STATS_ENABLED="0",
        # Else Ray replaces 127.0.0.1 by this machine's outward address and listens on all.
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    )
    return environment


def main() -> None:
    """Take the turn that the first argument orders and write its reading to the second."""
    # Imported here, as Dask's workers import this module once more.
    from benchmarks.rows import ROWS

    order = json.loads(sys.argv[1])
    reading = ROWS[order["row"]].measure(order["contender"], Setting(**order["setting"]))
    Path(sys.argv[2]).write_text(json.dumps(asdict(reading)))


if __name__ == "__main__":
    main()
