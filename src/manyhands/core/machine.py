"""What this machine gives a process: memory under control-group limits, and shared memory.

The functions ``parse_*`` and ``choose_*`` are pure: they take the texts of ``/proc`` and of the
control groups' files (both versions) and read nothing. The others read; what a system does not
have is None in their answers, never an error.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

NO_LIMIT = 1 << 60
"""Version 1 writes "no limit" as the largest multiple of the page size below 2**63."""


@dataclass(frozen=True)
class MemoryGroup:
    """One control group's memory, in bytes."""

    limit: int | None
    used: int
    """Without the file cache that the kernel would drop first (inactive files)."""


@dataclass(frozen=True)
class Memory:
    """Memory in bytes; None where this system does not tell."""

    machine: int | None
    machine_available: int | None
    group_limit: int | None
    """The tightest limit among this process's control group and those above it."""
    available: int | None
    """What can still be taken before the machine or a control group is out of memory."""


@dataclass(frozen=True)
class SharedMemory:
    """Ways of sharing memory between processes, sizes in bytes."""

    size: int | None
    """Of ``/dev/shm``; None where it does not exist."""
    free: int | None
    memfd: bool
    """Whether anonymous segments (``memfd_create``) work; they do not count for ``/dev/shm``."""


@dataclass(frozen=True)
class Mount:
    """One line of ``/proc/self/mountinfo``, as far as control groups need it."""

    root: str
    """The folder of the file system that is mounted, as the process sees the hierarchy."""
    point: str
    kind: str
    options: frozenset[str]


def parse_meminfo(text: str) -> dict[str, int]:
    """Parse ``/proc/meminfo`` into bytes by name; lines without a number are left out."""
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            sizes[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return sizes


def parse_mountinfo(text: str) -> list[Mount]:
    """Parse ``/proc/self/mountinfo`` (proc(5): optional fields end at a lone hyphen)."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, details = before.split(), after.split()
        if separator and len(fields) >= 5 and len(details) >= 3:
            options = frozenset(details[2].split(","))
            mounts.append(Mount(_unescape(fields[3]), _unescape(fields[4]), details[0], options))
    return mounts


def parse_cgroup(text: str) -> dict[str, str]:
    """Parse ``/proc/self/cgroup`` into path by controller; version 2 has the controller ``""``."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, separator, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if separator and colon:
            paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def parse_limit(text: str) -> int | None:
    """Parse ``memory.max`` or ``memory.limit_in_bytes``; None is no limit."""
    word = text.strip()
    if not word.isdigit():
        return None
    limit = int(word)
    return limit if limit < NO_LIMIT else None


def parse_memory_group(limit: str, used: str, stat: str) -> MemoryGroup:
    """Parse a control group's limit, usage and ``memory.stat``, of either version."""
    counts = dict.fromkeys(("inactive_file", "total_inactive_file"), 0)
    for line in stat.splitlines():
        name, _, value = line.partition(" ")
        if name in counts and value.strip().isdigit():
            counts[name] = int(value)
    # Version 1 counts the groups below it only in the names with "total_"; version 2 always does.
    idle_cache = max(counts.values())
    taken = int(used) if used.strip().isdigit() else 0
    return MemoryGroup(parse_limit(limit), max(0, taken - idle_cache))


def choose_group_folders(cgroup: str, mountinfo: str) -> list[tuple[int, PurePosixPath]]:
    """Choose the folders that hold memory limits of this process, its own group first.

    Parameters
    ----------
    cgroup, mountinfo
        Texts of ``/proc/self/cgroup`` and ``/proc/self/mountinfo``.

    Returns
    -------
    list of (int, PurePosixPath)
        Version (1 or 2) and folder: the process's group and those above it up to the mount.
        A machine may mount both versions; memory is then in one of them, and the other's folders
        have no such files. Inside a container the path may lie outside what is mounted: then
        the mount itself is the group.
    """
    paths = parse_cgroup(cgroup)
    folders: list[tuple[int, PurePosixPath]] = []
    for mount in parse_mountinfo(mountinfo):
        if mount.kind == "cgroup2" and "" in paths:
            version, path = 2, paths[""]
        elif mount.kind == "cgroup" and "memory" in mount.options and "memory" in paths:
            version, path = 1, paths["memory"]
        else:
            continue
        folders.extend((version, folder) for folder in _climb(mount, path))
    return folders


def choose_memory(meminfo: dict[str, int], groups: list[MemoryGroup]) -> Memory:
    """Join what the machine and the control groups tell into what can be used."""
    machine, free = meminfo.get("MemTotal"), meminfo.get("MemAvailable")
    limited = [(group.limit, group.used) for group in groups if group.limit is not None]
    rooms = [max(0, limit - used) for limit, used in limited]
    if free is not None:
        rooms.append(free)
    return Memory(
        machine=machine,
        machine_available=free,
        group_limit=min((limit for limit, _ in limited), default=None),
        available=min(rooms, default=None),
    )


def read_memory() -> Memory:
    """Read this process's memory limits; beyond Linux only the machine's size is known."""
    meminfo = parse_meminfo(_read("/proc/meminfo"))
    if "MemTotal" not in meminfo and (size := _read_physical_size()) is not None:
        meminfo["MemTotal"] = size
    return choose_memory(meminfo, read_memory_groups())


def read_memory_groups() -> list[MemoryGroup]:
    """Read the memory control groups of this process, its own first."""
    groups = []
    for version, folder in choose_group_folders(
        _read("/proc/self/cgroup"), _read("/proc/self/mountinfo")
    ):
        limit, used = _FILES[version]
        text = _read(folder / limit)
        if text:
            groups.append(
                parse_memory_group(text, _read(folder / used), _read(folder / "memory.stat"))
            )
    return groups


def read_shared_memory() -> SharedMemory:
    """Read the size of the shared-memory file system and try an anonymous segment."""
    try:
        status = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size, nothing is stored
    except (OSError, AttributeError):
        return SharedMemory(None, None, memfd=_try_memfd())
    unit = status.f_frsize
    return SharedMemory(unit * status.f_blocks, unit * status.f_bavail, memfd=_try_memfd())


_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    2: ("memory.max", "memory.current"),
}


def _climb(mount: Mount, path: str) -> Iterator[PurePosixPath]:
    """Yield the folder of the group at ``path`` and those above it, up to the mount."""
    try:
        inner = PurePosixPath(path).relative_to(mount.root)
    except ValueError:
        inner = PurePosixPath()
    top = PurePosixPath(mount.point)
    if ".." in inner.parts:  # the group lies outside the namespace's root
        inner = PurePosixPath()
    folder = top / inner
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _unescape(word: str) -> str:
    """Undo the octal escapes of blanks in mountinfo."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, character)
    return word


def _read(path: str | PurePosixPath) -> str:
    """Return a file's text, empty where it does not exist or may not be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_physical_size() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _try_memfd() -> bool:
    if sys.platform != "linux":
        return False
    try:
        os.close(os.memfd_create("manyhands-doctor", os.MFD_CLOEXEC))
    except OSError:
        return False
    return True
