"""Memory that values are laid out in, seen by two who share it."""

import gc
import mmap
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from pickle import PickleBuffer, dumps, loads
from typing import Any

import numpy as np
import pytest

from manyhands.engines.local import heap as heap_module
from manyhands.engines.local.heap import Heap, Watch, export, find_address, open_heap

SIZE = 1 << 26
PAGE = mmap.PAGESIZE


@pytest.fixture
def ours() -> Iterator[Heap]:
    """As its owner sees it."""
    heap = open_heap(1, SIZE)
    yield heap
    heap.close()


@pytest.fixture
def theirs(ours: Heap) -> Iterator[Heap]:
    """As another process sees it."""
    heap = Heap(1, os.dup(ours.fd), ours.size, writable=False)
    yield heap
    heap.close()


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").is_symlink()


def count_pages(heap: Heap) -> int:
    return os.fstat(heap.fd).st_blocks * 512 // PAGE


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("size", [1, 100, PAGE, 5 * 1024 * 1024 + 3, 17 * 1024 * 1024])
def test_what_one_writes_the_other_reads(ours: Heap, theirs: Heap, warm: bool, size: int) -> None:
    content = os.urandom(1024) * (size // 1024 + 1)
    ours.write(3 * PAGE, memoryview(content)[:size], warm=warm)
    assert theirs.view(3 * PAGE, size) == content[:size]
    assert theirs.view(3 * PAGE + size, 1) == b"\0"
    assert theirs.view(3 * PAGE - 1, 1) == b"\0"


def test_a_heap_takes_no_memory_until_it_is_written(ours: Heap) -> None:
    assert count_pages(ours) == 0
    ours.write(SIZE - 10, memoryview(b"x"), warm=False)
    assert count_pages(ours) == 1


def test_views_for_reading_cannot_be_written(ours: Heap, theirs: Heap) -> None:
    for heap in (ours, theirs):
        view = heap.view(0, 10)
        assert view.readonly
        with pytest.raises(TypeError):
            view[0] = 1


def test_all_see_what_is_written_through_a_view(ours: Heap, theirs: Heap) -> None:
    reading = theirs.view(100, 5)
    theirs.view_for_writing(100, 5)[:] = b"abcde"
    assert ours.view(100, 5) == reading == b"abcde"
    ours.view_for_writing(100, 5)[0] = ord("x")
    assert reading == b"xbcde"


@pytest.mark.parametrize("start", [0, 1, PAGE, PAGE + 17, 5 * PAGE - 1])
@pytest.mark.parametrize("size", [1, 10, 3 * PAGE, 2 * PAGE - 17])
def test_a_private_view_is_seen_by_nobody(ours: Heap, theirs: Heap, start: int, size: int) -> None:
    content = bytes(range(1, 256)) * (size // 255 + 1)
    ours.write(start, memoryview(content)[:size], warm=False)
    view = theirs.view_privately(start, size)
    assert view.nbytes == size
    assert view == content[:size]
    view[:] = bytes(size)
    assert ours.view(start, size) == content[:size]
    assert theirs.view_privately(start, size) == content[:size]


def test_a_private_view_ends_with_what_was_made_from_it(ours: Heap) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the folder of an iterator is open
    array = np.frombuffer(export(ours.view_privately(0, 100_000)), "f8")
    part = array[10:]
    part[0] = 3
    del array
    gc.collect()
    assert part[0] == 3
    del part
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_arrays_begin_where_processors_like_it(ours: Heap, theirs: Heap) -> None:
    for start in (0, PAGE, 77 * PAGE):
        for view in (
            ours.view(start, 800),
            theirs.view(start, 800),
            theirs.view_for_writing(start, 800),
            theirs.view_privately(start, 800),
        ):
            assert np.frombuffer(view, "f8").ctypes.data % 64 == 0


def test_what_is_given_back_reads_as_zeros_and_takes_no_memory(ours: Heap, theirs: Heap) -> None:
    ours.write(0, memoryview(b"x" * 10 * PAGE), warm=False)
    assert count_pages(ours) == 10
    theirs.give_back(2 * PAGE, 3 * PAGE)
    assert count_pages(ours) == 7
    assert ours.view(PAGE, PAGE) == b"x" * PAGE
    assert ours.view(2 * PAGE, 3 * PAGE) == bytes(3 * PAGE)
    assert ours.view(5 * PAGE, PAGE) == b"x" * PAGE
    ours.give_back(0, SIZE)
    assert count_pages(ours) == 0


@pytest.mark.parametrize("start", [0, SIZE])
def test_nothing_can_be_given_back(ours: Heap, start: int) -> None:
    ours.write(0, memoryview(b"x"), warm=False)
    ours.give_back(start, 0)
    assert ours.view(0, 1) == b"x"


def test_a_file_system_that_gives_nothing_back_is_no_obstacle(
    ours: Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heap_module.mmap, "MADV_REMOVE", 12345)
    ours.give_back(0, PAGE)


def test_bytes_are_found_where_they_stand(ours: Heap, theirs: Heap) -> None:
    assert ours.find(ours.view(1000, 10)) == 1000
    assert ours.find(ours.view_for_writing(SIZE - 10, 10)) == SIZE - 10
    assert theirs.find(theirs.view(PAGE, 10)) == PAGE
    array = np.frombuffer(export(ours.view(5 * PAGE, 800)), "f8")
    assert ours.find(memoryview(array[3:]).cast("B")) == 5 * PAGE + 24
    assert ours.find(PickleBuffer(array[10:20]).raw()) == 5 * PAGE + 80


def test_other_bytes_are_not_found(ours: Heap, theirs: Heap) -> None:
    assert ours.find(memoryview(b"elsewhere")) is None
    assert ours.find(theirs.view(0, 10)) is None
    assert ours.find(ours.view_privately(0, 10)) is None
    assert ours.find(ours.view(10, 0)) is None
    assert ours.find(memoryview(np.zeros(1000)).cast("B")) is None


def test_without_a_library_nobody_can_tell(ours: Heap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy")
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    assert find_address(memoryview(b"abc")) is None
    assert ours.find(ours.view(0, 10)) is None


def test_arrow_can_tell_too(ours: Heap, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    content = bytearray(b"abc")
    with_numpy = find_address(memoryview(content))
    monkeypatch.delitem(sys.modules, "numpy")
    assert find_address(memoryview(content)) == with_numpy
    assert ours.find(ours.view(10, 10)) == 10


def test_half_loaded_libraries_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", type(sys)("numpy"))
    monkeypatch.setitem(sys.modules, "pyarrow", type(sys)("pyarrow"))
    assert find_address(memoryview(b"abc")) is None


# Lifetimes.


class Watched:
    """A view, and whether it lives."""

    def __init__(self, view: memoryview) -> None:
        self.gone = 0
        self.watch = Watch(view, self.count)

    def count(self, watch: object) -> None:
        assert watch is self.watch
        self.gone += 1


def arrow_buffer(buffer: Any) -> Any:
    return pytest.importorskip("pyarrow").py_buffer(buffer)


def arrow_array(buffer: Any) -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.Array.from_buffers(pyarrow.float64(), 100, [None, pyarrow.py_buffer(buffer)])


def pandas_column(buffer: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.Series(np.frombuffer(buffer, "f8"), copy=False)


def pickled(value: Any) -> Any:
    """What pickle makes of a buffer that it is given."""

    def make(buffer: Any) -> Any:
        stream = dumps(value, 5, buffer_callback=lambda _: None)
        return loads(stream, buffers=[buffer])

    return make


CONSUMERS = {
    "array": lambda buffer: np.frombuffer(buffer, "f8"),
    "ndarray": lambda buffer: np.ndarray((10, 10), "f8", buffer),
    "array of a view": lambda buffer: np.frombuffer(memoryview(buffer)[8:], "f8"),
    "asarray": lambda buffer: np.asarray(memoryview(buffer)),
    "view": memoryview,
    "view of a view": lambda buffer: memoryview(memoryview(buffer))[5:][::2],
    "cast": lambda buffer: memoryview(buffer).cast("d"),
    "arrow buffer": arrow_buffer,
    "arrow array": arrow_array,
    "pandas": pandas_column,
    "unpickled array": pickled(np.zeros(100)),
    "unpickled buffer": pickled(PickleBuffer(bytes(800))),
}


@pytest.mark.parametrize("consume", CONSUMERS.values(), ids=CONSUMERS)
@pytest.mark.parametrize("kind", ["read", "write", "private"])
def test_a_view_lives_as_long_as_anything_made_from_it(ours: Heap, consume: Any, kind: str) -> None:
    make = {
        "read": ours.view,
        "write": ours.view_for_writing,
        "private": ours.view_privately,
    }[kind]
    ours.write(0, memoryview(np.arange(100.0)).cast("B"), warm=False)
    view = make(0, 800)
    watched = Watched(view)
    value = consume(export(view))
    del view
    assert not watched.gone
    derived = [memoryview(value)[2:] if isinstance(value, PickleBuffer) else value[2:]]
    derived.append(derived[0][1:])
    del value
    assert not watched.gone
    del derived[0]
    assert not watched.gone
    del derived
    assert watched.gone == 1


@pytest.mark.parametrize("read_only", [True, False])
def test_views_are_as_writable_as_they_were(ours: Heap, read_only: bool) -> None:
    view = ours.view(0, 80) if read_only else ours.view_for_writing(0, 80)
    assert np.frombuffer(export(view), "f8").flags.writeable != read_only


def test_watches_are_keys_by_themselves(ours: Heap) -> None:
    view = ours.view_for_writing(0, SIZE)  # its hash would be refused, or read it all
    one, other = Watch(view), Watch(view)
    assert not (one == other)  # noqa: SIM201 - what a dictionary asks
    assert {one: 1, other: 2}[one] == 1
    assert one() is view
    del view
    assert one() is None
    assert {one: 1}[one] == 1, "also when the view is gone"
    assert issubclass(Watch, weakref.ref)


# The end.


def test_a_closed_heap_lets_go(ours: Heap) -> None:
    fd = ours.fd
    ours.close()
    assert not is_open(fd)
    ours.close()
    with pytest.raises(ValueError):
        ours.view(0, 1)


def test_views_outlive_a_closed_heap(ours: Heap) -> None:
    ours.write(0, memoryview(b"abc"), warm=False)
    reading, writing = ours.view(0, 3), ours.view_for_writing(0, 3)
    private = ours.view_privately(0, 3)
    array = np.frombuffer(export(ours.view(0, 3)), "u1")
    ours.close()
    writing[0] = ord("x")
    assert reading == b"xbc"
    assert private == b"xbc"
    assert array.tobytes() == b"xbc"


def test_a_sealed_heap_can_be_read() -> None:
    heap = open_heap(1, SIZE)
    heap.write(0, memoryview(b"abc"), warm=False)
    fd = heap.fd
    heap.seal()
    assert not is_open(fd)
    assert heap.view(0, 3) == b"abc"
    heap.close()


def test_a_heap_that_nobody_has_is_closed() -> None:
    heap = open_heap(1, SIZE)
    fd = heap.fd
    del heap
    gc.collect()
    assert not is_open(fd)


def test_a_heap_that_cannot_be_mapped_leaves_no_descriptor() -> None:
    fd = os.memfd_create("x")
    with pytest.raises((OSError, ValueError)):
        Heap(1, fd, 4096, writable=True)  # larger than the memory behind it
    gc.collect()
    assert not is_open(fd)


def test_where_addresses_are_few_a_heap_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    real = mmap.mmap

    def limited(fd: int, size: int, *args: Any, **kwargs: Any) -> Any:
        if size > 1 << 28:
            raise OSError("no addresses")
        return real(fd, size, *args, **kwargs)

    gc.collect()  # what earlier tests left would go in between
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(heap_module.mmap, "mmap", limited)
    heap = open_heap(1, 1 << 33)
    assert heap.size == 1 << 27
    heap.close()
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    monkeypatch.setattr(heap_module.mmap, "mmap", lambda *args, **kwargs: limited(0, 1 << 40))
    with pytest.raises(OSError, match="no addresses"):
        open_heap(1, 1 << 33)
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
