"""How much room there is, and what makes way."""

import gc
import os
from pathlib import Path
from typing import Any

import pytest

from manyhands.core.machine import Memory
from manyhands.engines.local import room as room_module
from manyhands.engines.local.heap import DISK, Heap
from manyhands.engines.local.room import (
    Room,
    StoredValue,
    measure_memory,
    open_spill_file,
    round_up,
)
from manyhands.engines.local.shm import open_memory
from manyhands.engines.local.space import PAGE
from manyhands.errors import StoreFullError

MIB = 1 << 20


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(10 * MIB, 20 * MIB, str(tmp_path), 2)


class Values:
    """Makes values in a room, and has them go when it is told."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.all: dict[int, StoredValue] = {}

    def place(self, number: int, size: int) -> tuple[StoredValue, bool]:
        value, is_warm = self.room.place(number, size, f"v{number}", list(self.all.values()))
        value.heap.write(value.start, memoryview(bytes([number])), warm=is_warm)
        self.all[number] = value
        return value, is_warm

    def read(self, number: int) -> int:
        value = self.all[number]
        return value.heap.view(value.start, 1)[0]


@pytest.fixture
def values(room: Room) -> Values:
    return Values(room)


def add_worker(room: Room, number: int, size: int = 1 << 28) -> Heap:
    heap = room.heaps[number] = Heap(number, open_memory(size), size, writable=True)
    room.freed[number] = []
    return heap


def test_values_are_counted_in_pages(room: Room, values: Values) -> None:
    values.place(1, 1)
    values.place(2, PAGE + 1)
    assert room.live == 3 * PAGE
    assert (room.on_disk, room.warm) == (0, 0)
    values.all.clear()
    assert room.live == 3 * PAGE, "until it is swept"
    room.sweep()
    assert (room.live, room.warm) == (0, 3 * PAGE)


def test_values_tell_where_they_are(room: Room, values: Values) -> None:
    value, _ = values.place(1, 2 * MIB)
    assert repr(value) == "<StoredValue 1: v1, 2.0 MiB in memory>"
    assert not value.is_on_disk


def test_room_is_used_again(room: Room, values: Values) -> None:
    first, is_warm = values.place(1, MIB)
    assert not is_warm
    start = first.start
    values.all.clear()
    del first
    room.sweep()
    again, is_warm = values.place(2, MIB)
    assert is_warm
    assert again.start == start


def test_little_is_kept_warm(room: Room, values: Values) -> None:
    for number in range(1, 9):
        values.place(number, MIB)
    values.all.clear()
    room.sweep()
    assert room.live == 0
    assert 0 < room.warm <= 10 * MIB // 8
    assert os.fstat(room.heaps[0].fd).st_blocks * 512 <= room.warm
    room.chill(0)
    assert room.warm == 0
    assert os.fstat(room.heaps[0].fd).st_blocks == 0


def test_idle_values_make_way_in_order(room: Room, values: Values) -> None:
    for number in range(1, 6):
        values.place(number, 2 * MIB)
    assert room.live == 10 * MIB
    values.place(6, 3 * MIB)
    places = [values.all[number].is_on_disk for number in range(1, 7)]
    assert places == [True, True, False, False, False, False]
    assert room.live == 9 * MIB
    assert room.on_disk == 4 * MIB
    assert (room.spilled_values, room.spilled_bytes) == (2, 4 * MIB)
    assert [values.read(number) for number in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    assert len(room.notices) == 1
    values.all.clear()
    room.sweep()
    assert (room.live, room.on_disk) == (0, 0)
    assert os.fstat(room.heaps[DISK].fd).st_blocks == 0, "nothing is kept on disk"


def test_where_nothing_is_idle_the_new_value_goes_to_disk(room: Room) -> None:
    kept = [room.place(n, 4 * MIB, "x", [])[0] for n in (1, 2)]
    value, is_warm = room.place(3, 4 * MIB, "x", [])
    assert value.is_on_disk and not is_warm
    assert "on disk" in repr(value)
    value.heap.write(value.start, memoryview(b"abc"), warm=False)
    assert value.heap.view(value.start, 3) == b"abc"
    del kept


def test_a_value_larger_than_memory_goes_to_disk(room: Room) -> None:
    value, _ = room.place(1, 15 * MIB, "x", [])
    assert value.is_on_disk
    with pytest.raises(StoreFullError):
        room.place(2, 15 * MIB, "x", [])
    assert room.on_disk == 15 * MIB


def test_without_a_disk_memory_is_all(tmp_path: Path) -> None:
    room = Room(MIB, 0, str(tmp_path), 1)
    value, _ = room.place(1, MIB // 2, "x", [])
    with pytest.raises(StoreFullError):
        room.place(2, MIB, "x", [value])
    assert not value.is_on_disk
    assert room.live == MIB // 2
    assert DISK not in room.heaps
    assert not room.notices


def test_a_value_too_large_for_the_disk_stays_and_others_go(tmp_path: Path) -> None:
    room = Room(10 * MIB, 2 * MIB, str(tmp_path), 1)
    values = Values(room)
    values.place(1, 5 * MIB)
    values.place(2, MIB)
    values.place(3, 4 * MIB)
    values.place(4, MIB)
    assert [value.is_on_disk for value in values.all.values()] == [False, True, False, False]


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    room = Room(MIB, MIB, str(tmp_path / "nowhere"), 1)
    with pytest.raises(StoreFullError, match=r"nowhere takes no file: .*spill_folder="):
        room.place(1, MIB + 1 - PAGE, "x", [])
        room.place(2, MIB // 2, "x", [])


def test_the_disks_free_space_is_measured(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    limit = Room(MIB, None, str(tmp_path), 1).disk_limit
    assert 0 < limit <= status.f_blocks * status.f_frsize


def test_shares_of_workers(tmp_path: Path) -> None:
    room = Room(80 * MIB, 0, str(tmp_path), 4)
    assert room.warm_limit == 80 * MIB // 8 // 4
    assert room.measure_free() == 20 * MIB
    value, _ = room.place(1, 40 * MIB, "x", [])
    assert room.measure_free() == 10 * MIB
    assert room.heap_size >= 4 * 80 * MIB
    assert Room(1 << 60, 0, str(tmp_path), 1000).heap_size * 1002 <= 1 << 44
    room.live = 1 << 40
    assert room.measure_free() == 0
    room.live = round_up(value.size)


def test_values_of_workers(room: Room) -> None:
    heap = add_worker(room, 1)
    value = room.adopt(7, 1, 5 * PAGE, MIB, "a result")
    assert (room.live, value.heap, value.start) == (MIB, heap, 5 * PAGE)
    del value
    room.sweep()
    assert room.live == 0
    assert room.freed == {1: [7]}


def test_values_of_workers_make_way_too(room: Room) -> None:
    heap = add_worker(room, 1)
    heap.write(0, memoryview(b"x" * 6 * MIB), warm=False)
    value = room.adopt(7, 1, 0, 6 * MIB, "a result")
    value.is_exclusive = True
    ours, _ = room.place(8, 6 * MIB, "x", [value])
    assert value.is_on_disk and not ours.is_on_disk
    assert not value.is_exclusive
    assert value.heap.view(value.start, 3) == b"xxx"
    assert os.fstat(heap.fd).st_blocks == 0, "its memory is given back at once"
    assert room.freed == {1: [7]}, "and its addresses are the worker's again"
    del value
    room.sweep()
    assert room.on_disk == 0


def test_a_lost_workers_memory_goes_but_for_its_values(room: Room) -> None:
    heap = add_worker(room, 1)
    heap.write(0, memoryview(b"x" * 10 * PAGE), warm=False)
    values = [room.adopt(n, 1, n * 3 * PAGE, PAGE + 1, "x") for n in (1, 2)]
    room.lose(1, [values[1], values[0]])
    assert heap.view(0, 3 * PAGE) == bytes(3 * PAGE)
    assert heap.view(3 * PAGE, 2 * PAGE) == b"x" * 2 * PAGE
    assert heap.view(5 * PAGE, PAGE) == bytes(PAGE)
    assert heap.view(6 * PAGE, 2 * PAGE) == b"x" * 2 * PAGE
    assert heap.view(8 * PAGE, PAGE) == bytes(PAGE)
    assert 1 not in room.freed
    values.clear()
    room.sweep()
    assert room.live == 0
    assert heap.fd < 0 or os.fstat(heap.fd).st_blocks == 0


def test_a_lost_heap_is_closed_with_its_last_value(room: Room) -> None:
    heap = add_worker(room, 1)
    fd = heap.fd
    values = [room.adopt(1, 1, 0, 10, "x")]
    room.lose(1, values)
    del heap
    values.clear()
    room.sweep()
    gc.collect()
    assert 1 not in room.heaps
    assert not Path(f"/proc/self/fd/{fd}").exists()


def test_a_worker_without_values_leaves_nothing(room: Room) -> None:
    heap = add_worker(room, 1)
    room.lose(1, [])
    assert 1 not in room.heaps
    assert heap.fd == -1
    room.lose(2, [])


def test_a_value_that_goes_with_its_worker_is_no_obstacle(room: Room) -> None:
    add_worker(room, 1)
    room.adopt(1, 1, 0, 10, "x")  # gone, and not yet swept
    room.lose(1, [])
    room.sweep()
    assert room.live == 0


def test_after_the_end_nobody_counts(room: Room, values: Values) -> None:
    values.place(1, MIB)
    values.place(2, MIB)
    kept = values.all[1]
    view = kept.heap.view(kept.start, 1)
    room.close([kept])
    assert view[0] == 1
    values.all.clear()
    del kept
    assert not room.departed
    assert room.heaps == {}


def test_overlapping_values_are_kept_at_the_end(room: Room, values: Values) -> None:
    value, _ = values.place(1, 4 * PAGE)
    value.heap.write(value.start, memoryview(b"y" * 4 * PAGE), warm=True)
    view = value.heap.view(value.start, 4 * PAGE)
    room.close([value, value])
    assert view == b"y" * 4 * PAGE


def test_fullness_in_words(room: Room, tmp_path: Path) -> None:
    text = room.describe_fullness(5 * MIB, ["a", "b"])
    assert "5.0 MiB more do not fit" in text
    assert "0 B of 10.0 MiB" in text and "0 B of 20.0 MiB" in text
    assert str(tmp_path) in text and "a; b" in text and "store= or spill=" in text
    assert "none" in room.describe_fullness(1, [])


@pytest.mark.parametrize(
    ("machine", "group", "limit"),
    [(1000, None, 400), (1000, 500, 200), (500, 1000, 200), (None, 100, 40)],
)
def test_the_limit_is_a_part_of_what_may_be_used(
    monkeypatch: pytest.MonkeyPatch, machine: Any, group: Any, limit: int
) -> None:
    monkeypatch.setattr("manyhands.core.machine.read_memory", lambda: FakeMemory(machine, group))
    assert measure_memory() == limit
    assert Room(None, 0, "/tmp", 1).limit == limit


class FakeMemory:
    """What `read_memory` finds."""

    def __init__(self, machine: int | None, group: int | None) -> None:
        self.machine = machine
        self.group_limit = group


def test_the_fake_is_like_the_real_one() -> None:
    assert {"machine", "group_limit"} <= set(Memory.__annotations__)


def test_a_spill_file_has_no_name(tmp_path: Path) -> None:
    fd, size = open_spill_file(str(tmp_path), 1 << 30)
    try:
        assert size == 1 << 30
        assert list(tmp_path.iterdir()) == []
        assert os.fstat(fd).st_blocks == 0
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_where_files_need_names_it_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    fd, _ = open_spill_file(str(tmp_path), 1 << 20)
    try:
        assert list(tmp_path.iterdir()) == []
        os.pwrite(fd, b"abc", 100)
        assert os.pread(fd, 3, 100) == b"abc"
    finally:
        os.close(fd)


def test_a_file_system_of_small_files_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.truncate

    def limited(fd: int, size: int) -> None:
        if size > 1 << 29:
            raise OSError(27, "File too large")
        real(fd, size)

    monkeypatch.setattr(room_module.os, "truncate", limited)
    fd, size = open_spill_file(str(tmp_path), 1 << 32)
    assert size == 1 << 28
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(room_module.os, "truncate", lambda *_: limited(0, 1 << 40))
    with pytest.raises(OSError, match="too large"):
        open_spill_file(str(tmp_path), 1 << 32)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
