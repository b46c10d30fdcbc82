"""Refs of values that a cluster keeps."""

import gc
import pickle
import weakref
from typing import Any

import pytest

from manyhands.core.sizes import format_size
from manyhands.engines.cluster.keeper import ClusterKeeper
from manyhands.engines.cluster.packed import Packed
from tests.unit.engines.cluster.fakes import pack

STUB = 5, "native", "list", 2000


class Values:
    """A cluster's, which tells what it was asked for."""

    def __init__(self) -> None:
        self.fetched: list[Any] = []
        self.held: list[Any] = []

    def fetch(self, native: Any) -> Packed:
        self.fetched.append(native)
        return pack([1, 2])

    def hold(self, native: Any) -> Any:
        self.held.append(native)
        return f"{native}, held"


@pytest.fixture
def values() -> Values:
    return Values()


@pytest.fixture
def keeper(values: Values) -> ClusterKeeper:
    return ClusterKeeper(values.fetch, values.hold)


def test_what_has_come_is_held(keeper: ClusterKeeper, values: Values) -> None:
    record = keeper.adopt(STUB)
    assert values.held == ["native"]
    assert record.content == (5, "native, held", "list", 2000)
    assert (record.id, record.type_name, record.nbytes) == (5, "list", 2000)
    assert values.fetched == []


def test_its_value_is_fetched_when_it_is_read(keeper: ClusterKeeper, values: Values) -> None:
    ref = keeper.hand_out(keeper.adopt(STUB))
    assert ref.get() == [1, 2]
    assert values.fetched == ["native, held"]


def test_a_ref_is_one_and_the_same_as_long_as_it_lives(keeper: ClusterKeeper) -> None:
    first = keeper.hand_out(keeper.adopt(STUB))
    assert keeper.hand_out(keeper.adopt(STUB)) is first
    assert keeper.hand_out(keeper.adopt((6, "native", "list", 1))) is not first


def test_a_ref_that_nobody_has_is_forgotten(keeper: ClusterKeeper) -> None:
    ref = keeper.hand_out(keeper.adopt(STUB))
    gone = weakref.ref(ref)
    del ref
    gc.collect()
    assert gone() is None
    assert not keeper._refs


def test_what_reports_say(keeper: ClusterKeeper) -> None:
    ref = keeper.hand_out(keeper.adopt(STUB))
    assert ref.place == "memory"
    assert repr(ref) == f"<Ref 5: list, {format_size(2000)} in the cluster>"


def test_it_travels_by_itself_alone_to_calls(keeper: ClusterKeeper) -> None:
    ref = keeper.hand_out(keeper.adopt(STUB))
    with pytest.raises(TypeError, match="cannot be pickled for elsewhere"):
        pickle.dumps(ref)
