"""How many cores this process may use."""

import io
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.engines.local import cpus
from manyhands.engines.local.cpus import (
    THREAD_VARIABLES,
    count_cpus,
    describe_cpus,
    limit_threads,
    parse_cpu_max,
)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("150000 100000", 1.5),
        ("max 100000", None),
        ("-1 100000", None),
        ("0 100000", None),
        ("100000 0", None),
        ("", None),
        ("100000", None),
        ("a b", None),
        ("1 2 3", None),
    ],
)
def test_a_quota_is_in_cores(text: str, cores: float | None) -> None:
    assert parse_cpu_max(text) == cores


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Files of a machine of 16 cores, of which this process may use 8."""
    files: dict[str, str] = {}

    def open_file(path: str, *args: Any) -> io.StringIO:
        if path not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[path])

    monkeypatch.setattr(cpus, "open", open_file, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    return files


def test_without_control_groups_the_affinity_counts(machine: dict[str, str]) -> None:
    limits = describe_cpus()
    assert (limits.machine, limits.affinity, limits.quota, limits.usable) == (16, 8, None, 8)


def test_without_affinity_the_machine_counts(
    machine: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert count_cpus() == 16
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_cpus() == 1


@pytest.mark.parametrize(
    ("quota", "usable"),
    [("300000", 3), ("50000", 1), ("10000", 1), ("max", 8), ("9900000", 8), ("270000", 3)],
)
def test_a_quota_of_version_2(machine: dict[str, str], quota: str, usable: int) -> None:
    machine["/proc/self/cgroup"] = "0::/job\n"
    machine["/sys/fs/cgroup/job/cpu.max"] = f"{quota} 100000\n"
    assert count_cpus() == usable


def test_the_tightest_quota_on_the_way_up_counts(machine: dict[str, str]) -> None:
    machine["/proc/self/cgroup"] = "0::/outer/inner\n"
    machine["/sys/fs/cgroup/outer/inner/cpu.max"] = "max 100000\n"
    machine["/sys/fs/cgroup/outer/cpu.max"] = "400000 100000\n"
    machine["/sys/fs/cgroup/cpu.max"] = "600000 100000\n"
    assert describe_cpus().quota == 4.0


def test_in_a_container_the_root_counts(machine: dict[str, str]) -> None:
    machine["/proc/self/cgroup"] = "0::/../../system.slice/docker-1.scope\n"
    machine["/sys/fs/cgroup/cpu.max"] = "200000 100000\n"
    assert count_cpus() == 2


def test_a_quota_of_version_1(machine: dict[str, str]) -> None:
    machine["/proc/self/cgroup"] = "5:devices:/\n4:cpuset,cpu,cpuacct:/batch:x\n0::/\n"
    machine["/sys/fs/cgroup/cpu/batch:x/cpu.cfs_quota_us"] = "250000\n"
    machine["/sys/fs/cgroup/cpu/batch:x/cpu.cfs_period_us"] = "100000\n"
    machine["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "-1\n"
    machine["/sys/fs/cgroup/cpu/cpu.cfs_period_us"] = "100000\n"
    assert describe_cpus().quota == 2.5
    assert count_cpus() == 2


def test_other_controllers_say_nothing_of_cores(machine: dict[str, str]) -> None:
    machine["/proc/self/cgroup"] = "4:cpuset:/x\n"
    machine["/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us"] = "100000\n"
    machine["/sys/fs/cgroup/cpu/x/cpu.cfs_period_us"] = "100000\n"
    assert describe_cpus().quota is None


def test_here_there_is_a_core() -> None:
    limits = describe_cpus()
    assert 1 <= limits.usable <= limits.affinity <= limits.machine


@given(st.integers(1, 64), st.integers(1, 256))
def test_inner_threads_use_the_cores_once(workers: int, cores: int) -> None:
    variables = limit_threads(workers, cores, {})
    assert set(variables) == set(THREAD_VARIABLES)
    (each,) = set(variables.values())
    assert int(each) >= 1
    assert int(each) * workers <= max(cores, workers) < (int(each) + 1) * workers


@pytest.mark.parametrize("name", THREAD_VARIABLES[1:])
def test_what_the_user_set_stays(name: str) -> None:
    variables = limit_threads(2, 8, {name: "7"})
    assert name not in variables
    assert variables["OMP_NUM_THREADS"] == "4"
    assert len(variables) == len(THREAD_VARIABLES) - 1


def test_omp_speaks_for_all() -> None:
    assert limit_threads(2, 8, {"OMP_NUM_THREADS": "7"}) == {}
