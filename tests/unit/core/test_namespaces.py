"""Globals of code that travels by value, shared by the functions of a module."""

import functools
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest

from manyhands.core.namespaces import Identities, enter_namespace, select_new
from manyhands.core.serialize import Serializer
from tests.unit.core.shelves import FakeShelf
from tests.unit.core.workers import FakeWorker

data: Any = None
factor = 2


def set_data(value: Any) -> None:
    global data
    data = value


def get_data() -> Any:
    return data


def get_factor() -> int:
    return factor


class Register:
    """A class whose attribute an initializer sets."""

    entries: list[int] = []  # noqa: RUF012 - what is tested

    def add(self, entry: int) -> list[int]:
        self.entries.append(entry)
        return list(self.entries)


def make_register() -> Register:
    return Register()


@functools.lru_cache(maxsize=7)
def cached(x: int) -> int:
    return x * 10


def is_by_value(module: str) -> bool:
    return module == __name__


@pytest.fixture
def serializer() -> Serializer:
    return Serializer(is_by_value)


Send = Callable[[Serializer, Any], Any]


@pytest.fixture
def send(worker: FakeWorker) -> Send:
    """Pickles a value here, and gives what the worker has of it."""
    return lambda serializer, value: worker.load(serializer.dump(value, "it"))


def test_what_one_function_sets_another_finds(serializer: Serializer, send: Send) -> None:
    send(serializer, set_data)(5)
    assert send(serializer, get_data)() == 5
    assert data is None, "here nothing was set"


def test_what_the_worker_set_stays_when_the_same_comes_again(
    serializer: Serializer, send: Send
) -> None:
    fetch = send(serializer, get_data)
    send(serializer, set_data)(5)
    assert fetch() == 5
    assert send(serializer, get_data)() == 5


def test_what_the_parent_changed_arrives(
    serializer: Serializer, monkeypatch: pytest.MonkeyPatch, send: Send
) -> None:
    send(serializer, set_data)(5)
    assert send(serializer, get_factor)() == 2
    monkeypatch.setattr(f"{__name__}.factor", 3)
    assert send(serializer, get_factor)() == 3
    assert send(serializer, get_data)() == 5, "and leaves the rest alone"


def test_a_value_changed_in_place_arrives(
    serializer: Serializer, monkeypatch: pytest.MonkeyPatch, send: Send
) -> None:
    values = [1]
    monkeypatch.setattr(f"{__name__}.data", values)
    assert send(serializer, get_data)() == [1]
    values.append(2)
    assert send(serializer, get_data)() == [1, 2]


def test_modules_do_not_share(serializer: Serializer, send: Send) -> None:
    one: dict[str, Any] = {"__name__": "one", "value": 1}
    two: dict[str, Any] = {"__name__": "two", "value": 2}
    for space in (one, two):
        exec("def fetch(): return value", space)
    assert [send(serializer, space["fetch"])() for space in (one, two)] == [1, 2]


def test_a_class_that_comes_again_keeps_what_it_holds(
    serializer: Serializer, monkeypatch: pytest.MonkeyPatch, worker: FakeWorker
) -> None:
    payloads = [serializer.dump(make_register, "it") for _ in range(2)]
    # In this process cloudpickle would find the class that it pickled.
    monkeypatch.setattr(
        cloudpickle.cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_ID", weakref.WeakValueDictionary()
    )
    first, again = (worker.load(payload)() for payload in payloads)
    assert type(again) is type(first) is not Register
    assert first.add(1) == [1]
    assert worker.load(payloads[0])().add(2) == [1, 2]
    assert Register.entries == []


def test_a_cached_function_travels_with_its_parameters_and_without_its_cache(
    serializer: Serializer, send: Send
) -> None:
    cached(1)
    loaded = send(serializer, cached)
    assert loaded is not cached
    assert loaded.cache_parameters()["maxsize"] == 7
    assert loaded.cache_info().currsize == 0
    assert loaded(4) == 40


def test_tokens_tell_values_apart() -> None:
    identities = Identities(pickle.dumps)
    assert identities.identify(get_data) == identities.identify(get_data)
    assert identities.identify(get_data) != identities.identify(get_factor)
    values = [1]
    before = identities.identify(values)
    assert identities.identify([1]) == before
    values.append(2)
    assert identities.identify(values) != before


def test_what_cannot_be_told_apart_counts_as_new() -> None:
    identities = Identities(pickle.dumps)
    odd = (lambda: 0, 1)
    assert identities.identify(odd) != identities.identify(odd)


def test_only_what_is_new_is_selected() -> None:
    assert select_new("k", {"a": 1, "b": 2}, {"a": 10, "b": 20}) == {"a": 1, "b": 2}
    assert select_new("k", {"a": 1, "b": 3}, {"a": 10, "b": 30}) == {"b": 3}
    assert select_new("k", {"a": 0}, {"a": 10}) == {}
    assert select_new("other", {"a": 1}, {"a": 10}) == {"a": 1}


# From one worker to another.


def pass_on(value: Any, sender: FakeWorker, receiver: FakeWorker) -> Any:
    """What `receiver` has of a function that came to `sender` by value."""
    with sender.entered():
        payload = Serializer(is_by_value, serial="sender").dump(value, "it")
    return receiver.load(payload)


def test_what_came_is_sent_on_as_it_came(serializer: Serializer, worker: FakeWorker) -> None:
    other = FakeWorker()
    fetch = worker.load(serializer.dump(get_data, "it"))
    worker.load(serializer.dump(set_data, "it"))(5)
    assert fetch() == 5
    assert pass_on(fetch, worker, other)() is None, "what it made of it is its own"


def test_what_is_sent_on_meets_what_came_before(serializer: Serializer, worker: FakeWorker) -> None:
    other = FakeWorker()
    other.load(serializer.dump(set_data, "it"))(9)
    fetch = worker.load(serializer.dump(get_data, "it"))
    assert pass_on(fetch, worker, other)() == 9


def test_what_comes_back_meets_what_is_there(serializer: Serializer, worker: FakeWorker) -> None:
    fetch = worker.load(serializer.dump(get_data, "it"))
    worker.load(serializer.dump(set_data, "it"))(5)
    assert pass_on(fetch, worker, worker)() == 5


def test_what_the_program_changed_is_sent_on(
    serializer: Serializer, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FakeWorker()
    old = worker.load(serializer.dump(get_factor, "it"))
    assert pass_on(old, worker, other)() == 2
    monkeypatch.setattr(f"{__name__}.factor", 3)
    new = worker.load(serializer.dump(get_factor, "it"))
    assert pass_on(new, worker, other)() == 3


def test_a_class_is_sent_on_as_the_same(
    serializer: Serializer, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FakeWorker()
    payload = serializer.dump(make_register, "it")
    monkeypatch.setattr(
        cloudpickle.cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_ID", weakref.WeakValueDictionary()
    )
    make = worker.load(payload)
    assert make().add(1) == [1]
    with worker.entered():
        again = Serializer(is_by_value, serial="sender").dump(make, "it")
    assert worker.load(again)().add(2) == [1, 2], "it has it already"
    assert isinstance(other.load(again)(), type(make()))


def test_a_namespace_is_made_once() -> None:
    first = enter_namespace("k", {"a": 1})
    assert enter_namespace("k", {"a": 2}) is first
    assert first == {"a": 1}


LARGE_VALUES = {
    "list": lambda: list(range(50_000)),
    "str": lambda: "x" * 100_000,
    "bytes": lambda: b"x" * 100_000,
    "array": lambda: np.arange(50_000.0),
    "mixed": lambda: {"a": np.arange(50_000), "b": list(range(50_000))},
}


@pytest.mark.parametrize("make", LARGE_VALUES.values(), ids=LARGE_VALUES)
def test_tokens_of_large_values_stay_the_same(make: Any) -> None:
    shelf = FakeShelf()
    identities = Serializer(is_by_value, lambda: shelf)._identities
    value = make()
    token = identities.identify(value)
    assert identities.identify(value) == token
    assert identities.identify(make()) == token, "what is equal is as good"
    shelf.known.clear()  # as a store does when its session idles
    assert identities.identify(value) == token
    pickle.dumps(token)


def test_tokens_of_large_values_change_with_them() -> None:
    shelf = FakeShelf()
    identities = Serializer(is_by_value, lambda: shelf)._identities
    values: list[Any] = [list(range(50_000)), np.arange(50_000.0)]
    tokens = [identities.identify(value) for value in values]
    for value in values:
        value[49_000] = -1
    assert all(identities.identify(v) != t for v, t in zip(values, tokens, strict=True))


@pytest.mark.parametrize("make", LARGE_VALUES.values(), ids=LARGE_VALUES)
def test_what_the_worker_did_to_a_large_global_stays(
    monkeypatch: pytest.MonkeyPatch, make: Any, worker: FakeWorker
) -> None:
    shelf = FakeShelf()
    sharing = Serializer(is_by_value, lambda: shelf)
    monkeypatch.setattr(f"{__name__}.data", make())
    fetch = worker.load(sharing.dump(get_data, "it"))
    assert len(fetch()) > 1
    worker.load(sharing.dump(set_data, "it"))(5)
    shelf.known.clear()
    assert worker.load(sharing.dump(get_data, "it"))() == 5
    assert sharing.version == 0
