"""What the tests of this folder ask the kernel, and how they start programs of their own."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHM = Path("/dev/shm")

LIMIT = 40.0
"""Seconds that a program under test may take in all, on a slow and crowded machine."""


def list_children(pid: int) -> list[int]:
    """Processes that `pid` has started and not collected; zombies among them."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def list_family(pid: int) -> list[int]:
    """`pid`, and all below it."""
    found = [pid]
    for child in list_children(pid):
        found += list_family(child)
    return found


def is_alive(pid: int) -> bool:
    """Whether the process runs: a zombie, which nobody has collected yet, does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def list_descriptors() -> dict[int, str]:
    """Open files of this process: number and what it leads to."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:  # the one that lists the folder
            continue
    return found


def list_shared_names() -> set[str]:
    """What is in shared memory by name, but for semaphores and joblib's folders: others' tests beside this one."""
    names = {entry.name for entry in SHM.iterdir()} if SHM.is_dir() else set()
    return {name for name in names if not name.startswith(("sem.", "joblib_memmapping_folder"))}


def find_holders(name: str) -> set[int]:
    """Processes that have a named segment open or mapped."""
    path = str(SHM / name)
    holders = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
            if path in links or path in (process / "maps").read_text():
                holders.add(int(process.name))
        except OSError:  # gone, or not ours to look into
            continue
    return holders


def count_cpu_seconds(pids: list[int]) -> float:
    """Processor time of all threads of the processes so far."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def write_script(folder: Path, code: str, name: str = "script.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(code).lstrip("\n"))
    return path


def run_python(
    *arguments: object,
    folder: Path,
    stdin: str | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, run to its end in `folder`."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        input=stdin if stdin is not None else "",
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def run_script(folder: Path, code: str, **environment: str) -> str:
    """What a script prints; it has to end well and leave standard error empty."""
    done = run_python(write_script(folder, code), folder=folder, environment=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    return done.stdout


@contextmanager
def start_script(folder: Path, code: str) -> Iterator["subprocess.Popen[str]"]:
    """A script that runs beside the test, with pipes; killed at the end."""
    with subprocess.Popen(
        [sys.executable, str(write_script(folder, code))],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            yield program
        finally:
            program.kill()
