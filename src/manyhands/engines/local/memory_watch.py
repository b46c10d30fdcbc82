"""Watches the memory of workers, and names the call to end before the kernel ends something of its own choice.

What counts as a worker's is what it has by itself: anonymous pages, resident or swapped out. The program's
libraries, mapped files and the store's shared memory do not count, and neither do processes that a call starts.

A call has *taken* what its worker has beyond what it had before the call. A limit is compared with that, so
that neither the interpreter nor what earlier calls left behind (modules, caches, memory that the allocator keeps)
is held against it. What was there before is known exactly where `MemoryWatch.begin` was told of the call.
Otherwise it is the least that was seen while the call ran, which errs in the call's favour by what it took before
the first look at it.
"""

from __future__ import annotations

import os

from manyhands.core.sizes import format_size
from manyhands.errors import OutOfMemoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MIB = 1 << 20

SETTLE_SECONDS = 0.5
"""After a call was named, how long no other is for the machine's sake: freeing memory takes a moment."""

ENDING_SECONDS = 5.0
"""The same while the worker has not ended yet: the kernel frees some gigabytes a second, then reports its end."""

FAR_SECONDS, NEAR_SECONDS = 0.25, 0.05
"""Between two looks, where all is well, and where a limit or the machine's end is near.

On two noisy cores a look at 8 workers takes 0.09 ms when it follows another at once, and 0.33 ms after 50 ms of
something else, with cold caches; 0.18 and 0.51 ms where there is swap. So it is 1 % of a core at most.
"""

_LEAST_RESERVE = 128 * _MIB
_RESERVE_SHARE = 0.03

_WORTHWHILE = 64 * _MIB
"""What ending a call must give back at least, on machines that are not tiny."""

_KEPT_FACTOR = 4
"""How many times that a worker must hold, where no call has taken much, for its call to be ended."""

_SHOWN_WORKERS = 4
"""How many other workers an error names."""


class WorkerMemory:
    """A worker, the call that it is at, and what it has, in bytes.

    Attributes
    ----------
    number : int
    pid : int or None
        None where it is not known yet.
    key, call
        Key and name of the call that it is at; 0 and "" for none.
    limit : int or None
        What this call may take.
    own : int
        What the worker has by itself; 0 where it is ending or gone. Filled in by `MemoryWatch.look`.
    before : int
        What it had when its call began; filled in likewise.
    """

    __slots__ = ("before", "call", "key", "limit", "number", "own", "pid")

    def __init__(
        self,
        number: int,
        pid: int | None,
        key: int = 0,
        call: str = "",
        limit: int | None = None,
        *,
        own: int = 0,
        before: int = 0,
    ) -> None:
        self.number = number
        self.pid = pid
        self.key = key
        self.call = call
        self.limit = limit
        self.own = own
        self.before = before

    @property
    def taken(self) -> int:
        """What its call has taken."""
        return max(0, self.own - self.before)

    @property
    def excess(self) -> int:
        """What its call has taken beyond its limit; 0 or less for nothing."""
        return 0 if self.limit is None else self.taken - self.limit

    @property
    def identity(self) -> tuple[int, int | None, int]:
        """Of this process at this call; a retry may come to another process of the same number."""
        return self.number, self.pid, self.key


class MachineMemory:
    """What the machine, or a control group with a limit, has left.

    Attributes
    ----------
    place : str
        Which of them, in words.
    available, total : int
    reserve : int
        What should stay available.
    """

    __slots__ = ("available", "place", "reserve", "total")

    def __init__(self, place: str, available: int, total: int, reserve: int | None = None) -> None:
        self.place = place
        self.available = max(0, available)
        self.total = total
        self.reserve = choose_reserve(total) if reserve is None else min(reserve, total // 2)

    @property
    def margin(self) -> int:
        """What may still be taken before the reserve is touched; negative where it is."""
        return self.available - self.reserve


class Verdict:
    """A call that is to be ended.

    Attributes
    ----------
    victim : WorkerMemory
        The worker that is at it.
    machine : MachineMemory or None
        What is near its end; None where the call is past its limit.
    others : list of WorkerMemory
        All other workers, the largest first.
    at : float
        When it was named.
    """

    __slots__ = ("at", "machine", "others", "victim")

    def __init__(
        self,
        victim: WorkerMemory,
        machine: MachineMemory | None,
        others: list[WorkerMemory],
        at: float,
    ) -> None:
        self.victim = victim
        self.machine = machine
        self.others = others
        self.at = at


def choose_reserve(total: int) -> int:
    """What should stay available of `total` bytes: 3 %, at least 128 MiB, at most an eighth.

    Examples
    --------
    >>> [choose_reserve(total << 20) >> 20 for total in (256, 2048, 65536)]
    [32, 128, 1966]
    """
    return min(max(_LEAST_RESERVE, int(total * _RESERVE_SHARE)), total // 8)


def choose_victim(
    workers: Sequence[WorkerMemory],
    machine: MachineMemory | None,
    recent: Iterable[Verdict] = (),
    now: float = 0.0,
) -> Verdict | None:
    """Pure: the call that is to be ended, if any.

    First a call that is past its limit, the one furthest past it. Otherwise, if the machine is near its end, the
    one that has taken most, or, where none has taken much, the one in the worker that holds most, since what
    earlier calls left there goes with the worker. Nobody where that would give back next to nothing.

    Parameters
    ----------
    workers
        All of them, idle ones too.
    machine
        The machine or the control group, whichever is nearer its end; None where the system does not tell.
    recent
        What was named before and may not have taken effect yet.
    now
        In seconds of any clock.
    """
    named = {verdict.victim.identity: verdict.at for verdict in recent}
    running = [worker for worker in workers if worker.key]
    candidates = [worker for worker in running if worker.identity not in named]
    if not candidates:
        return None
    furthest = max(candidates, key=lambda worker: worker.excess)
    if furthest.excess > 0:
        return Verdict(furthest, None, _sort_others(workers, furthest), now)
    if machine is None or machine.margin >= 0:
        return None
    present = {worker.identity for worker in running}
    for identity, at in named.items():
        if now - at < (ENDING_SECONDS if identity in present else SETTLE_SECONDS):
            return None
    victim = _choose_greediest(candidates, machine)
    if victim is None:
        return None
    return Verdict(victim, machine, _sort_others(workers, victim), now)


def _choose_greediest(
    candidates: list[WorkerMemory], machine: MachineMemory
) -> WorkerMemory | None:
    worthwhile = _choose_worthwhile(machine)
    greediest = max(candidates, key=lambda worker: worker.taken)
    if greediest.taken >= worthwhile:
        return greediest
    largest = max(candidates, key=lambda worker: worker.own)
    return largest if largest.own >= _KEPT_FACTOR * worthwhile else None


def _choose_worthwhile(machine: MachineMemory) -> int:
    return min(_WORTHWHILE, machine.total // 16)


def _sort_others(workers: Sequence[WorkerMemory], victim: WorkerMemory) -> list[WorkerMemory]:
    others = [worker for worker in workers if worker is not victim]
    return sorted(others, key=lambda worker: worker.own, reverse=True)


def describe_out_of_memory(verdict: Verdict) -> OutOfMemoryError:
    """The error of a call that was ended for a verdict."""
    victim, machine = verdict.victim, verdict.machine
    why, way = _explain_limit(victim) if machine is None else _explain_machine(victim, machine)
    lines = [
        f"call {victim.key}, {victim.call}, was ended, and the worker process {victim.pid} with it: {why}."
    ]
    if verdict.others:
        lines.append("The largest of the other workers:")
    for worker in verdict.others[:_SHOWN_WORKERS]:
        at = f"call {worker.key}, {worker.call}" if worker.key else "no call"
        lines.append(f"    process {worker.pid}, {at}: {format_size(worker.own)}")
    lines += ["Other calls are not affected.", way]
    error = OutOfMemoryError("\n".join(lines))
    error.call, error.used = victim.call, victim.own
    error.limit = victim.limit if machine is None else None
    return error


def _explain_limit(victim: WorkerMemory) -> tuple[str, str]:
    taken, before = format_size(victim.taken), format_size(victim.before)
    why = (
        f"it had taken {taken} of memory, beyond the {before} that the worker had before, and its "
        f"limit is {format_size(victim.limit or 0)}"
    )
    way = (
        "Allow the task more (memory=…; as many of its calls run at once as fit), or split the work "
        "into smaller calls."
    )
    return why, way


def _explain_machine(victim: WorkerMemory, machine: MachineMemory) -> tuple[str, str]:
    available, total, reserve, taken, own = map(
        format_size,
        (machine.available, machine.total, machine.reserve, victim.taken, victim.own),
    )
    if victim.taken >= _choose_worthwhile(machine):
        blame = f"this call had taken the most, {taken} ({own} with what its worker had before)"
    else:
        blame = (
            f"of all calls' workers this one's had the most, {own}, perhaps left by earlier calls"
        )
    why = (
        f"{machine.place} had {available} of {total} left, and below {reserve} the kernel may soon "
        f"kill any process; {blame}"
    )
    way = (
        f"Say what a call of the task needs (such as memory='{own}'), so that no more of them run at "
        "once than fit; or use fewer workers, or split the work into smaller calls."
    )
    return why, way


class _File:
    """A file of the kernel's that is kept open and read anew each time."""

    __slots__ = ("fd",)

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> str:
        """All of it; nothing where what it tells of is gone."""
        try:
            return os.pread(self.fd, 16384, 0).decode("ascii", "replace")
        except OSError:
            return ""

    def close(self) -> None:
        os.close(self.fd)


class _Sample:
    """What is remembered of a worker between looks."""

    __slots__ = ("before", "file", "key", "pid")

    def __init__(self, pid: int, file: _File) -> None:
        self.pid = pid
        self.file = file
        self.key = -1  # of the call that `before` is about; it may be yet to come
        self.before = 0

    def note(self, key: int, own: int) -> None:
        """It has `own` bytes and is at the call `key`, or at none."""
        if key == self.key:
            self.before = min(self.before, own)
            return
        self.before = own
        if key:
            self.key = key


class MemoryWatch:
    """Looks at the memory of workers and of the machine. For one thread at a time.

    Parameters
    ----------
    reserve
        Bytes that should stay available, of the machine and of each control group, but at most half of it;
        None for `choose_reserve`.
    root
        The folder below which the system's files are; for tests.

    Attributes
    ----------
    pause : float
        Seconds after which to look again.
    """

    def __init__(self, reserve: int | None = None, root: str = "") -> None:
        self.pause = FAR_SECONDS
        self._reserve = reserve
        self._root = root
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._is_open = False
        self._has_swap = False
        self._meminfo: _File | None = None
        self._groups: list[list[_File]] = []
        self._samples: dict[int, _Sample] = {}
        self._recent: list[Verdict] = []

    def begin(self, number: int, pid: int, key: int) -> None:
        """Note what a worker has, which idles and is about to be sent a call.

        Not needed, but worth its 3 to 20 µs before a call with a limit.
        """
        self._open()
        sample = self._find_sample(number, pid)
        if sample is not None:
            sample.key, sample.before = key, self._read_own(sample)

    def look(self, workers: Sequence[WorkerMemory], now: float) -> Verdict | None:
        """Look at all workers, idle ones too; the call that is to be ended, if any.

        It is named once: who drives ends its worker. Where several are past their limits, others' turn comes
        with the next looks.

        Parameters
        ----------
        workers
            Made anew for each look; what they have is filled in.
        now
            In seconds of any clock that does not jump.
        """
        self._open()
        self._forget({worker.number for worker in workers})
        for worker in workers:
            self._measure(worker)
        machine = self.read_machine()
        at_work = {worker.identity for worker in workers}
        self._recent = [
            verdict
            for verdict in self._recent
            if verdict.victim.identity in at_work or now - verdict.at < SETTLE_SECONDS
        ]
        verdict = choose_victim(workers, machine, self._recent, now)
        if verdict is not None:
            self._recent.append(verdict)
        self.pause = choose_pause(workers, machine)
        return verdict

    def read_machine(self) -> MachineMemory | None:
        """What the machine has left, or a control group, whichever is nearer its reserve."""
        self._open()
        places = [self._read_group(group) for group in self._groups]
        if self._meminfo is not None:
            text = self._meminfo.read()
            total, available = find_size(text, "MemTotal"), find_size(text, "MemAvailable")
            if total and available is not None:
                # The kernel kills when there is nothing left to swap to either.
                available += find_size(text, "SwapFree") or 0
                places.append(MachineMemory("the machine", available, total, self._reserve))
        known = [place for place in places if place is not None]
        return min(known, key=lambda place: place.margin, default=None)

    def close(self) -> None:
        """Close all files; a later look opens them again."""
        self._forget(set())
        for group in self._groups:
            for file in group:
                file.close()
        if self._meminfo is not None:
            self._meminfo.close()
        self._meminfo, self._groups, self._is_open = None, [], False

    def _open(self) -> None:
        """Find the system's files, at the first look only: importing what parses them takes 30 ms."""
        if self._is_open:
            return
        self._is_open = True
        from manyhands.core.machine import choose_group_folders, parse_limit

        self._meminfo = self._open_file("/proc/meminfo")
        if self._meminfo is not None:
            self._has_swap = bool(find_size(self._meminfo.read(), "SwapTotal"))
        cgroup, mounts = (self._read_once(f"/proc/self/{name}") for name in ("cgroup", "mountinfo"))
        for version, folder in choose_group_folders(cgroup, mounts):
            names = _GROUP_FILES[version]
            # A group that gets a limit later is not noticed: few do, and each costs three descriptors.
            if parse_limit(self._read_once(f"{folder}/{names[0]}")) is not None:
                files = [file for name in names if (file := self._open_file(f"{folder}/{name}"))]
                if len(files) == len(names):
                    self._groups.append(files)

    def _read_group(self, files: list[_File]) -> MachineMemory | None:
        from manyhands.core.machine import parse_memory_group

        limit_file, used_file, stat_file = files
        limit_text, used_text = limit_file.read(), used_file.read()
        group = parse_memory_group(limit_text, used_text, "")
        limit, used = group.limit, group.used
        if limit is None or not used_text:  # lifted, or the group is gone
            return None
        memory = MachineMemory(_GROUP, limit - used, limit, self._reserve)
        if memory.margin < 0:
            # Reading `memory.stat` makes version 2 sum over all cores, so it is not done each time.
            stat = stat_file.read()
            used = parse_memory_group(limit_text, used_text, stat).used - _count_droppable(stat)
            memory = MachineMemory(_GROUP, limit - used, limit, self._reserve)
        return memory

    def _measure(self, worker: WorkerMemory) -> None:
        worker.own = worker.before = 0
        sample = None if worker.pid is None else self._find_sample(worker.number, worker.pid)
        if sample is not None:
            worker.own = self._read_own(sample)
            sample.note(worker.key, worker.own)
            worker.before = sample.before

    def _find_sample(self, number: int, pid: int) -> _Sample | None:
        sample = self._samples.get(number)
        if sample is not None and sample.pid == pid:
            return sample
        if sample is not None:
            sample.file.close()
            del self._samples[number]
        file = self._open_file(f"/proc/{pid}/{'status' if self._has_swap else 'statm'}")
        if file is None:  # it has ended; the template's word of it is on its way
            return None
        sample = self._samples[number] = _Sample(pid, file)
        return sample

    def _read_own(self, sample: _Sample) -> int:
        """What a worker has by itself; 0 where it has ended, even if another process has its id by now."""
        text = sample.file.read()
        return parse_status(text) if self._has_swap else parse_statm(text, self._page)

    def _forget(self, numbers: set[int]) -> None:
        """Close the files of all workers but these."""
        for number in [number for number in self._samples if number not in numbers]:
            self._samples.pop(number).file.close()

    def _open_file(self, path: str) -> _File | None:
        try:
            return _File(self._root + path)
        except OSError:
            return None

    def _read_once(self, path: str) -> str:
        try:
            with open(self._root + path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""


_GROUP = "the control group (a container's or a job's limit)"
_GROUP_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
    2: ("memory.max", "memory.current", "memory.stat"),
}


def choose_pause(workers: Iterable[WorkerMemory], machine: MachineMemory | None) -> float:
    """Pure: seconds until the next look."""
    is_near = machine is not None and machine.available < 4 * machine.reserve
    if is_near or any(2 * worker.taken > worker.limit for worker in workers if worker.limit):
        return NEAR_SECONDS
    return FAR_SECONDS


def parse_statm(text: str, page: int) -> int:
    """Pure: bytes of a process that it shares with none, of ``/proc/PID/statm``; 0 for nothing.

    Examples
    --------
    >>> parse_statm("765 425 396 5 0 123 0", 4096)
    118784
    """
    fields = text.split(None, 3)
    return (int(fields[1]) - int(fields[2])) * page if len(fields) > 3 else 0


def parse_status(text: str) -> int:
    r"""Pure: the same of ``/proc/PID/status``, with what is swapped out; making it takes the kernel five times longer.

    Examples
    --------
    >>> parse_status("Name:\tcat\nRssAnon:\t  148 kB\nVmSwap:\t  2 kB\n")
    153600
    """
    return (find_size(text, "RssAnon") or 0) + (find_size(text, "VmSwap") or 0)


def find_size(text: str, name: str) -> int | None:
    r"""Pure: bytes in the line of `name`, of ``/proc/meminfo`` and its like; None where there is none.

    `manyhands.core.machine.parse_meminfo` takes 67 µs for all lines; this takes less than 1.

    Examples
    --------
    >>> find_size("MemTotal:  24683656 kB\nMemFree: 2 kB\n", "MemFree")
    2048
    """
    _, _, rest = f"\n{text}".partition(f"\n{name}:")
    words = rest.split(None, 1)
    return int(words[0]) * 1024 if words and words[0].isdigit() else None


def _count_droppable(stat: str) -> int:
    """Half of a group's active files: the kernel drops them before it kills, but programs' code is among them."""
    counts = [0]
    for line in stat.splitlines():
        name, _, value = line.partition(" ")
        if name in {"active_file", "total_active_file"} and value.isdigit():
            counts.append(int(value))
    return max(counts) // 2
