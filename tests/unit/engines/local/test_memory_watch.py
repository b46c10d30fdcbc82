"""Which call is ended for its memory, when, and how that is told."""

import mmap
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.engines.local.memory_watch import (
    ENDING_SECONDS,
    FAR_SECONDS,
    NEAR_SECONDS,
    SETTLE_SECONDS,
    MachineMemory,
    MemoryWatch,
    Verdict,
    WorkerMemory,
    choose_pause,
    choose_reserve,
    choose_victim,
    describe_out_of_memory,
    find_size,
    parse_statm,
    parse_status,
)
from manyhands.errors import OutOfMemoryError, WorkerError

MIB = 1 << 20
GIB = 1 << 30
PAGE = os.sysconf("SC_PAGE_SIZE")


def at_call(
    number: int, own: int, before: int = 10 * MIB, limit: int | None = None
) -> WorkerMemory:
    return WorkerMemory(
        number, 1000 + number, 70 + number, f"load_{number}", limit, own=own, before=before
    )


def idle(number: int, own: int) -> WorkerMemory:
    return WorkerMemory(number, 1000 + number, own=own, before=own)


def machine(available: int, total: int = 16 * GIB, reserve: int | None = None) -> MachineMemory:
    return MachineMemory("the machine", available, total, reserve)


PLENTY = machine(8 * GIB)
SCARCE = machine(100 * MIB)


def name_victim(*args: object, **options: object) -> int | None:
    verdict = choose_victim(*args, **options)  # type: ignore[arg-type]
    return verdict and verdict.victim.number


# --- whom ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "reserve"),
    [
        (64 * MIB, 8 * MIB),
        (512 * MIB, 64 * MIB),
        (GIB, 128 * MIB),
        (4 * GIB, 128 * MIB),
        (100 * GIB, 3 * GIB),
    ],
)
def test_the_reserve_follows_the_size(total: int, reserve: int) -> None:
    assert choose_reserve(total) == reserve
    assert machine(0, total).reserve == reserve


def test_a_given_reserve_is_at_most_half() -> None:
    assert machine(0, 16 * GIB, GIB).reserve == GIB
    assert machine(0, GIB, 4 * GIB).reserve == GIB // 2


def test_nobody_where_all_is_well() -> None:
    assert choose_victim([], SCARCE) is None
    assert choose_victim([at_call(1, 5 * GIB)], PLENTY) is None
    assert choose_victim([at_call(1, 5 * GIB)], None) is None
    assert choose_victim([at_call(1, GIB, limit=2 * GIB)], PLENTY) is None


def test_a_call_past_its_limit_goes_though_there_is_plenty() -> None:
    workers = [at_call(1, 5 * GIB), at_call(2, 3 * GIB, limit=2 * GIB)]
    for state in (PLENTY, SCARCE, None):
        verdict = choose_victim(workers, state)
        assert verdict is not None
        assert (verdict.victim.number, verdict.machine) == (2, None)


def test_of_several_past_their_limits_the_one_furthest_past_goes_first() -> None:
    workers = [
        at_call(1, 3 * GIB, limit=2 * GIB),
        at_call(2, 3 * GIB, limit=GIB),
        at_call(3, 9 * GIB, limit=9 * GIB),
    ]
    assert name_victim(workers, PLENTY) == 2


def test_a_limit_does_not_count_what_was_there_before_the_call() -> None:
    assert choose_victim([at_call(1, 3 * GIB, before=GIB, limit=2 * GIB)], PLENTY) is None
    assert name_victim([at_call(1, 3 * GIB, before=GIB - 1, limit=2 * GIB)], PLENTY) == 1


def test_a_limit_of_nothing_is_a_limit() -> None:
    assert name_victim([at_call(1, 11 * MIB, limit=0)], PLENTY) == 1


def test_the_greediest_goes_when_the_machine_is_near_its_end() -> None:
    workers = [idle(0, 6 * GIB), at_call(1, GIB), at_call(2, 5 * GIB, 4 * GIB), at_call(3, 2 * GIB)]
    verdict = choose_victim(workers, SCARCE, now=3.0)
    assert verdict is not None
    assert (verdict.victim.number, verdict.machine, verdict.at) == (3, SCARCE, 3.0)
    assert [other.number for other in verdict.others] == [0, 2, 1]


def test_exactly_the_reserve_is_enough() -> None:
    reserve = PLENTY.reserve
    assert choose_victim([at_call(1, GIB)], machine(reserve)) is None
    assert name_victim([at_call(1, GIB)], machine(reserve - 1)) == 1


def test_a_call_that_holds_little_helps_nobody() -> None:
    assert choose_victim([at_call(1, 30 * MIB), at_call(2, 60 * MIB)], SCARCE) is None
    assert name_victim([at_call(1, 30 * MIB), at_call(2, 75 * MIB)], SCARCE) == 2


def test_little_is_less_in_a_small_container() -> None:
    workers = [at_call(1, 40 * MIB)]
    assert name_victim(workers, machine(MIB, 256 * MIB)) == 1
    assert choose_victim(workers, machine(MIB, GIB)) is None


def test_where_no_call_took_much_the_fullest_worker_goes() -> None:
    kept = at_call(2, 2 * GIB, before=2 * GIB - MIB)
    assert name_victim([at_call(1, 50 * MIB), kept, idle(3, 3 * GIB)], SCARCE) == 2


def test_idle_workers_are_not_named() -> None:
    assert choose_victim([idle(1, 5 * GIB)], SCARCE) is None


# --- when ---------------------------------------------------------------------------


def test_no_second_until_the_first_has_had_time_to_go() -> None:
    first, second = at_call(1, 3 * GIB), at_call(2, 2 * GIB)
    named = choose_victim([first, second], SCARCE, now=10.0)
    assert named is not None and named.victim is first
    for present, wait in (([second], SETTLE_SECONDS), ([first, second], ENDING_SECONDS)):
        assert choose_victim(present, SCARCE, [named], 10.0 + wait - 0.01) is None
        assert name_victim(present, SCARCE, [named], 10.0 + wait + 0.01) == 2


def test_a_named_call_is_not_named_again() -> None:
    for worker in (at_call(1, 3 * GIB), at_call(1, 3 * GIB, limit=GIB)):
        named = choose_victim([worker], SCARCE)
        assert named is not None
        assert choose_victim([worker], SCARCE, [named], 100.0) is None


def test_a_retry_in_another_process_is_another_matter() -> None:
    named = choose_victim([at_call(1, 3 * GIB, limit=GIB)], PLENTY)
    assert named is not None
    again = at_call(1, 3 * GIB, limit=GIB)
    again.pid = 9999
    assert name_victim([again], PLENTY, [named], 0.1) == 1


def test_each_call_past_its_limit_goes_without_delay() -> None:
    workers = [at_call(1, 3 * GIB, limit=GIB), at_call(2, 2 * GIB, limit=GIB)]
    first = choose_victim(workers, PLENTY)
    assert first is not None
    assert name_victim(workers, PLENTY, [first], 0.01) == 2


def test_a_call_ended_for_its_limit_helps_the_machine_too() -> None:
    guilty, innocent = at_call(1, 3 * GIB, limit=GIB), at_call(2, 2 * GIB)
    first = choose_victim([guilty, innocent], SCARCE)
    assert first is not None and first.machine is None
    assert choose_victim([guilty, innocent], SCARCE, [first], 0.1) is None


sizes = st.integers(0, 20 * GIB)
workers_strategy = st.lists(
    st.builds(
        WorkerMemory,
        st.integers(1, 5),
        st.just(7),
        st.integers(0, 3),
        st.just("f"),
        st.none() | sizes,
        own=sizes,
        before=sizes,
    ),
    unique_by=lambda worker: worker.number,
)


@given(
    workers_strategy,
    st.none() | st.builds(machine, sizes),
    st.lists(st.floats(0.01, 2), max_size=20),
)
def test_whoever_is_named_runs_something_and_is_named_once(
    workers: list[WorkerMemory], state: MachineMemory | None, steps: list[float]
) -> None:
    recent: list[Verdict] = []
    now = 0.0
    for step in steps:
        now += step
        verdict = choose_victim(workers, state, recent, now)
        if verdict is None:
            continue
        victim = verdict.victim
        assert victim.key
        assert victim.identity not in {past.victim.identity for past in recent}
        if verdict.machine is None:
            assert victim.limit is not None and victim.taken > victim.limit
        else:
            assert state is not None and state.available < state.reserve
            assert all(now - past.at >= ENDING_SECONDS for past in recent)
        assert len(verdict.others) == len(workers) - 1
        recent.append(verdict)


def test_looks_are_closer_where_an_end_is_near() -> None:
    assert choose_pause([at_call(1, GIB), idle(2, GIB)], PLENTY) == FAR_SECONDS
    assert choose_pause([at_call(1, GIB, limit=3 * GIB)], None) == FAR_SECONDS
    assert choose_pause([at_call(1, 2 * GIB, limit=3 * GIB)], PLENTY) == NEAR_SECONDS
    assert choose_pause([], machine(3 * PLENTY.reserve)) == NEAR_SECONDS


# --- how it is told ------------------------------------------------------------------


def describe(workers: list[WorkerMemory], state: MachineMemory | None) -> OutOfMemoryError:
    verdict = choose_victim(workers, state)
    assert verdict is not None
    return describe_out_of_memory(verdict)


def test_the_error_of_a_limit_names_call_sizes_and_way_out() -> None:
    error = describe([at_call(1, 3 * GIB, GIB, limit=GIB), idle(2, 20 * MIB)], PLENTY)
    text = str(error)
    assert text.startswith(
        "call 71, load_1, was ended, and the worker process 1001 with it: it had taken 2.0 GiB of memory, "
        "beyond the 1.0 GiB that the worker had before, and its limit is 1.0 GiB."
    )
    assert "process 1002, no call: 20.0 MiB" in text
    assert "memory=" in text and "split" in text and "Other calls are not affected" in text
    assert (error.call, error.used, error.limit) == ("load_1", 3 * GIB, GIB)
    assert isinstance(error, WorkerError) and isinstance(error, MemoryError)


def test_the_error_of_the_machine_names_its_state_and_the_others() -> None:
    workers = [at_call(number, number * GIB) for number in range(1, 8)]
    workers[6].limit = 9 * GIB
    error = describe(workers, SCARCE)
    text = str(error)
    assert "the machine had 100.0 MiB of 16.0 GiB left, and below 491.5 MiB" in text
    assert "this call had taken the most, 7.0 GiB" in text
    assert text.index("process 1006, call 76, load_6: 6.0 GiB") < text.index("process 1005, ")
    assert "process 1003" in text and "process 1002" not in text
    assert "memory='7.0 GiB'" in text and "fewer workers" in text and "split" in text
    assert (error.used, error.limit) == (7 * GIB, None)


def test_the_error_does_not_blame_a_call_for_what_was_there() -> None:
    text = str(describe([at_call(1, 2 * GIB, before=2 * GIB)], SCARCE))
    assert "this one's had the most, 2.0 GiB, perhaps left by earlier calls" in text
    assert "other workers" not in text


def test_the_error_travels_whole() -> None:
    error = describe([at_call(1, 3 * GIB, limit=GIB)], PLENTY)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


# --- what the system tells ------------------------------------------------------------


def test_statm_is_what_is_shared_with_none() -> None:
    assert parse_statm("765 425 396 5 0 123 0\n", 4096) == 29 * 4096
    assert parse_statm("0 0 0 0 0 0 0\n", 4096) == 0  # it has ended and was not waited for
    assert parse_statm("", 4096) == 0


def test_status_adds_what_is_swapped_out() -> None:
    text = (
        "Name:\tRssAnon:\nVmRSS:\t  900 kB\nRssAnon:\t  148 kB\nRssFile:\t 5 kB\nVmSwap:\t  2 kB\n"
    )
    assert parse_status(text) == 150 * 1024
    assert parse_status("Name:\tcat\nState:\tZ (zombie)\n") == 0
    assert parse_status("") == 0


def test_a_size_is_found_by_its_whole_name() -> None:
    text = "MemTotal:       100 kB\nSwapFree:  7 kB\nFree: 3 kB\nOdd:\nLast: x kB\n"
    assert [find_size(text, name) for name in ("MemTotal", "Free", "Total", "Last")] == [
        102400,
        3072,
        None,
        None,
    ]


class FakeSystem:
    """Files as Linux has them, below a folder; all sizes in MiB."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.set_machine(8192)
        self.write("/proc/self/cgroup", "0::/job\n")
        self.write("/proc/self/mountinfo", "")

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def set_machine(self, available: int, total: int = 16384, swap: int = 0, free: int = 0) -> None:
        lines = {
            "MemTotal": total,
            "MemFree": 1,
            "MemAvailable": available,
            "SwapTotal": swap,
            "SwapFree": free,
        }
        self.write(
            "/proc/meminfo", "".join(f"{name}: {n * 1024} kB\n" for name, n in lines.items())
        )

    def set_worker(self, pid: int, own: int, shared: int = 0, swapped: int = 0) -> None:
        pages = MIB // PAGE
        self.write(f"/proc/{pid}/statm", f"9 {(own + shared) * pages} {shared * pages} 1 0 5 0\n")
        self.write(
            f"/proc/{pid}/status",
            f"Name:\tpython\nRssAnon:\t{own * 1024} kB\nVmSwap:\t{swapped * 1024} kB\n",
        )

    def mount_version_2(self) -> str:
        self.write("/proc/self/mountinfo", "30 22 0:26 / /cg rw,nosuid shared:9 - cgroup2 x rw\n")
        return "/cg/job"

    def mount_version_1(self) -> str:
        self.write("/proc/self/cgroup", "4:memory:/job\n")
        self.write("/proc/self/mountinfo", "35 31 0:32 / /cg rw - cgroup cgroup rw,memory\n")
        return "/cg/job"


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(tmp_path)


@pytest.fixture
def watch(system: FakeSystem) -> Iterator[MemoryWatch]:
    watch = MemoryWatch(root=str(system.root))
    yield watch
    watch.close()


@pytest.fixture(autouse=True)
def _leaves_no_descriptor() -> Iterator[None]:
    before = count_descriptors()
    yield
    assert count_descriptors() == before


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def look(watch: MemoryWatch, now: float, *workers: WorkerMemory) -> int | None:
    verdict = watch.look(workers, now)
    return verdict and verdict.victim.number


def measure(watch: MemoryWatch, pid: int, key: int = 0) -> tuple[int, int]:
    """Own and before of worker 1, in MiB."""
    worker = WorkerMemory(1, pid, key, "f")
    watch.look([worker], 0.0)
    return worker.own // MIB, worker.before // MIB


def test_shared_pages_do_not_count(system: FakeSystem, watch: MemoryWatch) -> None:
    system.set_worker(41, own=30, shared=4000)
    assert measure(watch, 41) == (30, 30)


def test_swapped_pages_count(system: FakeSystem, watch: MemoryWatch) -> None:
    system.set_machine(8192, swap=4096, free=2048)
    system.set_worker(41, own=30, shared=4000, swapped=500)
    assert measure(watch, 41)[0] == 530
    state = watch.read_machine()
    assert state is not None and state.available == (8192 + 2048) * MIB


def test_before_is_the_least_that_was_seen_while_the_call_runs(
    system: FakeSystem, watch: MemoryWatch
) -> None:
    for key, own, before in (
        (0, 20, 20),
        (7, 50, 50),  # calls that ended meanwhile may have left the 30
        (7, 90, 50),
        (7, 40, 40),
        (7, 95, 40),
        (8, 70, 70),
        (8, 99, 70),
        (0, 60, 60),
    ):
        system.set_worker(41, own)
        assert measure(watch, 41, key) == (own, before)


def test_before_is_exact_where_the_beginning_is_told(
    system: FakeSystem, watch: MemoryWatch
) -> None:
    system.set_worker(41, 20)
    watch.begin(1, 41, 7)
    system.set_worker(41, 500)
    assert measure(watch, 41, 7) == (500, 20)
    watch.begin(1, 41, 8)
    system.set_worker(41, 300)
    assert measure(watch, 41, 0) == (300, 300)  # it was told and has not begun
    system.set_worker(41, 700)
    assert measure(watch, 41, 8) == (700, 300)
    watch.begin(1, 999, 9)  # of a process that is gone: nothing to note, nothing to raise


def test_a_call_past_its_limit_is_named_once(system: FakeSystem, watch: MemoryWatch) -> None:
    system.set_worker(41, 20)
    system.set_worker(42, 20)

    def look_at(now: float) -> int | None:
        workers = [
            WorkerMemory(1, 41, 7, "f", 100 * MIB),
            WorkerMemory(2, 42, 8, "f", 100 * MIB),
        ]
        return look(watch, now, *workers)

    assert look_at(0.0) is None
    assert watch.pause == FAR_SECONDS
    system.set_worker(41, 200)
    system.set_worker(42, 201)
    assert [look_at(0.1), look_at(0.2), look_at(0.3), look_at(30.0)] == [2, 1, None, None]
    assert watch.pause == NEAR_SECONDS


def test_the_greediest_is_named_when_the_machine_is_near_its_end(
    system: FakeSystem, watch: MemoryWatch
) -> None:
    def look_at(now: float, *pids: int) -> int | None:
        return look(watch, now, *(WorkerMemory(pid, pid, 7, "f") for pid in pids))

    for pid in (41, 42, 43):
        system.set_worker(pid, 20)
    assert look_at(0.0, 41, 42, 43) is None
    for pid, own in ((41, 3000), (42, 5000), (43, 4000)):
        system.set_worker(pid, own)
    assert look_at(0.25, 41, 42, 43) is None
    system.set_machine(300)
    assert look_at(0.5, 41, 42, 43) == 42
    system.set_worker(42, 0)  # the kernel shows nothing of a process that it is taking apart
    assert look_at(1.5, 41, 42, 43) is None
    assert look_at(1.6, 41, 43) == 43  # it is gone, and it did not help
    assert look_at(1.7, 41) is None
    system.set_machine(8000)
    assert look_at(3.0, 41) is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_may_be_nearer_its_end_than_the_machine(
    system: FakeSystem, version: int
) -> None:
    if version == 1:
        folder, limit, used = (
            system.mount_version_1(),
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
        )
        inactive, active = "total_inactive_file", "total_active_file"
    else:
        folder, limit, used = system.mount_version_2(), "memory.max", "memory.current"
        inactive, active = "inactive_file", "active_file"
    system.write(f"{folder}/{limit}", f"{GIB}\n")
    system.write(f"{folder}/{used}", f"{GIB}\n")
    system.write(f"{folder}/memory.stat", f"anon 1\n{inactive} {20 * MIB}\n{active} {60 * MIB}\n")
    system.write(f"/cg/{limit}", "max\n")
    system.write(f"/cg/{used}", f"{9 * GIB}\n")
    system.write("/cg/memory.stat", "")
    watch = MemoryWatch(root=str(system.root))
    try:
        state = watch.read_machine()
        assert state is not None and "control group" in state.place
        assert (state.available, state.total) == (50 * MIB, GIB)
        assert state.margin < 0
        system.set_machine(10)  # the machine's end is nearer now
        state = watch.read_machine()
        assert state is not None and state.place == "the machine"
        system.set_machine(8192)
        system.write(f"{folder}/{used}", f"{GIB // 4}\n")
        state = watch.read_machine()
        assert state is not None and (state.available, state.total) == (GIB * 3 // 4, GIB)
        system.write(f"{folder}/{limit}", "max\n")
        state = watch.read_machine()
        assert state is not None and state.place == "the machine"
    finally:
        watch.close()


def test_mounts_are_read_once(system: FakeSystem, watch: MemoryWatch) -> None:
    assert watch.read_machine() is not None
    folder = system.mount_version_2()
    for name in ("memory.max", "memory.current", "memory.stat"):
        system.write(f"{folder}/{name}", "1\n")
    state = watch.read_machine()
    assert state is not None and state.place == "the machine"
    watch.close()
    state = watch.read_machine()
    assert state is not None and state.place != "the machine"


def test_a_given_reserve_holds(system: FakeSystem) -> None:
    watch = MemoryWatch(reserve=GIB, root=str(system.root))
    try:
        state = watch.read_machine()
        assert state is not None and state.reserve == GIB
    finally:
        watch.close()


def test_a_system_that_tells_nothing_costs_nobody(tmp_path: Path) -> None:
    watch = MemoryWatch(root=str(tmp_path / "none"))
    assert watch.read_machine() is None
    workers = [WorkerMemory(1, 41, 7, "f", MIB), WorkerMemory(2, None), WorkerMemory(3, 43)]
    assert look(watch, 0.0, *workers) is None
    assert [worker.own for worker in workers] == [0, 0, 0]
    watch.close()


def test_files_of_workers_that_are_gone_are_closed(system: FakeSystem, watch: MemoryWatch) -> None:
    for pid in (41, 42, 43):
        system.set_worker(pid, 20)
    look(watch, 0.0)
    base = count_descriptors()
    look(watch, 0.0, WorkerMemory(1, 41), WorkerMemory(2, 42))
    assert count_descriptors() == base + 2
    look(watch, 0.0, WorkerMemory(1, 43), WorkerMemory(2, 42))  # another process took its place
    assert count_descriptors() == base + 2
    look(watch, 0.0, WorkerMemory(1, 43))
    assert count_descriptors() == base + 1
    look(watch, 0.0, WorkerMemory(1, 999))
    assert count_descriptors() == base


def test_another_process_of_the_same_number_starts_anew(
    system: FakeSystem, watch: MemoryWatch
) -> None:
    system.set_worker(41, 20)
    system.set_worker(42, 300)
    assert measure(watch, 41, 7) == (20, 20)
    assert measure(watch, 42, 7) == (300, 300)


# --- the real system --------------------------------------------------------------------


GROWING = """
import sys
print("began", flush=True)
sys.stdin.readline()
block = b"x" * (100 << 20)
print("grew", flush=True)
sys.stdin.readline()
"""


def test_a_process_is_measured() -> None:
    watch = MemoryWatch(reserve=1)
    # Another process than this one, whose allocator may give old memory back meanwhile.
    with subprocess.Popen(
        [sys.executable, "-S", "-c", GROWING], text=True, stdin=PIPE, stdout=PIPE
    ) as process:
        try:
            assert process.stdin and process.stdout
            assert process.stdout.readline() == "began\n"
            watch.begin(1, process.pid, 7)
            first, second = (WorkerMemory(1, process.pid, 7, "f") for _ in range(2))
            watch.look([first], 0.0)
            print(file=process.stdin, flush=True)
            assert process.stdout.readline() == "grew\n"
            watch.look([second], 1.0)
            assert 99 * MIB < second.own - first.own < 110 * MIB
            assert 99 * MIB < second.taken < 110 * MIB
            third = WorkerMemory(1, process.pid, 7, "f", 50 * MIB)
            assert look(watch, 2.0, third) == 1
        finally:
            process.kill()
            watch.close()


def test_shared_memory_is_not_a_processs_own() -> None:
    watch = MemoryWatch()
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, 64 * MIB)
        before, after = (WorkerMemory(1, os.getpid()) for _ in range(2))
        watch.look([before], 0.0)
        with mmap.mmap(fd, 64 * MIB) as mapping:
            for page in range(0, 64 * MIB, PAGE):
                mapping[page] = 1
            watch.look([after], 1.0)
        assert after.own - before.own < 16 * MIB
    finally:
        os.close(fd)
        watch.close()


def test_this_machine_has_memory() -> None:
    watch = MemoryWatch()
    try:
        state = watch.read_machine()
        assert state is not None
        assert state.available > 0 and 0 < state.reserve < state.total
    finally:
        watch.close()
