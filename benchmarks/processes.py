"""Processes seen from outside: their memory, their wall time, and that none stays.

Linux only, as `/proc` and sub-reapers are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>

_SHARED = ("/memfd:", "/dev/shm/")  # noqa: S108  looked at, never written
"""How the names of open files begin that are shared memory."""


def become_subreaper() -> None:
    """Let orphaned descendants become our children, so that leftovers can be found.

    Daemons of a peer (Ray's, Dask's) would else move to PID 1 and disturb later turns.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def list_descendants(pid: int) -> list[int]:
    """Process ids of all living descendants of `pid`, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _read_living_parent(entry)
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for ancestor in found:  # grows while it is walked
        found.extend(children.get(ancestor, ()))
    return found[1:]


def _read_living_parent(directory: Path) -> int | None:
    try:
        stat = (directory / "stat").read_text()
    except OSError:  # it ended meanwhile
        return None
    # The name, in parentheses, may hold blanks and parentheses itself.
    state, parent = stat.rpartition(")")[2].split()[:2]
    return None if state == "Z" else int(parent)


def list_family() -> list[int]:
    """Process ids of this process and all its living descendants."""
    return [os.getpid(), *list_descendants(os.getpid())]


def measure_pss(pids: Collection[int]) -> int:
    """Proportional set size of `pids` together, in bytes: shared pages count once in sum."""
    return sum(_read_rollup(pid)["Pss"] for pid in pids)


def measure_memory(pids: Collection[int]) -> int:
    """Bytes of data of `pids` together: their proportional set size, with two amendments.

    Pages of files are left out: they are the libraries' code, which is shared with programs that
    have nothing to do with us, and our part of it grows and shrinks as those come and go.
    Shared memory counts even where it was written through a file descriptor and no process has
    mapped it yet, and so belongs to the set of none.
    """
    rollups = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            rollups.append(_read_rollup(pid))
    mapped = sum(rollup["Pss_Shmem"] for rollup in rollups)
    anonymous = sum(rollup["Pss_Anon"] for rollup in rollups)
    return anonymous + max(mapped, _measure_shared(pids))


def _read_rollup(pid: int) -> dict[str, int]:
    return parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())


def parse_rollup(text: str) -> dict[str, int]:
    """Sizes in a `smaps_rollup` file, by name and in bytes."""
    lines = [line.split() for line in text.splitlines()[1:]]
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}


def _measure_shared(pids: Collection[int]) -> int:
    """Bytes of the shared memory that `pids` have open, each piece of memory once."""
    found: dict[tuple[int, int], int] = {}
    for pid in pids:
        for entry in _list_open_files(pid):
            with contextlib.suppress(OSError):  # closed meanwhile
                if str(entry.readlink()).startswith(_SHARED):
                    status = entry.stat()
                    found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _list_open_files(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it ended meanwhile
        return []


def measure_resident() -> int:
    """Resident memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def time_command(command: Sequence[str], expected: str | None = None) -> float:
    """Wall seconds of a whole process, from its start to its end.

    Raises
    ------
    RuntimeError
        If the process fails, or its last line of output is not `expected`.
    """
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - begin
    if done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
    lines = done.stdout.splitlines()
    if expected is not None and (not lines or lines[-1] != expected):
        raise RuntimeError(f"{command} printed {done.stdout[-500:]!r}, not {expected!r}")
    return wall


def stop_descendants(settling: float = 1.0, grace: float = 2.0) -> int:
    """End whatever descends from this process and does not end by itself.

    Parameters
    ----------
    settling
        Seconds in which processes that notice their parent's end may still go.
    grace
        Seconds between asking the others and killing them.

    Returns
    -------
    int
        How many processes had to be ended.
    """
    _wait_for_end(settling)
    stopped = list_descendants(os.getpid())
    _send(stopped, signal.SIGTERM)
    _wait_for_end(grace)
    while _count_after_reaping():  # a killed parent can hand us children of its own
        _send(list_descendants(os.getpid()), signal.SIGKILL)
        time.sleep(0.02)
    return len(stopped)


def _wait_for_end(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _count_after_reaping() and time.monotonic() < deadline:
        time.sleep(0.02)


def _count_after_reaping() -> int:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return len(list_descendants(os.getpid()))


def _send(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def pin_to_cpus(count: int) -> list[int]:
    """Restrict this process and its children to `count` CPUs, on different cores if possible.

    Returns
    -------
    list of int
        The CPUs; fewer than `count` where the machine allows no more.
    """
    allowed = sorted(os.sched_getaffinity(0))
    first_of_core = [cpu for cpu in allowed if _read_siblings(cpu) in ("", str(cpu))]
    first_of_core += [cpu for cpu in allowed if cpu not in first_of_core]
    chosen = first_of_core[:count]
    os.sched_setaffinity(0, chosen)
    return chosen


def _read_siblings(cpu: int) -> str:
    """First hardware thread of the CPU's core; empty where the system does not tell."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip().replace("-", ",").split(",")[0]
    except OSError:
        return ""
