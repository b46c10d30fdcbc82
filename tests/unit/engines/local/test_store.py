"""The parent's account of shared values, with the shelves of workers that live in this process."""

import array as standard_array
import gc
import os
import pickle
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyhands.core.parcels import Parcel
from manyhands.engines.local import store as store_module
from manyhands.engines.local.space import PAGE
from manyhands.engines.local.store import Load
from manyhands.errors import InvalidArgumentError, SessionClosedError, StoreFullError
from tests.unit.engines.local.sharing import Pair

LARGE = 100_000
"""Elements of 8 bytes."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    """At the end nothing may be left."""
    pair = Pair(workers=2)
    yield pair
    if not pair.store.room.is_closed:
        pair.check_empty()


def make(value: float = 0, size: int = LARGE) -> Any:
    return np.arange(size) + float(value)


# Arguments and results.


@pytest.mark.parametrize("size", [1, 2048, 2049, LARGE])
def test_an_array_goes_there_and_back(pair: Pair, size: int) -> None:
    array = make(3, size)
    result = pair.run(lambda a: a * 2, array)
    assert (result == array * 2).all()
    assert result.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 100_000,
        "ü" * 50_000,
        bytearray(b"x" * 100_000),
        list(range(50_000)),
        {"a": [b"x" * 50_000], "b": {1: "y" * 50_000}},
        standard_array.array("d", range(20_000)),
    ],
    ids=["bytes", "str", "bytearray", "list", "nested", "array"],
)
def test_large_values_of_all_kinds_go_there_and_back(pair: Pair, value: Any) -> None:
    result = pair.run(lambda x: x, value)
    assert result == value
    assert type(result) is type(value)


def test_frames_go_there_and_back(pair: Pair) -> None:
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": make(), "b": ["text"] * LARGE})
    result = pair.run(lambda f: f[f["a"] > 10], frame)
    assert result.equals(frame[frame["a"] > 10])
    table = pyarrow.table({"a": make(), "b": ["text"] * LARGE})
    assert pair.run(lambda t: t, table).equals(table)


def test_arguments_are_not_copied_in_the_worker(pair: Pair) -> None:
    sent = pair.pack(pair.dump(make(1), make(2)))
    first, second = pair.receive(sent)
    for array in (first, second):
        assert array.ctypes.data % 64 == 0
        assert not array.flags.writeable
    assert [value.size for value in pair.list_values()] == [LARGE * 8] * 2
    del first, second, array
    pair.answer(sent, None)


@pytest.mark.parametrize("size", [10, 2000, 2049, LARGE])
def test_addresses_are_multiples_of_64(pair: Pair, size: int) -> None:
    refs = [pair.put(make(n, size)) for n in range(3)]
    results = [pair.run(lambda a: a + 1, make(n, size)) for n in range(3)]
    results += [ref.get() for ref in refs]
    if size > 2048:
        assert {array.ctypes.data % 64 for array in results} == {0}


def test_more_private_views_than_descriptors(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PRIVATE_VIEWS", 3)
    ref = pair.put(make(), copy=True)
    arrays = [ref.get() for _ in range(6)]
    for number, array in enumerate(arrays):
        array[0] = number
    assert [array[0] for array in arrays] == list(range(6))
    assert {array.ctypes.data % 64 for array in arrays} == {0}
    assert ref.get()[0] == 0


def test_a_result_that_nobody_else_has_is_handed_over(pair: Pair) -> None:
    payload = pair.call(make)
    assert isinstance(payload, Parcel)
    value: Any = payload.buffers[0].value  # type: ignore[union-attr]
    assert value.is_exclusive
    result = pair.store.load(payload)
    assert value.is_given and not value.is_exclusive
    result[0] = 7
    assert value.heap.view(value.start, 8) == np.float64(7).tobytes()
    again = pair.store.load(payload)
    again[0] = 8
    assert result[0] == 7, "who reads it again has a copy"


def test_a_result_that_was_given_away_is_stored_anew(pair: Pair) -> None:
    result = pair.run(make)
    kept: list[Any] = []
    pair.run(kept.append, result)
    result[0] = 99
    assert kept[0][0] == 0, "a call has it as it was when it was submitted"
    pair.run(kept.append, result)
    assert [array[0] for array in kept] == [0, 99]
    kept.clear()


def test_the_same_bytes_twice_in_a_result_are_two_arrays(pair: Pair) -> None:
    def twice() -> Any:
        array = make()
        return [array, array[:], array[10:]]

    one, other, part = pair.run(twice)
    one[20] = -1
    assert (other[20], part[10]) == (20, 20)


def test_the_same_array_twice_in_a_result_is_one(pair: Pair) -> None:
    def twice() -> Any:
        array = make()
        return [array, array]

    one, other = pair.run(twice)
    assert one is other


def test_a_result_that_the_worker_keeps_is_not_given_away(pair: Pair) -> None:
    kept: list[Any] = []

    def keep(array: Any) -> Any:
        kept.append(array)
        return array

    result = pair.run(keep, make())
    result[0] = 7
    assert kept[0][0] == 0
    kept.clear()


def test_a_born_array_that_the_worker_keeps_is_not_given_away(pair: Pair) -> None:
    kept: list[Any] = []

    def keep() -> Any:
        kept.append(np.ndarray(LARGE, buffer=pair.shelves[1].allocate(LARGE * 8)))
        kept[0][:] = 0
        return kept[0]

    def change() -> Any:
        kept[0][0] += 1
        return kept[0]

    first = pair.run(keep)
    second = pair.run(change)
    second[5] = 7
    assert kept[0][5] == 0
    assert first[5] == 0
    kept.clear()


def test_a_passed_on_result_is_not_read_by_the_parent(pair: Pair) -> None:
    payload = pair.call(lambda: [make(), "x"])
    result = pair.run(lambda value: value[0].sum(), pair.hand_on(payload), worker=2)
    assert result == make().sum()
    array, _ = pair.store.load(payload)
    array[0] = 7
    assert pair.run(lambda value: value[0][0], pair.hand_on(payload), worker=2) == 0


def test_small_results_too(pair: Pair) -> None:
    payload = pair.call(lambda: [1, 2])
    assert pair.run(sum, pair.hand_on(payload)) == 3


def test_a_part_of_an_argument_is_not_copied_on_its_way_back(pair: Pair) -> None:
    array = make()
    result = pair.run(lambda a: a[10:-10], array)
    assert (result == array[10:-10]).all()
    assert len(pair.list_values()) == 1


# The same buffers again.


def test_the_same_array_is_stored_once(pair: Pair) -> None:
    array = make()
    payloads = [pair.dump(array, n) for n in range(3)]
    assert len(pair.list_values()) == 1
    array[5] = -1
    payloads.append(pair.dump(array))
    assert len(pair.list_values()) == 2
    values = [pair.receive(pair.pack(payload))[0][5] for payload in payloads]
    assert values == [5, 5, 5, -1]
    pair.store.drop(1, [value.id for value in pair.list_values()] * 4)


def test_a_copy_goes_with_its_source(pair: Pair) -> None:
    array = make()
    pair.dump(array)
    assert len(pair.list_values()) == 1
    del array
    assert pair.list_values() == []


def test_a_store_that_is_used_counts_its_changes(pair: Pair) -> None:
    seen = [pair.store.changes]
    for _ in range(2):
        pair.put(make())
        seen.append(pair.store.changes)
    assert len(set(seen)) == 3
    assert pair.store.needs_rest()
    pair.store.rest()
    assert pair.store.changes == seen[-1]  # or it would never be taken to idle


def test_a_copy_goes_when_the_session_rests(pair: Pair) -> None:
    array = make()
    pair.dump(array)
    assert pair.store.needs_rest()
    pair.store.rest()
    assert not pair.store.needs_rest()
    assert pair.store.room.live == pair.store.room.warm == 0
    assert array[3] == 3


# Refs.


def test_a_ref_is_the_same_object_as_long_as_it_lives(pair: Pair) -> None:
    ref = pair.put(make())
    assert pair.store.hand_out(ref.record) is ref
    assert pair.run(lambda box: box, {ref}) == {ref}
    number = ref.id
    (again,) = pair.run(lambda box: box, {ref})
    assert again is ref
    record = ref.record
    del ref, again
    assert pair.store.hand_out(record).id == number


def test_a_ref_stands_for_its_value(pair: Pair) -> None:
    ref = pair.put([make(), "x"])
    assert pair.run(lambda value: value[0].sum(), pair.hand_on(ref)) == make().sum()
    assert ref.nbytes > LARGE * 8
    assert ref.type_name == "list"
    assert ref.place == "memory"
    assert repr(ref) == f"<Ref {ref.id}: list, 781.4 KiB in memory>"


def test_the_value_of_a_ref_is_read_where_it_is(pair: Pair) -> None:
    source = make()
    ref = pair.put(source)
    first, second = ref.get(), ref.get()
    assert first is not second
    assert np.shares_memory(first, second)
    assert not np.shares_memory(first, source)
    assert not first.flags.writeable
    part = first[10:]
    del first, second, ref
    assert part[0] == 10
    assert len(pair.list_values()) == 1, "the array keeps the value"


@pytest.mark.parametrize("size", [1, 100, 2049, LARGE])
@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[::-1],
        lambda a: a.astype("M8[s]"),
        lambda a: np.stack([a, a]).T,
    ],
    ids=["whole", "reversed", "dates", "columns"],
)
def test_what_all_may_write_all_see(pair: Pair, size: int, view: Any) -> None:
    ref = pair.put(view(make(0, size)), writable=True)
    ours = ref.get()
    before = ours.copy()

    def write(array: Any) -> None:
        array[0] = array[-1] = 77

    for worker in (1, 2):
        ours[...] = before
        pair.run(write, pair.hand_on(ref), worker=worker)
        assert (ours[0] == np.asarray(77).astype(ours.dtype)).all()
    seen = pair.run(lambda array: array.copy(), pair.hand_on(ref), worker=2)
    assert (seen == ours).all()


@pytest.mark.parametrize("size", [1, 100, 2049, LARGE])
def test_what_each_may_write_nobody_else_sees(pair: Pair, size: int) -> None:
    ref = pair.put({"a": make(0, size)}, copy=True)
    ours = ref.get()
    ours["a"][0] = 5

    def write(value: Any) -> float:
        before = value["a"][0]
        value["a"][0] = 77
        return float(before + value["a"][0])

    assert [pair.run(write, pair.hand_on(ref), worker=n) for n in (1, 2, 1)] == [77.0] * 3
    assert ours["a"][0] == 5
    assert ref.get()["a"][0] == 0


def test_a_part_of_what_is_written_stays_where_it_is(pair: Pair) -> None:
    ours = np.ndarray(LARGE, buffer=pair.store.allocate(LARGE * 8))
    ours[:] = 0
    ref = pair.put(ours[100:200], writable=True)

    def write(array: Any) -> None:
        array[:] = 9

    pair.run(write, pair.hand_on(ref))
    assert ours[99] == 0 and (ours[100:200] == 9).all() and ours[200] == 0


@pytest.mark.parametrize("size", [10, LARGE])
def test_an_array_that_was_made_shared_is_shared(pair: Pair, size: int) -> None:
    ours = np.ndarray(size, buffer=pair.store.allocate(size * 8))
    ours[:] = 1
    assert len(pair.list_values()) == 1
    ref = pair.put(ours, writable=True)
    assert len(pair.list_values()) == 1

    def add(array: Any) -> None:
        array += 1

    pair.run(add, pair.hand_on(ref))
    pair.run(add, pair.hand_on(ref), worker=2)
    assert ours.tolist() == [3] * size
    assert len(pair.list_values()) == 1
    ours[0] = 8
    assert pair.run(lambda array: array[0], pair.hand_on(ref)) == 8


def test_an_array_that_was_made_shared_is_seen_live(pair: Pair) -> None:
    ours = np.ndarray(LARGE, buffer=pair.store.allocate(LARGE * 8))
    ours[:] = 1
    payload = pair.dump(ours, ours[10:])
    ours[10] = 5
    sent = pair.pack(payload)
    whole, part = pair.receive(sent)
    assert whole[10] == part[0] == 5
    assert not whole.flags.writeable
    del whole, part
    pair.answer(sent, None)


def test_refs_cannot_do_both(pair: Pair) -> None:
    with pytest.raises(InvalidArgumentError, match="exclude each other"):
        pair.put(make(), writable=True, copy=True)


@pytest.mark.parametrize("value", [1, "text", [1, 2], list(range(10_000)), np.array([None])])
def test_what_has_no_buffers_cannot_be_written(pair: Pair, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"writable=True is for arrays .* none in this"):
        pair.put(value, writable=True)


def test_refs_inside_of_refs_are_kept(pair: Pair) -> None:
    inner = pair.put(make(1))
    outer = pair.put({"inner": inner, "array": make(2)})
    number = inner.id
    del inner
    assert outer.get()["inner"].get()[0] == 1
    assert outer.get()["inner"].id == number
    got = pair.run(lambda value: value["inner"].get().sum(), pair.hand_on(outer))
    assert got == make(1).sum()


def test_a_ref_of_another_session_is_refused_everywhere(pair: Pair) -> None:
    other = Pair()
    ref = other.put(make())
    for value in (ref, [ref], {"a": {ref}}):
        with pytest.raises(InvalidArgumentError, match="belongs to another session"):
            pair.put(value)
        with pytest.raises(InvalidArgumentError, match="belongs to another session"):
            pair.store.check_own(pair.serializer.dump_arguments((value,), {}))
    del ref, value
    other.check_empty()


def test_a_ref_cannot_be_pickled_elsewhere(pair: Pair) -> None:
    ref = pair.put(1)
    with pytest.raises(TypeError, match="pickle its value"):
        pickle.dumps(ref)


# Refs and arrays made in calls.


def test_a_call_can_return_refs(pair: Pair) -> None:
    def make_refs() -> Any:
        shelf = pair.shelves[1]
        return [shelf.put(make(n), writable=False, copy=False) for n in range(3)] + [
            shelf.put("small", writable=False, copy=False)
        ]

    refs = pair.run(make_refs)
    assert [ref.get()[0] for ref in refs[:3]] == [0, 1, 2]
    assert refs[3].get() == "small"
    assert not refs[0].get().flags.writeable
    total = pair.run(lambda *arrays: sum(a[0] for a in arrays), *map(pair.hand_on, refs[:3]))
    assert total == 3
    back = pair.run(lambda *them: them, *({ref} for ref in refs), worker=2)
    assert [next(iter(one)) for one in back] == refs


def test_a_ref_that_a_call_made_is_the_same_when_it_comes_back(pair: Pair) -> None:
    kept: list[Any] = []

    def keep() -> Any:
        kept.append(pair.shelves[1].put(make(), writable=False, copy=False))
        return {kept[0]}

    (ref,) = pair.run(keep)
    assert pair.run(lambda box: next(iter(box)) is kept[0], {ref})
    del ref
    assert pair.run(lambda: kept[0].get()[5]) == 5
    assert len(pair.list_values()) == 1
    kept.clear()


def test_a_ref_that_comes_to_nothing_is_freed(pair: Pair) -> None:
    pair.run(lambda: len(repr(pair.shelves[1].put(make(), writable=False, copy=False))))


def test_a_kept_ref_outlives_the_argument_that_it_was_made_of(pair: Pair) -> None:
    kept: list[Any] = []

    def keep(array: Any) -> None:
        kept.append(pair.shelves[1].put(array[10:], writable=False, copy=False))

    pair.run(keep, make())
    pair.settle()
    others = [pair.put(make(5)) for _ in range(3)]
    assert kept[0].get()[0] == 10
    (ref,) = pair.run(lambda: {kept[0]})
    kept.clear()
    pair.settle()
    assert ref.get()[0] == 10
    del others


def test_a_kept_ref_outlives_its_returned_value(pair: Pair) -> None:
    kept: list[Any] = []

    def keep() -> Any:
        kept.append(pair.shelves[1].put(make(), writable=False, copy=False))
        return kept[0].get()

    result = pair.run(keep)
    assert result[5] == 5
    del result
    pair.settle()
    others = [pair.run(make, 50) for _ in range(3)]
    assert kept[0].get()[5] == 5
    (ref,) = pair.run(lambda: {kept[0]})
    kept.clear()
    assert ref.get()[5] == 5
    del others


def test_a_ref_that_was_found_in_a_value_outlives_it(pair: Pair) -> None:
    outer = pair.put({pair.put(make())})
    kept: list[Any] = []
    pair.run(lambda box: kept.append(next(iter(box))), {outer})

    def dig() -> None:
        kept.append(next(iter(kept[0].get())))
        del kept[0]

    pair.run(dig)
    del outer
    pair.settle()
    others = [pair.put(make(50)) for _ in range(3)]
    assert kept[0].get()[5] == 5
    (ref,) = pair.run(lambda: {kept[0]})
    kept.clear()
    assert ref.get()[5] == 5
    del others


def test_an_array_that_was_found_in_a_value_outlives_it(pair: Pair) -> None:
    outer = pair.put({pair.put(make())})
    kept: list[Any] = []
    pair.run(lambda box: kept.append(next(iter(next(iter(box)).get())).get()[3:]), {outer})
    del outer
    pair.settle()
    others = [pair.put(make(50)) for _ in range(3)]
    assert kept[0][0] == 3
    kept.clear()
    pair.settle()
    del others


def test_an_array_made_shared_in_a_call_is_not_copied(pair: Pair) -> None:
    def fill() -> Any:
        array = np.ndarray(LARGE, buffer=pair.shelves[1].allocate(LARGE * 8))
        array[:] = make()
        return array

    result = pair.run(fill)
    assert (result == make()).all()
    result[0] = 1
    assert len(pair.list_values()) == 1


# Many parts.


def test_many_refs_travel_in_a_box(pair: Pair) -> None:
    refs = [pair.put(make(n, 3000)) for n in range(3)] + [pair.put(n) for n in range(600)]
    sent = pair.pack(pair.dump(set(refs)))
    assert sent.packed[0] == "boxed"
    assert len(pickle.dumps(sent.packed)) < 1000
    (arrived,) = pair.receive(sent)
    assert len(arrived) == 603
    del arrived
    result = pair.answer(sent, None)
    assert result is not None
    assert pair.list_held() == []
    back = pair.run(lambda box: box, set(refs))
    assert back == set(refs)


def test_many_results_travel_in_a_box(pair: Pair) -> None:
    def make_many() -> Any:
        shelf = pair.shelves[1]
        return [shelf.put(n, writable=False, copy=False) for n in range(600)] + [
            make(n, 3000) for n in range(3)
        ]

    result = pair.run(make_many)
    assert [ref.get() for ref in result[:600]] == list(range(600))
    assert [array[0] for array in result[600:]] == [0, 1, 2]
    result[601][0] = 5


def test_a_box_that_is_taken_back_holds_nothing(pair: Pair) -> None:
    refs = [pair.put(n) for n in range(1000)] + [pair.put(make())]
    sent = pair.pack(pair.dump(set(refs)))
    assert len(pair.list_held()) == 1002
    pair.store.take_back(1, sent.uses)
    assert pair.list_held() == []
    assert pair.count_uses() == 0


def test_a_box_that_a_worker_cannot_open_holds_nothing(pair: Pair) -> None:
    refs = [pair.put(n) for n in range(1000)]
    load = Load(1)
    packed = pair.store.pack(pair.dump(set(refs)), load)
    shelf = pair.shelves[1]
    packed = shelf.unbox(packed, load.uses)  # the heap is not known
    assert not shelf.knows(packed)
    box = packed[1][0]
    pair.store.take_back(1, [box])  # what the worker asks for when it gives the call back
    pair.store.drop(1, shelf.end_message(number for number in load.uses if number != box))
    assert pair.list_held() == []


def test_a_box_needs_no_room() -> None:
    """It stands for a message that has to be sent, and there is nobody to whom an error could go."""
    pair = Pair(memory=0, disk=0)
    refs = [pair.put(n) for n in range(1000)]
    (arrived,) = pair.receive(sent := pair.pack(pair.dump(set(refs))))
    assert len(arrived) == 1000
    answer = pair.answer(sent, sorted(arrived, key=lambda ref: ref.id))
    del arrived
    assert pair.store.load(answer) == refs
    del refs, answer, sent
    pair.check_empty()


# Limits.


def test_values_that_nobody_reads_go_to_disk(tmp_path: Path) -> None:
    pair = Pair(memory=2_000_000, disk=4_000_000, folder=str(tmp_path))
    refs = [pair.put(make(n)) for n in range(5)]
    assert [ref.place for ref in refs] == ["disk"] * 3 + ["memory"] * 2
    assert repr(refs[0]).endswith("781.2 KiB on disk>") or "on disk" in repr(refs[0])
    assert [ref.get()[0] for ref in refs] == [0, 1, 2, 3, 4]
    assert [pair.run(lambda a: a[0], pair.hand_on(ref)) for ref in refs] == [0, 1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    assert len(pair.store.room.notices) == 1
    assert str(tmp_path) in pair.store.room.notices[0]
    facts = pair.store.describe_memory([])
    assert facts.spilled >= 3 * LARGE * 8
    assert facts.used <= facts.limit
    del refs
    pair.check_empty()


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    pair = Pair(memory=2_500_000, folder=str(tmp_path))
    refs = [pair.put(make(n)) for n in range(3)]
    refs[0].get()
    pair.run(lambda a: None, pair.hand_on(refs[1]))
    more = pair.put(make(3))
    assert [ref.place for ref in (*refs, more)] == ["memory", "memory", "disk", "memory"]
    del refs, more
    pair.check_empty()


def test_what_is_read_stays(tmp_path: Path) -> None:
    pair = Pair(memory=2_500_000, folder=str(tmp_path))
    ref = pair.put(make(1))
    ours = ref.get()
    theirs: list[Any] = []
    sent_ref = pair.put(make(2))
    pair.run(theirs.append, pair.hand_on(sent_ref))
    others = [pair.put(make(n)) for n in range(5)]
    assert (ref.place, sent_ref.place) == ("memory", "memory")
    assert ours[0] == 1 and theirs[0][0] == 2
    del ours
    theirs.clear()
    pair.settle()
    others.append(pair.put(make(9)))
    others.append(pair.put(make(9)))
    assert "disk" in (ref.place, sent_ref.place)
    del ref, sent_ref, others
    pair.check_empty()


def test_workers_results_go_to_disk_too(tmp_path: Path) -> None:
    pair = Pair(memory=2_000_000, folder=str(tmp_path), workers=2)
    payloads = [pair.call(make, n, worker=1 + n % 2) for n in range(6)]
    assert pair.store.room.live <= 2_000_000
    results = []
    for payload in payloads:
        results.append(pair.store.load(payload)[0])
    assert results == [0, 1, 2, 3, 4, 5]
    sums = [pair.run(lambda a: a[0], pair.hand_on(payload)) for payload in payloads]
    assert sums == [0, 1, 2, 3, 4, 5]
    del payloads, payload
    pair.check_empty()


def test_results_from_disk_are_the_callers_own(tmp_path: Path) -> None:
    pair = Pair(memory=1_000_000, folder=str(tmp_path))
    payloads = [pair.call(make, n) for n in range(3)]
    arrays = [pair.store.load(payload) for payload in payloads]
    for array in arrays:
        array[0] = -1
    again = [pair.store.load(payload)[0] for payload in payloads[:2]]
    assert again == [0, 1]
    del payloads, arrays, array
    pair.check_empty()


def test_written_values_go_to_disk_and_stay_shared(tmp_path: Path) -> None:
    pair = Pair(memory=1_700_000, folder=str(tmp_path), workers=2)
    ref = pair.put(make(), writable=True)

    def write(array: Any) -> None:
        array[0] += 1

    pair.run(write, pair.hand_on(ref))
    others = [pair.put(make(n)) for n in range(3)]
    assert ref.place == "disk"
    pair.run(write, pair.hand_on(ref))
    pair.run(write, pair.hand_on(ref), worker=2)
    assert ref.get()[0] == 3
    del ref, others
    pair.check_empty()


def test_where_all_is_full_it_says_what_is_there(tmp_path: Path) -> None:
    pair = Pair(memory=2_100_000, disk=0, folder=str(tmp_path))
    ref = pair.put(make())
    array = ref.get()
    waiting = make(5, 50_000)
    payload = pair.dump(waiting)
    with pytest.raises(StoreFullError) as caught:
        pair.put(make(0, 2 * LARGE))
    text = str(caught.value)
    assert isinstance(caught.value, MemoryError)
    assert "1.5 MiB more do not fit" in text
    assert f"ndarray float64 {LARGE}" in text
    assert "a ref of this program" in text and "an array of this program" in text
    assert str(tmp_path) in text
    assert (pair.put(make(1)).get() == make(1)).all(), "what fits still does"
    del ref, array, payload, waiting
    pair.check_empty()


def test_an_error_amid_a_dump_leaves_nothing(tmp_path: Path) -> None:
    pair = Pair(memory=2_000_000, disk=0, folder=str(tmp_path))
    values = [make(n) for n in range(4)]
    with pytest.raises(StoreFullError):
        pair.dump(values)
    with pytest.raises(StoreFullError):
        pair.put(values)
    with pytest.raises(StoreFullError):
        pair.call(lambda: [make(n) for n in range(4)])
    with pytest.raises(pickle.PicklingError):
        pair.dump(make(), threading.Lock())
    gc.collect()
    pair.check_empty()


def test_a_dump_that_fails_within_leaves_nothing(pair: Pair) -> None:
    with pytest.raises(pickle.PicklingError):
        pair.dump([make(), {"lock": threading.Lock()}, pair.put(make(2))])
    with pytest.raises(pickle.PicklingError):
        pair.put({"a": make(), "lock": threading.Lock()})
    sent = pair.pack(pair.dump(make()))
    pair.receive(sent)
    with pytest.raises(pickle.PicklingError):
        pair.answer(sent, [make(1), threading.Lock()])
    pair.answer(sent, None)
    gc.collect()


def test_a_disk_that_takes_nothing_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(memory=1_000_000, folder=str(tmp_path))
    refs = [pair.put(make())]
    monkeypatch.setattr(os, "open", fail)
    monkeypatch.setattr("tempfile.mkstemp", fail)
    with pytest.raises(StoreFullError):
        refs.append(pair.put(make()))
    assert refs[0].get()[5] == 5
    refs.clear()
    pair.check_empty()


def fail(*args: Any, **kwargs: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_before_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(memory=1_700_000, folder=str(tmp_path))
    refs = [pair.put(make(n)) for n in range(3)]
    assert refs[0].place == "disk"
    real = os.pwrite
    disk = pair.store.room.heaps[-1].fd

    def write(fd: int, *args: Any) -> int:
        return fail() if fd == disk else real(fd, *args)  # type: ignore[no-any-return]

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(StoreFullError):
        refs.append(pair.put(make(3)))
    assert [ref.get()[0] for ref in refs] == [0, 1, 2]
    refs.clear()
    pair.check_empty()


def test_memory_that_the_system_refuses_is_not_taken_for_warm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair()
    with monkeypatch.context() as context:
        context.setattr(os, "pwrite", fail)
        with pytest.raises(StoreFullError, match="No space left"):
            pair.put(make())
        with pytest.raises(StoreFullError):
            pair.call(make)
    gc.collect()
    pair.settle()
    assert pair.store.room.warm == 0
    space = pair.shelves[1]._space
    assert space is None or space.warm == 0
    pair.check_empty()


# Workers that end.


def test_a_lost_worker_holds_nothing(pair: Pair) -> None:
    ref = pair.put(make())
    refs = [pair.put(n) for n in range(1000)]
    pair.pack(pair.dump({ref}, make(1)))
    pair.pack(pair.dump(set(refs)))
    pair.store.lose(1)
    assert pair.list_held() == []
    assert pair.count_uses() == 0
    pair.shelves.pop(1)


def test_the_results_of_a_lost_worker_are_kept(pair: Pair) -> None:
    payloads = [pair.call(make, n) for n in range(4)]
    array = pair.store.load(payloads[1])
    lost = [payloads.pop(0)]
    pair.shelves.pop(1)
    lost.clear()
    pair.store.lose(1)
    assert [pair.store.load(payload)[0] for payload in payloads] == [1, 2, 3]
    assert pair.run(lambda a: a[5], pair.hand_on(payloads[2]), worker=2) == 8
    assert array[5] == 6
    del payloads, array
    pair.settle()
    assert 1 not in pair.store.room.heaps, "nobody needs its heap any more"


def test_a_value_may_go_while_its_worker_does(pair: Pair) -> None:
    payloads = [pair.call(make)]
    room = pair.store.room
    payloads.clear()  # after the store has swept, and before it closes the heap
    room.lose(1, [])
    room.sweep()
    assert room.live == 0
    pair.shelves.pop(1)


def test_drops_of_what_is_unknown_are_passed_over(pair: Pair) -> None:
    pair.store.drop(1, [12345])
    pair.store.take_back(7, [12345])
    pair.store.lose(9)
    assert pair.store.take_freed(9) == []
    pair.store.put_back_freed(9, [1])
    assert pair.store.take_freed(9) == []


def test_what_a_worker_was_not_told_is_told_again(pair: Pair) -> None:
    pair.run(make)
    freed = pair.store.take_freed(1)
    assert len(freed) == 1
    assert pair.store.take_freed(1) == []
    pair.store.put_back_freed(1, freed)
    assert pair.store.has_freed()
    assert pair.store.take_freed(1) == freed
    pair.shelves[1].free(freed)


# Reports and the end.


def test_holders_are_named(pair: Pair) -> None:
    ref = pair.put(make())
    array = ref.get()
    kept: list[Any] = []
    pair.run(kept.append, pair.hand_on(ref))
    source = make(1)
    waiting = pair.dump(source)
    result = pair.call(make)
    facts = {fact.kind: fact for fact in pair.store.list_facts([("sum", waiting)])}
    assert set(facts[f"ndarray float64 {LARGE}"].holders) == {
        "a ref of this program",
        "an array of this program",
        "worker 1",
    }
    argument = facts[next(kind for kind in facts if kind.startswith("an argument"))]
    assert set(argument.holders) == {
        "a waiting call of sum",
        "kept in case that it is sent again",
    }
    assert facts["a result"].holders == ("a result or call",)
    assert all(fact.nbytes >= LARGE * 8 and fact.place == "memory" for fact in facts.values())
    kept.clear()
    del array, result


def test_after_the_end_arrays_can_be_read(pair: Pair) -> None:
    ref, other = pair.put(make(1)), pair.put(make(2))
    array = ref.get()[5:]
    private = pair.put(make(3), copy=True).get()
    result = pair.run(make, 4)
    unread = pair.call(make, 5)
    gone = pair.call(make, 6)
    del gone
    fd = pair.store.room.heaps[0].fd
    pair.store.close()
    assert array[0] == 6 and private[0] == 3 and result[0] == 4
    private[0] = result[0] = 9
    assert pair.store.load(unread)[0] == 5
    assert (ref.place, other.place) == ("gone", "gone")
    assert "gone with its session" in repr(ref)
    with pytest.raises(SessionClosedError, match="the session that stored it is closed"):
        other.get()
    assert not Path(f"/proc/self/fd/{fd}").exists()
    facts = pair.store.describe_memory([])
    assert facts.used == sum(fact.nbytes for fact in facts.values)
    assert all(fact.holders for fact in facts.values)


def test_after_the_end_nothing_is_left_when_the_arrays_go() -> None:
    pair = Pair()
    array = pair.put(make()).get()
    watch = weakref.ref(pair.store.room.heaps[0])
    pair.store.close()
    del pair
    assert array[5] == 5
    gc.collect()
    del array
    gc.collect()
    assert watch() is None


def test_a_closed_store_gives_memory_back() -> None:
    pair = Pair()
    refs = [pair.put(make(n)) for n in range(3)]
    array = refs[1].get()
    heap = pair.store.room.heaps[0]
    probe = os.dup(heap.fd)
    try:
        before = os.fstat(probe).st_blocks
        pair.store.close()
        assert os.fstat(probe).st_blocks <= before / 3 + 8 * PAGE // 512
        assert array[0] == 1
    finally:
        os.close(probe)


# Threads.


def test_threads_keep_and_drop_at_the_same_time() -> None:
    pair = Pair(memory=3_000_000, disk=1 << 27, workers=4)
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work(worker: int) -> None:
        rng = np.random.default_rng(worker)
        refs: list[Any] = []
        try:
            barrier.wait()
            for n in range(40):
                array = make(worker * 1000 + n, int(rng.integers(3000, 40_000)))
                got = pair.run(lambda a: a + 1, array, worker=worker)
                assert (got == array + 1).all()
                refs.append((pair.put(array), array[0]))
                if len(refs) > 5:
                    ref, first = refs.pop(int(rng.integers(len(refs))))
                    assert ref.get()[0] == first
                    total = pair.run(lambda a: a.sum(), pair.hand_on(ref), worker=worker)
                    assert total == ref.get().sum()
                    del ref
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    gc.collect()
    pair.check_empty()
