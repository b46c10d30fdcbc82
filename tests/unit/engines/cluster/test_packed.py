"""Values as they lie in a cluster."""

import pickle
import sys
import threading
from typing import Any

import numpy as np
import pytest

from manyhands.core.parcels import Input
from manyhands.core.refs import Record, Ref
from manyhands.core.serialize import INLINE_BYTES
from manyhands.engines.cluster.keeper import ClusterKeeper
from manyhands.engines.cluster.packed import Packed, Slot, list_slots, pack_result
from manyhands.errors import UnpicklableError
from tests.unit.engines.cluster.fakes import SERIALIZER, pack

SMALL, LARGE = 10, INLINE_BYTES

VALUES: dict[str, Packed] = {}


def fetch(native: Any) -> Packed:
    return VALUES[native]


KEEPER = ClusterKeeper(fetch, lambda native: native)


def load(packed: Packed, *inputs: Packed) -> Any:
    return packed.load(KEEPER.adopt, inputs)


def send(packed: Packed, way: str) -> Packed:
    """A packed value as another process gets it."""
    if way == "stays":
        return packed
    if way == "old":
        sent = pickle.loads(pickle.dumps(packed, 4))
    elif way == "in band":
        sent = pickle.loads(pickle.dumps(packed, 5))
    else:
        buffers: list[pickle.PickleBuffer] = []
        stream = pickle.dumps(packed, 5, buffer_callback=buffers.append)
        # Clusters read into memory that can be written.
        sent = pickle.loads(stream, buffers=[bytearray(buffer) for buffer in buffers])
    assert isinstance(sent, Packed)
    return sent


WAYS = ["stays", "old", "in band", "beside"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "value", [None, 5, "x" * 100_000, b"y" * 100_000, [1, {"a": (2, 3)}]], ids=type
)
def test_a_value_comes_back(value: object, way: str) -> None:
    assert load(send(pack(value), way)) == value
    assert load(send(pack_result(value), way)) == value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [0, SMALL, LARGE])
def test_arrays_are_for_reading(length: int, way: str) -> None:
    array = np.arange(length)
    found = load(send(pack({"array": array}), way))["array"]
    assert found.tolist() == array.tolist()
    assert not found.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        found[...] = 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [SMALL, LARGE])
def test_of_a_private_value_each_reader_has_a_copy(length: int, way: str) -> None:
    packed = send(pack(np.arange(length), is_private=True), way)
    first, second = load(packed), load(packed)
    first[0] = 77
    assert first[0] == 77
    assert second[0] == 0
    assert load(packed)[0] == 0


@pytest.mark.parametrize("length", [SMALL, LARGE])
def test_who_has_the_original_cannot_change_it(length: int) -> None:
    array = np.zeros(length)
    packed, result = pack(array), pack_result(array)
    array[:] = 1
    assert load(packed).sum() == 0
    assert load(result).sum() == 0


def test_large_results_are_for_reading() -> None:
    found = load(pack_result(np.arange(LARGE)))
    assert found[-1] == LARGE - 1
    assert not found.flags.writeable


def test_buffers_lie_beside_the_pickle() -> None:
    packed = pack(np.zeros(LARGE))
    assert len(packed.stream) < 1000
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(packed, 5, buffer_callback=buffers.append)
    assert len(stream) < 1000
    assert sum(buffer.raw().nbytes for buffer in buffers) == LARGE * 8


@pytest.mark.parametrize("way", WAYS)
def test_refs_inside(way: str) -> None:
    VALUES["value"] = pack([1, 2, 3])
    ref = KEEPER.hand_out(KEEPER.adopt((7, "value", "list", 30)))
    for packed in (pack({"refs": [ref, ref]}), pack_result({"refs": [ref, ref]})):
        assert set(packed.stubs) == {(7, "value", "list", 30)}
        elsewhere = ClusterKeeper(fetch, lambda native: native)
        first, second = send(packed, way).load(elsewhere.adopt)["refs"]
        assert first is second
        assert first is not ref
        assert isinstance(first, Ref)
        assert (first.id, first.type_name, first.nbytes) == (7, "list", 30)
        assert first.get() == [1, 2, 3]


def test_values_of_the_cluster_that_stand_in_it() -> None:
    args: Any = [Input(Slot(native)) for native in ("first", "second")]  # type: ignore[arg-type]
    payload = SERIALIZER.dump_arguments((args[0], [args[1]]), {"again": args[0]})
    assert [slot.native for slot in list_slots(payload)] == ["first", "second"]
    inputs = [pack("a"), pack("b")]
    for way in WAYS:
        assert load(send(Packed.of(payload), way), *inputs) == (("a", ["b"]), {"again": "a"})


def test_most_arguments_have_no_slots() -> None:
    assert list_slots(SERIALIZER.dump_arguments((1, "x"), {})) == []
    assert list_slots(SERIALIZER.dump_arguments((np.zeros(3),), {})) == []


def test_refs_in_a_value_that_stands_in_another() -> None:
    VALUES["value"] = pack("x")
    ref = KEEPER.hand_out(KEEPER.adopt((8, "value", "str", 1)))
    payload = SERIALIZER.dump_arguments((Input(Slot("first")),), {})  # type: ignore[arg-type]
    handed: list[Record] = []

    def hand_out(stub: Any) -> Record:
        handed.append(KEEPER.adopt(stub))
        return handed[-1]

    (args, _) = Packed.of(payload).load(hand_out, [pack([ref])])
    assert args[0][0].get() == "x"
    assert [record.id for record in handed] == [8]


@pytest.mark.parametrize("value", [b"x" * 100_000, np.zeros(LARGE), "x"], ids=type)
def test_its_size(value: Any) -> None:
    packed = pack(value)
    content = getattr(value, "nbytes", len(value))
    assert content <= packed.nbytes < content + 1000
    assert packed.nbytes < sys.getsizeof(packed) < packed.nbytes + 1000


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(UnpicklableError, match=r"result\['lock'\]") as caught:
        pack_result({"lock": threading.Lock()})
    assert caught.value.is_result
