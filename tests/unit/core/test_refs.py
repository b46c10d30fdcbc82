"""Handles of stored values."""

import copy
import pickle
import weakref
from collections import namedtuple
from typing import Any

import numpy as np
import pytest

from manyhands.core.parcels import packing
from manyhands.core.refs import Record, Ref, name_type


class FakeKeeper:
    def read(self, record: Record) -> Any:
        return record.content

    def locate(self, record: Record) -> str:
        return "disk"

    def describe(self, record: Record) -> str:
        return f"{record.nbytes} bytes somewhere"

    def hand_out(self, record: Record) -> Ref[Any]:
        return Ref(record)


@pytest.fixture
def ref() -> Ref[Any]:
    return Ref(Record(FakeKeeper(), 3, [1, 2], "list", 40))


def test_a_ref_tells_what_it_stands_for(ref: Ref[Any]) -> None:
    assert (ref.id, ref.type_name, ref.nbytes, ref.place) == (3, "list", 40, "disk")
    assert ref.get() == [1, 2]
    assert repr(ref) == "<Ref 3: list, 40 bytes somewhere>"


def test_refs_are_equal_by_identity(ref: Ref[Any]) -> None:
    other = Ref(ref.record)
    assert ref == ref  # noqa: PLR0124
    assert ref != other
    assert len({ref, other}) == 2
    assert weakref.ref(ref)() is ref


@pytest.mark.parametrize("wrap", [lambda ref: ref, lambda ref: [ref], lambda ref: {"a": (ref,)}])
def test_a_ref_means_nothing_elsewhere(ref: Ref[Any], wrap: Any) -> None:
    with pytest.raises(TypeError, match=r"<Ref 3: .*pickle its value, ref\.get\(\)"):
        pickle.dumps(wrap(ref))


def test_while_a_call_is_packed_its_record_goes_beside(ref: Ref[Any]) -> None:
    refs: list[Record] = []
    packing.refs = refs
    try:
        pickle.dumps([ref, ref])
    finally:
        packing.refs = None
    assert refs == [ref.record]


def test_a_copy_of_a_ref_is_the_ref(ref: Ref[Any]) -> None:
    assert copy.copy(ref) is ref
    assert copy.deepcopy([ref])[0] is ref


def test_a_ref_can_be_annotated() -> None:
    assert Ref[int] is Ref


Point = namedtuple("Point", "x")  # noqa: PYI024 - what is tested


class Shaped:
    shape = (2, 3)


class Inner:
    class Innermost: ...


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "int"),
        ([1], "list"),
        (None, "NoneType"),
        (Point(1), "Point"),
        (Inner.Innermost(), "Inner.Innermost"),
        (np.zeros((2, 3)), "ndarray float64 2x3"),
        (np.zeros(4_000_000, "u1"), "ndarray uint8 4000000"),
        (np.zeros(()), "ndarray float64 ()"),
        (np.float32(1), "float32 float32 ()"),
        (np.zeros(3, "M8[s]"), "ndarray datetime64[s] 3"),
        (Shaped(), "Shaped 2x3"),
        (memoryview(b"abc"), "memoryview 3"),
    ],
)
def test_names_of_values(value: Any, name: str) -> None:
    assert name_type(value) == name


def test_a_frame_is_named_by_its_shape() -> None:
    pandas = pytest.importorskip("pandas")
    assert name_type(pandas.DataFrame({"a": [1, 2]})) == "DataFrame 2x1"


class Hostile:
    """Has a shape that fails."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def test_what_has_no_shape_is_named_by_its_class() -> None:
    assert name_type(Hostile()) == "Hostile"
    assert name_type(Shaped) == "type 2x3"
