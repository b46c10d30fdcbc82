"""What travels beside a pickle."""

import pickle
import threading
from typing import Any

import pytest

from manyhands.core.parcels import (
    Input,
    Parcel,
    Piece,
    PlainInput,
    get_key,
    measure,
    open_pickle,
    packing,
)
from manyhands.core.refs import Record, Ref
from tests.unit.core.shelves import FakeValue, open_payload


class FakeKeeper:
    def __init__(self) -> None:
        self.refs: dict[int, Ref[Any]] = {}

    def hand_out(self, record: Record) -> Ref[Any]:
        return self.refs.setdefault(record.id, Ref(record))


def make_record(number: int = 3) -> Record:
    return Record(FakeKeeper(), number, b"", "int", 0)  # type: ignore[arg-type]


def make_piece(number: int, length: int = 100_000) -> Piece:
    return Piece(FakeValue(number, b"%d" % number), 8, length)


def dump(value: Any) -> Parcel:
    """As a serializer does."""
    inputs: list[Any] = []
    refs: list[Any] = []
    outer = packing.inputs, packing.refs
    packing.inputs, packing.refs = inputs, refs
    try:
        stream = pickle.dumps(value, 5)
    finally:
        packing.inputs, packing.refs = outer
    return Parcel(stream, (), inputs, refs)


def test_what_is_shared_has_no_size_of_its_own() -> None:
    parcel = Parcel(b"12345", [b"123", make_piece(1)], [b"12", Parcel(b"1")], [make_record()])
    assert parcel.size == 5 + 3 + 2 + 1
    assert parcel.parts == 1 + 2 + 1 + 1 + 1
    assert measure(b"123") == 3
    assert measure(parcel) == parcel.weight > parcel.size


def test_more_parts_weigh_more() -> None:
    one = Parcel(b"", [make_piece(1)])
    many = Parcel(b"", [make_piece(number) for number in range(100)])
    assert one.size == many.size == 0
    assert measure(many) > 50 * measure(one) / 2


def test_keys_are_the_content() -> None:
    record = make_record()
    parcel = Parcel(b"s", [b"x", make_piece(1)], [b"y", Parcel(b"z")], [record])
    same = Parcel(b"s", [b"x", make_piece(1)], [b"y", Parcel(b"z")], [record])
    assert get_key(parcel) == get_key(same)
    assert hash(get_key(parcel)) == hash(get_key(same))
    assert get_key(b"s") == b"s"
    others = [
        Parcel(b"t", [b"x", make_piece(1)], [b"y", Parcel(b"z")], [record]),
        Parcel(b"s", [b"x", make_piece(2)], [b"y", Parcel(b"z")], [record]),
        Parcel(b"s", [b"x", make_piece(1, 99)], [b"y", Parcel(b"z")], [record]),
        Parcel(b"s", [b"x", make_piece(1)], [b"y", Parcel(b"w")], [record]),
        Parcel(b"s", [b"x", make_piece(1)], [b"y", Parcel(b"z")], [make_record(4)]),
    ]
    assert len({get_key(one) for one in [parcel, *others]}) == 6


def test_pieces_of_equal_content_are_equal() -> None:
    one, other = (Piece(FakeValue(number, b"same"), 0, 4) for number in (1, 2))
    assert one.key == other.key
    assert one.key != Piece(FakeValue(1, b"else"), 0, 4).key
    assert one.key != Piece(one.value, 1, 3).key


def test_the_mode_of_a_piece_is_of_its_key() -> None:
    value = FakeValue(1, b"")
    keys = {Piece(value, 0, 10, mode).key for mode in ("read", "write", "copy")}
    assert len(keys) == 3


def test_an_input_is_read_where_it_stands() -> None:
    inner = Parcel(pickle.dumps([1, 2]))
    parcel = dump({"a": Input(inner), "b": (Input(inner), PlainInput(pickle.dumps("plain")))})
    assert parcel.inputs == [inner, inner]
    assert open_payload(parcel) == {"a": [1, 2], "b": ([1, 2], "plain")}


def test_a_plain_input_needs_nothing_beside_the_pickle() -> None:
    payload = pickle.dumps((PlainInput(pickle.dumps([7])), 1), 5)
    assert pickle.loads(payload) == ([7], 1)


def test_inputs_inside_of_inputs_are_their_own() -> None:
    innermost = dump([Input(Parcel(pickle.dumps("deep"))), 0])
    outer = dump([Input(innermost), Input(Parcel(pickle.dumps("flat")))])
    assert open_payload(outer) == [["deep", 0], "flat"]


def test_refs_come_from_their_keeper() -> None:
    record = make_record()
    ref = record.keeper.hand_out(record)
    parcel = dump([ref, {"again": ref}])
    assert parcel.refs == [record]
    loaded = open_payload(parcel)
    assert loaded[0] is ref
    assert loaded[1]["again"] is ref


def test_an_input_alone_cannot_be_pickled() -> None:
    with pytest.raises(AssertionError):
        pickle.dumps(Input(Parcel(b"")))


class Fails:
    def __reduce__(self) -> Any:
        return fail, ()


def fail() -> None:
    raise RuntimeError("no")


def test_a_failed_reading_leaves_nothing_behind() -> None:
    with pytest.raises(RuntimeError):
        open_pickle(pickle.dumps(Fails()), (), [lambda: 1])
    assert open_payload(dump([Input(Parcel(pickle.dumps(2)))])) == [2]
    with pytest.raises(IndexError):
        open_pickle(dump(Input(Parcel(pickle.dumps(2)))).stream, ())


def test_threads_read_and_pack_their_own() -> None:
    packing.inputs = []
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append((packing.inputs, packing.refs)))
    thread.start()
    thread.join()
    packing.inputs = None
    assert seen == [(None, None)]


def test_buffers_are_taken_as_they_are() -> None:
    content = bytearray(b"abc")
    taken: list[pickle.PickleBuffer] = []
    stream = pickle.dumps([pickle.PickleBuffer(content)], 5, buffer_callback=taken.append)
    view = memoryview(content)
    assert open_pickle(stream, [view])[0] is view
