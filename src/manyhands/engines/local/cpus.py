"""How many cores this process may use, and how many of them the inner threads of a worker."""

from __future__ import annotations

import os

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)
"""What numeric libraries read the number of their inner threads from."""


class CpuLimits:
    """What limits the cores of this process.

    Attributes
    ----------
    machine
        Cores of the machine.
    affinity
        Those of them that the scheduler may put this process on.
    quota
        Cores' worth of time that the control group grants; None for no limit.
    usable
        What remains: the number of workers that a session starts by itself, at least 1.
    """

    __slots__ = ("affinity", "machine", "quota", "usable")

    def __init__(self, machine: int, affinity: int, quota: float | None, usable: int) -> None:
        self.machine = machine
        self.affinity = affinity
        self.quota = quota
        self.usable = usable


def count_cpus() -> int:
    """Cores that this process may use, at least 1."""
    return describe_cpus().usable


def describe_cpus() -> CpuLimits:
    """What limits the cores of this process, each limit by itself."""
    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    quota = _read_quota()
    usable = affinity if quota is None else min(affinity, round(quota))
    return CpuLimits(machine, affinity, quota, max(1, usable))


def limit_threads(workers: int, cpus: int, environment: dict[str, str]) -> dict[str, str]:
    """Variables that let the inner threads of all workers together use the cores once.

    A variable that the user set stays as it is, and OMP_NUM_THREADS speaks for those that fall back to it.

    Examples
    --------
    >>> limit_threads(2, 8, {"MKL_NUM_THREADS": "8"})["OMP_NUM_THREADS"]
    '4'
    """
    if "OMP_NUM_THREADS" in environment:
        return {}
    each = str(max(1, cpus // workers))
    return {name: each for name in THREAD_VARIABLES if name not in environment}


def _read_quota() -> float | None:
    """The tightest quota on the way from this process's control group to the root, version 2 or 1."""
    try:
        with open("/proc/self/cgroup") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    texts: list[str] = []
    for _, controllers, path in groups:
        if not controllers:
            folders = _iterate_upwards("/sys/fs/cgroup", path)
            texts += [_read(f"{folder}/cpu.max") for folder in folders]
        elif "cpu" in controllers.split(","):
            folders = _iterate_upwards("/sys/fs/cgroup/cpu", path)
            texts += [
                f"{_read(f'{folder}/cpu.cfs_quota_us')} {_read(f'{folder}/cpu.cfs_period_us')}"
                for folder in folders
            ]
    quotas = [parse_cpu_max(text) for text in texts]
    return min((quota for quota in quotas if quota is not None), default=None)


def parse_cpu_max(text: str) -> float | None:
    """Cores granted by ``"QUOTA PERIOD"`` (both in microseconds); None for "max", -1 or nothing.

    Examples
    --------
    >>> parse_cpu_max("150000 100000"), parse_cpu_max("max 100000")
    (1.5, None)
    """
    try:
        quota, period = text.split()
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None


def _iterate_upwards(mount: str, path: str) -> list[str]:
    """The group's folder and its parents'. In a container the path may not exist below the mount; its root does."""
    parts = [part for part in path.split("/") if part and part != ".."]
    return ["/".join([mount, *parts[:length]]) for length in range(len(parts), -1, -1)]


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
