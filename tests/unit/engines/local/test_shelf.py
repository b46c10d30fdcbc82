"""A worker's side of what processes share, with a store that lives in this process."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manyhands.core.parcels import Parcel
from manyhands.engines.local import messages as m
from manyhands.engines.local.shelf import Shelf
from manyhands.errors import InvalidArgumentError, StoreFullError
from tests.unit.engines.local.sharing import Pair, Sent

LARGE = 10_000


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.check_empty()


@pytest.fixture
def shelf(pair: Pair) -> Shelf:
    return pair.shelves[1]


def make(value: float = 0, size: int = LARGE) -> Any:
    return np.arange(size) + float(value)


def list_sent(pair: Pair, kind: int) -> list[tuple[Any, ...]]:
    return [message for message in pair.channels[1].sent if message[0] == kind]


def test_a_heap_is_made_when_it_is_needed(pair: Pair, shelf: Shelf) -> None:
    pair.run(lambda: [1, "x", make(0, 100)])
    assert pair.channels[1].sent == []
    pair.run(make)
    pair.run(make, 2)
    assert [message[:2] for message in pair.channels[1].sent] == [(m.HEAP, 1)]


def test_ids_tell_who_gave_them(pair: Pair) -> None:
    payload = pair.call(make)
    assert isinstance(payload, Parcel)
    assert payload.buffers[0].value.id >> 40 == 1  # type: ignore[union-attr]


def test_unknown_heaps_are_noticed(pair: Pair, shelf: Shelf) -> None:
    ref = pair.put({pair.put(make())})
    for payload in (pair.dump(make()), pair.dump({ref}), pair.dump(pair.hand_on(ref))):
        packed = Pair.pack.__get__(pair)(payload)
        fresh = Shelf(pair.channels[1], pair.words[1], 1)  # type: ignore[arg-type]
        assert not fresh.knows(packed.packed)
        assert shelf.knows(packed.packed)
        assert shelf.knows(b"pickle")
        pair.store.take_back(1, packed.uses)


def test_views_are_reported_when_they_go(pair: Pair, shelf: Shelf) -> None:
    sent = pair.pack(pair.dump(make(), make(1)))
    first, second = pair.receive(sent)
    part = first[10:]
    del first, second
    dropped = shelf.end_message(sent.uses)
    assert len(dropped) == 1
    assert shelf.take_gone() == []
    more = part[::2]
    del part
    assert shelf.take_gone() == []
    assert more[0] == 10
    del more
    assert sorted(dropped + shelf.take_gone()) == sorted(sent.uses)
    pair.store.drop(1, sent.uses)


def test_what_was_sent_often_is_dropped_as_often(pair: Pair, shelf: Shelf) -> None:
    array = make()
    kept: list[Any] = []
    for _ in range(3):
        sent = pair.pack(pair.dump(array))
        kept += pair.receive(sent)
        assert shelf.end_message(sent.uses) == []
    pair.store.drop(1, dropped := shelf.take_gone())
    assert dropped == []
    kept.clear()
    dropped = shelf.take_gone()
    assert sorted(dropped) == sent.uses * 3
    pair.store.drop(1, dropped)
    assert pair.count_uses() == 0


def test_what_comes_again_before_it_was_reported_stays(pair: Pair, shelf: Shelf) -> None:
    array = make()
    sent = pair.pack(pair.dump(array))
    kept = list(pair.receive(sent))
    assert shelf.end_message(sent.uses) == []
    kept.clear()
    again = pair.pack(pair.dump(array))
    kept += pair.receive(again)
    assert shelf.end_message(again.uses) == []
    assert kept[0][5] == 5
    kept.clear()
    pair.store.drop(1, shelf.take_gone())
    assert pair.count_uses() == 0


def test_functions_pin_what_they_need(pair: Pair, shelf: Shelf) -> None:
    sent = pair.pack(pair.dump(make()))
    shelf.pin(sent.uses)
    assert shelf.take_gone() == []
    (array,) = pair.receive(sent)
    del array
    assert shelf.take_gone() == []
    shelf.unpin(sent.uses)
    dropped = shelf.take_gone()
    assert dropped == sent.uses
    pair.store.drop(1, dropped)


def test_two_functions_may_need_the_same(pair: Pair, shelf: Shelf) -> None:
    array = make()
    one, other = (pair.pack(pair.dump(array, n)) for n in range(2))
    shelf.pin(one.uses)
    shelf.pin(other.uses)
    shelf.unpin(one.uses)
    assert shelf.take_gone() == []
    (kept, _) = pair.receive(other)
    shelf.unpin(other.uses)
    assert shelf.take_gone() == []
    del kept
    dropped = shelf.take_gone()
    assert sorted(dropped) == sorted(one.uses + other.uses)
    pair.store.drop(1, dropped)


def test_a_value_that_is_not_read_is_dropped(pair: Pair, shelf: Shelf) -> None:
    ref = pair.put(make())
    sent = pair.pack(pair.dump({ref}))
    arguments = pair.receive(sent)
    del arguments
    assert sorted(shelf.end_message(sent.uses)) == [ref.id]
    pair.store.drop(1, [ref.id])


def test_memory_of_results_is_used_again(pair: Pair, shelf: Shelf) -> None:
    starts = set()
    for n in range(5):
        payload = pair.call(make, n)
        assert isinstance(payload, Parcel)
        starts.add(payload.buffers[0].value.start)  # type: ignore[union-attr]
        del payload
    assert len(starts) <= 2


def test_memory_of_what_a_call_puts_and_drops_is_used_again_at_once(
    pair: Pair, shelf: Shelf
) -> None:
    for n in range(8):
        shelf.put(make(n), writable=False, copy=False)
    assert shelf._space is not None
    assert len(shelf._space.list_blocks()) + len(shelf._space._warm) <= 2
    pair.call(make)  # the parent hears nothing of them
    assert len(pair.list_values()) <= 1


def test_rest_gives_memory_back(pair: Pair, shelf: Shelf) -> None:
    pair.run(make)
    pair.settle()
    assert shelf._space is not None and shelf._space.warm > 0
    shelf.rest()
    assert shelf._space.warm == 0


def test_the_parent_is_asked_for_room(tmp_path: Path) -> None:
    pair = Pair(memory=200_000, folder=str(tmp_path))
    refs = [pair.put(make(n)) for n in range(2)]
    pair.tell_room(1)
    result = pair.run(make, 5)
    assert result[0] == 5
    assert list_sent(pair, m.NEED_ROOM)
    assert "disk" in [ref.place for ref in refs]
    del refs, result
    pair.check_empty()


def test_where_nothing_fits_the_call_fails(tmp_path: Path) -> None:
    pair = Pair(memory=100_000, disk=0, folder=str(tmp_path))
    with pytest.raises(StoreFullError, match="fits neither into the store's memory nor onto"):
        pair.call(make, 0, 20_000)
    with pytest.raises(StoreFullError):
        pair.shelves[1].put(make(0, 20_000), writable=False, copy=False)
    with pytest.raises(StoreFullError):
        pair.shelves[1].allocate(200_000)
    assert (pair.run(make) == make()).all()
    gc.collect()
    pair.check_empty()


def test_a_result_that_cannot_be_told_is_freed(tmp_path: Path) -> None:
    """Whatever becomes of a large result while it is packed, nothing of it stays."""
    pair = Pair(memory=1_000_000, disk=0, folder=str(tmp_path))
    shelf = pair.shelves[1]
    result = shelf.dump([make(n, 3000) for n in range(8)] + list(range(1000)))
    pair.words[1][m.ROOM] = 0
    try:
        packed, born = shelf.pack(result)
    except StoreFullError:
        pass
    else:
        pair.store.unpack([packed], 1, born)
    del result
    gc.collect()
    pair.check_empty()


def test_refs_for_writing_are_the_callers(pair: Pair, shelf: Shelf) -> None:
    for options in ({"writable": True, "copy": False}, {"writable": False, "copy": True}):
        with pytest.raises(InvalidArgumentError, match="outside of calls"):
            shelf.put(1, **options)


def test_a_ref_in_a_worker_tells_what_it_is(pair: Pair, shelf: Shelf) -> None:
    ref = shelf.put(make(), writable=False, copy=False)
    assert ref.place == "memory"
    assert ref.type_name == f"ndarray float64 {LARGE}"
    assert ref.nbytes >= LARGE * 8
    assert "78." in repr(ref)
    assert (ref.get() == make()).all()
    assert not ref.get().flags.writeable
    text: list[str] = []
    theirs = pair.put(make())
    pair.run(lambda box: text.append(repr(next(iter(box)))), {theirs})
    assert text[0].startswith(f"<Ref {theirs.id}: ndarray float64 {LARGE}, 78.")


def test_refs_are_not_counted_for_ever(pair: Pair, shelf: Shelf) -> None:
    sizes = []
    for _ in range(3):
        for _ in range(50):
            pair.run(lambda: shelf.put(1, writable=False, copy=False))
        pair.settle()
        tables = [value for value in vars(shelf).values() if hasattr(value, "__len__")]
        sizes.append(sum(map(len, tables)))
    assert sizes[0] == sizes[2]


class PutsItself:
    """Has its large part stored when it is pickled."""

    shelf: Any = None

    def __reduce__(self) -> Any:
        return tuple, ([self.shelf.put(make(3), writable=False, copy=False)],)


def test_what_is_pickled_may_put(pair: Pair, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PutsItself, "shelf", shelf)
    one, (two,) = pair.run(lambda: [shelf.put(1, writable=False, copy=False), PutsItself()])
    assert (one.get(), two.get()[0]) == (1, 3)


def test_arrays_made_shared(pair: Pair, shelf: Shelf) -> None:
    array = np.ndarray(LARGE, buffer=shelf.allocate(LARGE * 8))
    assert array.flags.writeable
    assert array.ctypes.data % 64 == 0
    array[:] = 3
    watch = array[5:]
    del array
    assert watch[0] == 3
    del watch


def test_arrays_may_go_while_others_are_packed(pair: Pair, shelf: Shelf) -> None:
    """The garbage collector, or a thread of the user's, lets go of views at any moment."""

    class Knot:
        pass

    def tie(*arrays: Any) -> Any:
        for array in arrays:
            knot = Knot()
            knot.array, knot.knot = array, knot  # type: ignore[attr-defined]
        return make()

    threshold = gc.get_threshold()
    arrays = [make(n, 2100) for n in range(100)]
    try:
        gc.set_threshold(1)
        for _ in range(3):
            pair.run(tie, *arrays)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()


def test_threads_of_a_call_let_go_of_arrays(pair: Pair, shelf: Shelf) -> None:
    arrays = [make(n, 2100) for n in range(100)]
    errors: list[BaseException] = []
    for _ in range(5):
        sent = pair.pack(pair.dump(*arrays))
        kept = list(pair.receive(sent))
        results: list[Any] = []

        def drop(kept: list[Any] = kept) -> None:
            try:
                while kept:
                    kept.pop()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=drop)
        thread.start()
        results += [shelf.dump(make(n, 2100)) for n in range(20)]
        thread.join()
        del kept
        results.clear()
        pair.store.drop(1, shelf.end_message(sent.uses))
    assert not errors


# All together.


class Sharing(RuleBasedStateMachine):
    """Values go here and there in all ways; each is read as it was stored, and nothing stays."""

    memory = 600_000

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(self.memory, 1 << 26, workers=2)
        self.numbers = 0
        self.next_worker = 3
        self.refs: list[tuple[Any, float]] = []  # with the first element of what they stand for
        self.nested: list[tuple[Any, float]] = []  # refs of sets of a ref
        self.arrays: list[tuple[Any, float]] = []  # of the program
        self.results: list[tuple[Any, float]] = []  # not read yet
        self.queue: list[tuple[Any, float]] = []  # packed arguments of calls
        self.inflight: list[tuple[Sent, float]] = []
        self.kept: dict[int, list[tuple[Any, float]]] = {1: [], 2: []}  # arrays, in workers
        self.kept_refs: dict[int, list[tuple[Any, float]]] = {1: [], 2: []}

    def make(self, data: st.DataObject) -> tuple[Any, float]:
        self.numbers += 1
        size = data.draw(st.sampled_from([10, 2100, 5000, 20_000]))
        return make(self.numbers * 1000, size), self.numbers * 1000

    def choose(self, data: st.DataObject, values: list[Any]) -> Any:
        return values[data.draw(st.integers(0, len(values) - 1))]

    def choose_worker(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.pair.shelves)))

    # What the program does.

    @rule(data=st.data(), copy=st.booleans())
    def put(self, data: st.DataObject, copy: bool) -> None:
        array, first = self.make(data)
        self.refs.append((self.pair.put(array, copy=copy), first))

    @precondition(lambda self: self.refs)
    @rule(data=st.data())
    def put_a_ref(self, data: st.DataObject) -> None:
        ref, first = self.choose(data, self.refs)
        self.nested.append((self.pair.put({ref}), first))

    @precondition(lambda self: self.refs)
    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        ref, first = self.choose(data, self.refs)
        array = ref.get()
        assert array[0] == first
        self.arrays.append((array, first))

    @precondition(lambda self: self.results)
    @rule(data=st.data())
    def read_a_result(self, data: st.DataObject) -> None:
        payload, first = self.choose(data, self.results)
        array = self.pair.store.load(payload)
        assert array[0] == first
        array[1] = -1
        self.arrays.append((array, first))

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        for values in (self.refs, self.nested, self.arrays, self.results, self.queue):
            if values and data.draw(st.booleans()):
                del values[data.draw(st.integers(0, len(values) - 1))]

    # Calls.

    @rule(data=st.data())
    def submit_an_array(self, data: st.DataObject) -> None:
        array, first = self.choose(data, self.arrays) if self.arrays else self.make(data)
        self.queue.append((self.pair.dump(array), first))

    @precondition(lambda self: self.refs or self.results)
    @rule(data=st.data())
    def submit_what_is_stored(self, data: st.DataObject) -> None:
        handle, first = self.choose(data, self.refs + self.results)
        self.queue.append((self.pair.dump(self.pair.hand_on(handle)), first))

    @precondition(lambda self: self.refs or self.nested)
    @rule(data=st.data())
    def submit_a_ref(self, data: st.DataObject) -> None:
        ref, first = self.choose(data, self.refs + self.nested)
        self.queue.append((self.pair.dump({ref}), first))

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        payload, first = self.queue.pop(0)
        self.inflight.append((self.pair.pack(payload, self.choose_worker(data)), first))

    @precondition(lambda self: self.inflight)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        sent, _ = self.inflight.pop()
        self.pair.store.put_back_freed(sent.worker, sent.freed)
        self.pair.store.take_back(sent.worker, sent.uses)

    @precondition(lambda self: self.inflight)
    @rule(
        data=st.data(),
        keeps=st.booleans(),
        returns=st.sampled_from(["nothing", "it", "a part", "a new one", "a ref", "kept"]),
    )
    def work(self, data: st.DataObject, keeps: bool, returns: str) -> None:
        sent, first = self.inflight.pop(0)
        (value,) = self.pair.receive(sent)
        kept, kept_refs = self.kept[sent.worker], self.kept_refs[sent.worker]
        while isinstance(value, set):
            (value,) = value
            if keeps:
                kept_refs.append((value, first))
            value = value.get()
        assert value[0] == first
        if keeps:
            kept.append((value[:5], first))
        shelf = self.pair.shelves[sent.worker]
        result = None
        if returns == "it":
            result = value
        elif returns == "a part":
            result = value[0:7]
        elif returns == "a new one":
            result = value + 1000
            first += 1000
        elif returns == "a ref":
            result = {shelf.put(value, writable=False, copy=False)}
            if keeps:
                kept_refs.append((next(iter(result)), first))
        elif returns == "kept" and kept_refs:
            ref, first = self.choose(data, kept_refs)
            result = {ref}
            del ref
        box = [result]
        del value, result
        payload = self.pair.answer(sent, box.pop())
        if returns in ("it", "a part", "a new one"):
            self.results.append((payload, first))
        elif (loaded := self.pair.store.load(payload)) is not None:
            ref = next(iter(loaded))
            while isinstance(ref.get(), set):
                ref = next(iter(ref.get()))
            self.refs.append((ref, first))

    @rule(data=st.data())
    def read_what_was_kept(self, data: st.DataObject) -> None:
        for worker in self.pair.shelves:
            for array, first in self.kept[worker]:
                assert array[0] == first
            for ref, first in self.kept_refs[worker]:
                value = ref.get()
                while isinstance(value, set):
                    value = next(iter(value)).get()
                assert value[0] == first

    @rule(data=st.data())
    def forget_what_was_kept(self, data: st.DataObject) -> None:
        worker = self.choose_worker(data)
        for values in (self.kept[worker], self.kept_refs[worker]):
            if values:
                del values[data.draw(st.integers(0, len(values) - 1))]
        self.pair.store.drop(worker, self.pair.shelves[worker].take_gone())

    @rule(data=st.data())
    def lose_a_worker(self, data: st.DataObject) -> None:
        worker = self.choose_worker(data)
        self.inflight = [(sent, first) for sent, first in self.inflight if sent.worker != worker]
        self.kept[worker].clear()
        self.kept_refs[worker].clear()
        self.pair.shelves.pop(worker)
        self.pair.store.lose(worker)
        self.pair.add_worker(self.next_worker)
        self.kept[self.next_worker], self.kept_refs[self.next_worker] = [], []
        self.next_worker += 1

    @rule()
    def rest(self) -> None:
        self.pair.store.rest()
        for worker, shelf in self.pair.shelves.items():
            shelf.free(self.pair.store.take_freed(worker))
            self.pair.store.drop(worker, shelf.take_gone())
            shelf.rest()

    @invariant()
    def what_the_program_has_is_as_it_was(self) -> None:
        for array, first in self.arrays:
            assert array[0] == first

    @invariant()
    def accounts_are_right(self) -> None:
        room = self.pair.store.room
        room.sweep()
        rounded = [(value, -(-value.size // 4096) * 4096) for value in self.pair.list_values()]
        assert room.live == sum(size for value, size in rounded if not value.is_on_disk)
        assert room.on_disk == sum(size for value, size in rounded if value.is_on_disk)
        for space in room._spaces.values():
            space.validate()

    def teardown(self) -> None:
        for sent, _ in self.inflight:
            self.pair.store.take_back(sent.worker, sent.uses)
            self.pair.store.put_back_freed(sent.worker, sent.freed)
        for values in (self.refs, self.nested, self.arrays, self.results, self.queue):
            values.clear()
        for worker in self.kept:
            self.kept[worker].clear()
            self.kept_refs[worker].clear()
        self.inflight.clear()
        assert self.pair.count_uses() >= 0
        self.pair.check_empty()
        self.pair.store.close()


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=40, stateful_step_count=40)
