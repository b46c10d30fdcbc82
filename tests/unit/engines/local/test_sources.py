"""Which buffers of the program are stored already."""

import gc
import sys
from pickle import PickleBuffer
from typing import Any

import numpy as np
import pytest

from manyhands.engines.local import sources as sources_module
from manyhands.engines.local.heap import open_heap
from manyhands.engines.local.room import Room, StoredValue
from manyhands.engines.local.sources import Sources, digest, find_owner

SIZE = 40_000


class Copies:
    """Stores buffers as a store does."""

    def __init__(self) -> None:
        self.heap = open_heap(0, 1 << 26)
        self.room = Room(1 << 26, 0, "/tmp", 1)
        self.sources = Sources()
        self.end = 0
        self.made = 0

    def keep(self, buffer: Any) -> StoredValue:
        raw = PickleBuffer(buffer).raw()  # as pickling hands it out
        value = self.sources.find(raw)
        if value is None:
            self.made += 1
            value = StoredValue(self.room, self.made, (self.heap, self.end), raw.nbytes, "copy")
            self.heap.write(self.end, raw, warm=False)
            self.end += raw.nbytes
            self.sources.remember(raw, value)
        return value


@pytest.fixture
def copies() -> Copies:
    return Copies()


def test_the_same_buffer_is_stored_once(copies: Copies) -> None:
    array = np.arange(SIZE // 8)
    values = {copies.keep(array) for _ in range(3)}
    assert len(values) == 1
    assert copies.made == 1


def test_a_changed_buffer_is_stored_anew(copies: Copies) -> None:
    array = np.arange(SIZE // 8)
    before = copies.keep(array)
    array[-1] += 1
    after = copies.keep(array)
    assert after is not before
    assert copies.keep(array) is after
    assert before.heap.view(before.start, 8) == after.heap.view(after.start, 8)
    array[-1] -= 1
    assert copies.keep(array) not in (before, after), "the latest alone is remembered"


def test_what_was_stored_counts_and_not_what_came_between(copies: Copies) -> None:
    """The digest is made of the copy, whenever it is first needed."""
    array = np.zeros(SIZE // 8)
    copies.keep(array)
    array[:] = 1
    assert copies.keep(array).heap.view(copies.end - SIZE, 8) == np.float64(1).tobytes()
    assert copies.made == 2


def test_views_are_known_by_their_place(copies: Copies) -> None:
    array = np.arange(SIZE)
    part = copies.keep(array[10:20_010])
    assert copies.keep(array[10:20_010]) is part
    assert copies.keep(array[11:20_011]) is not part
    assert copies.keep(array[10:20_009]) is not part
    assert copies.made == 3


def test_bytes_need_no_digest(copies: Copies, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(SIZE)
    value = copies.keep(content)
    with monkeypatch.context() as context:
        context.setattr(sources_module, "digest", None)
        assert copies.keep(content) is value
    assert copies.keep(memoryview(content)) is value
    assert copies.keep(memoryview(content)[1:]) is not value


def test_other_bytes_of_the_same_content_may_be_stored_again(copies: Copies) -> None:
    values = [copies.keep(bytes([n]) * SIZE) for n in range(3)]
    assert [bytes(v.heap.view(v.start, 2)) for v in values] == [b"\0\0", b"\1\1", b"\2\2"]


def test_a_copy_is_forgotten_with_its_source(copies: Copies) -> None:
    array = np.arange(SIZE)
    part = array[5:]
    copies.keep(part)
    del part
    assert len(copies.sources.list_values()) == 1, "views come and go, the array stays"
    del array
    assert copies.sources.list_values() == []


def test_an_address_that_is_used_again_is_no_mistake(copies: Copies) -> None:
    for n in range(20):
        array = np.full(SIZE // 8, n, "f8")
        value = copies.keep(array)
        assert value.heap.view(value.start, 8) == np.float64(n).tobytes()
        del array
    assert copies.sources.list_values() == []


def test_what_allows_no_weak_reference_is_kept_until_cleared(copies: Copies) -> None:
    content = bytearray(SIZE)
    value = copies.keep(content)
    assert copies.keep(content) is value
    content[0] = 1
    assert copies.keep(content) is not value
    content.append(1)  # it can grow: no buffer of it is held
    copies.sources.clear()
    assert copies.sources.list_values() == []


def test_at_most_so_many_are_remembered(copies: Copies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "_SOURCES", 3)
    arrays = [np.full(100, n) for n in range(5)]
    values = [copies.keep(array) for array in arrays]
    assert copies.keep(arrays[2]) is values[2]
    assert copies.keep(np.zeros(200)) is not None
    assert len(copies.sources.list_values()) <= 3
    assert values[2] in copies.sources.list_values(), "the latest used stay"


def test_without_a_library_buffers_are_known_by_their_owner(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "pyarrow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    content = bytes(SIZE)
    assert copies.keep(content) is copies.keep(content)
    changing = bytearray(SIZE)
    value = copies.keep(changing)
    assert copies.keep(changing) is value
    changing[7] = 1
    assert copies.keep(changing) is not value
    whole = memoryview(changing)
    assert bytes(copies.keep(whole[:100]).heap.view(copies.end - 100, 8))[7] == 1


def test_parts_of_one_owner_are_told_apart_without_a_library(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "pyarrow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    content = bytes(range(256)) * 100
    first, second = memoryview(content)[:5000], memoryview(content)[100:5100]
    one, other = copies.keep(first), copies.keep(second)
    assert bytes(one.heap.view(one.start, 3)) == b"\0\1\2"
    assert bytes(other.heap.view(other.start, 3)) == bytes([100, 101, 102])


def test_the_owner_of_views_of_views() -> None:
    array = np.arange(1000)
    assert find_owner(memoryview(array[10:][5:].reshape(5, -1))) is array
    assert find_owner(memoryview(b"abc")) == b"abc"
    owner = bytearray(10)
    assert find_owner(memoryview(memoryview(owner)[2:])) is owner


def test_digests_tell_contents_apart() -> None:
    assert digest(memoryview(b"a" * 100)) == digest(memoryview(bytearray(b"a" * 100)))
    assert digest(memoryview(b"a" * 100)) != digest(memoryview(b"a" * 99 + b"b"))
    assert len(digest(memoryview(b""))) == 16


def test_a_source_that_dies_while_it_is_looked_for(copies: Copies) -> None:
    class Owner(np.ndarray):
        pass

    owner = np.zeros(SIZE).view(Owner)
    owner.self = owner  # type: ignore[attr-defined]
    copies.keep(owner)
    del owner
    gc.collect()
    assert copies.sources.list_values() == []
