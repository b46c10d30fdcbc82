"""Values kept as the objects that they are."""

import threading
import weakref
from typing import Any

import pytest

from manyhands.core import place
from manyhands.core.objects import ObjectStore, Snapshot
from manyhands.core.refs import Ref
from manyhands.errors import InvalidArgumentError


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore()


class Thing:
    """Can be watched."""


def test_the_object_itself_is_kept(store: ObjectStore) -> None:
    value = [1, 2]
    ref = store.put(value, writable=False, copy=False)
    assert ref.get() is value
    assert (ref.type_name, ref.nbytes, ref.place) == ("list", 0, "memory")
    assert repr(ref) == f"<Ref {ref.id}: list, kept as the object that it is>"


def test_what_all_may_write_is_the_object_too(store: ObjectStore) -> None:
    value = bytearray(b"abc")
    assert store.put(value, writable=True, copy=False).get() is value


def test_a_copy_for_each_reader(store: ObjectStore) -> None:
    value = [[1], [2]]
    ref = store.put(value, writable=False, copy=True)
    first, second = ref.get(), ref.get()
    first[0].append(9)
    assert second == value == [[1], [2]]
    assert second[0] is not value[0]


def test_a_copy_may_hold_refs_and_what_cannot_be_pickled(store: ObjectStore) -> None:
    inner = store.put(1, writable=False, copy=False)
    assert store.put([inner], writable=False, copy=True).get()[0] is inner
    function = lambda: None  # noqa: E731
    assert store.put([function], writable=False, copy=True).get()[0] is function


def test_lock_is_no_obstacle_where_nothing_is_copied(store: ObjectStore) -> None:
    lock = threading.Lock()
    assert store.put(lock, writable=False, copy=False).get() is lock


def test_both_ways_exclude_each_other(store: ObjectStore) -> None:
    with pytest.raises(InvalidArgumentError, match="exclude each other"):
        store.put(1, writable=True, copy=True)


def test_ids_differ_over_all_stores(store: ObjectStore) -> None:
    refs = [one.put(0, writable=False, copy=False) for one in (store, ObjectStore(), store)]
    assert len({ref.id for ref in refs}) == 3


def test_the_value_goes_with_its_last_ref(store: ObjectStore) -> None:
    value = Thing()
    watch = weakref.ref(value)
    ref = store.put(value, writable=False, copy=False)
    del value
    assert watch() is ref.get()
    del ref
    assert watch() is None


def test_results_are_handed_on_as_they_are(store: ObjectStore) -> None:
    value = object()
    assert store.forward(value) is value
    ref = store.put(value, writable=False, copy=False)
    assert store.forward(ref.record) is value
    assert store.forward(ref) is ref, "a result that is a ref stays one"


def test_nothing_is_stored(store: ObjectStore) -> None:
    ref = store.put(bytes(10**6), writable=False, copy=False)
    facts = store.describe_memory()
    assert (facts.limit, facts.used, facts.values) == (0, 0, [])
    assert store.allocate(100) is None
    assert ref.record.keeper.hand_out(ref.record).get() is ref.get()


class FakePutter:
    """The store of the session that this worker belongs to."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def put(self, value: Any, *, writable: bool, copy: bool) -> Any:
        self.log.append((value, writable, copy))
        return "a ref of the outer session"

    def allocate(self, size: int) -> Any:
        return bytearray(size)


def test_in_a_worker_the_outer_sessions_store_is_used(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    putter = FakePutter()
    monkeypatch.setattr(place, "putter", putter)
    assert store.put([1], writable=False, copy=True) == "a ref of the outer session"
    assert putter.log == [([1], False, True)]
    assert len(store.allocate(10)) == 10
    with pytest.raises(InvalidArgumentError):
        store.put(1, writable=True, copy=True)


def test_refs_of_threads_are_their_own(store: ObjectStore) -> None:
    refs: list[Ref[Any]] = []

    def put() -> None:
        refs.extend(store.put(n, writable=False, copy=False) for n in range(200))

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({ref.id for ref in refs}) == 800


def test_a_result_is_itself(store: ObjectStore) -> None:
    value = [1]
    assert store.load(value) == (value, None)


def test_a_snapshot_is_what_the_value_was() -> None:
    value = {"names": ["a"]}
    snapshot = Snapshot(value)
    value["names"].append("b")
    first, second = snapshot.restore(), snapshot.restore()
    assert first == second == {"names": ["a"]}
    first["names"].append("c")
    assert snapshot.restore() == {"names": ["a"]}


def test_a_snapshot_of_what_cannot_be_pickled_is_the_value() -> None:
    value = threading.Lock()
    assert Snapshot(value).restore() is value
