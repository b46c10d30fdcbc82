"""Memory limits, from the texts that Linux gives."""

from pathlib import PurePosixPath

import pytest

from manyhands.core.machine import (
    Memory,
    MemoryGroup,
    Mount,
    choose_group_folders,
    choose_memory,
    parse_cgroup,
    parse_limit,
    parse_meminfo,
    parse_memory_group,
    parse_mountinfo,
    read_memory,
    read_shared_memory,
)

GIB = 1 << 30

MEMINFO = """\
MemTotal:       24684096 kB
MemFree:        24366952 kB
MemAvailable:   24346028 kB
HugePages_Total:       3
DirectMap:
"""

MOUNTS_V2 = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""

MOUNTS_V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
"""

CGROUP_V1 = """\
5:devices:/
4:memory:/batch/job7
2:cpu,cpuacct:/batch
1:name=systemd:/
"""


def test_meminfo_is_in_bytes() -> None:
    assert parse_meminfo(MEMINFO) == {
        "MemTotal": 24684096 * 1024,
        "MemFree": 24366952 * 1024,
        "MemAvailable": 24346028 * 1024,
        "HugePages_Total": 3,
    }


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("max\n", None),
        ("1073741824\n", GIB),
        ("0\n", 0),
        ("9223372036854771712\n", None),  # version 1 without a limit
        ("", None),
    ],
)
def test_limit_of_either_version(text: str, limit: int | None) -> None:
    assert parse_limit(text) == limit


def test_cgroup_lists_each_controller() -> None:
    assert parse_cgroup(CGROUP_V1) == {
        "devices": "/",
        "memory": "/batch/job7",
        "cpu": "/batch",
        "cpuacct": "/batch",
        "name=systemd": "/",
    }
    assert parse_cgroup("0::/user.slice/a:b\n") == {"": "/user.slice/a:b"}
    assert parse_cgroup("") == {}


def test_mountinfo_skips_optional_fields_and_undoes_escapes() -> None:
    text = "40 22 0:30 /a /mnt/with\\040blank rw shared:3 master:1 - cgroup cgroup rw,memory\nbad\n"
    assert parse_mountinfo(text) == [
        Mount("/a", "/mnt/with blank", "cgroup", frozenset({"rw", "memory"}))
    ]


def test_folders_of_version_2_climb_to_the_mount() -> None:
    assert choose_group_folders("0::/user.slice/job\n", MOUNTS_V2) == [
        (2, PurePosixPath("/sys/fs/cgroup/user.slice/job")),
        (2, PurePosixPath("/sys/fs/cgroup/user.slice")),
        (2, PurePosixPath("/sys/fs/cgroup")),
    ]


def test_folders_of_version_1_are_the_memory_controllers() -> None:
    assert choose_group_folders(CGROUP_V1, MOUNTS_V1) == [
        (1, PurePosixPath("/sys/fs/cgroup/memory/batch/job7")),
        (1, PurePosixPath("/sys/fs/cgroup/memory/batch")),
        (1, PurePosixPath("/sys/fs/cgroup/memory")),
    ]


def test_folders_where_both_versions_are_mounted() -> None:
    folders = choose_group_folders("4:memory:/\n0::/\n", MOUNTS_V1 + MOUNTS_V2)
    assert folders == [
        (1, PurePosixPath("/sys/fs/cgroup/memory")),
        (2, PurePosixPath("/sys/fs/cgroup")),
    ]


@pytest.mark.parametrize("path", ["/docker/abc", "/elsewhere", "/docker/abc/../../other"])
def test_folder_in_a_container_is_the_mount(path: str) -> None:
    mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    assert choose_group_folders(f"4:memory:{path}\n", mounts) == [
        (1, PurePosixPath("/sys/fs/cgroup/memory"))
    ]


def test_no_control_groups() -> None:
    assert choose_group_folders("", "") == []


def test_group_does_not_count_idle_cache_as_used() -> None:
    version_2 = "anon 500\nfile 400\ninactive_file 300\nactive_file 100\n"
    assert parse_memory_group("2000\n", "900\n", version_2) == MemoryGroup(2000, 600)
    version_1 = "cache 10\ninactive_file 5\ntotal_inactive_file 300\n"
    assert parse_memory_group("2000\n", "900\n", version_1) == MemoryGroup(2000, 600)
    assert parse_memory_group("max\n", "", "") == MemoryGroup(None, 0)


def test_memory_is_bounded_by_the_tightest() -> None:
    meminfo = {"MemTotal": 24 * GIB, "MemAvailable": 20 * GIB}
    groups = [MemoryGroup(None, GIB), MemoryGroup(8 * GIB, 2 * GIB), MemoryGroup(10 * GIB, 9 * GIB)]
    assert choose_memory(meminfo, groups) == Memory(24 * GIB, 20 * GIB, 8 * GIB, GIB)
    assert choose_memory(meminfo, []) == Memory(24 * GIB, 20 * GIB, None, 20 * GIB)
    assert choose_memory({}, []) == Memory(None, None, None, None)


def test_group_over_its_limit_has_nothing_left() -> None:
    assert choose_memory({}, [MemoryGroup(GIB, 2 * GIB)]).available == 0


def test_reading_here_agrees_with_itself() -> None:
    memory = read_memory()
    assert memory.machine is None or memory.machine > 0
    if memory.machine is not None and memory.available is not None:
        assert memory.available <= memory.machine
    shared = read_shared_memory()
    if shared.size is not None and shared.free is not None:
        assert shared.free <= shared.size
