"""What the processes say to each other."""

import pickle
import struct

import pytest

from manyhands.core.parcels import Parcel, Piece
from manyhands.engines.local import messages as m
from manyhands.engines.local.channel import MAX_FRAME
from manyhands.engines.local.pool_state import AHEAD_CALLS
from tests.unit.core.shelves import FakeValue


def make_parcel(parts: int, inline: int = 0) -> Parcel:
    value = FakeValue(1 << 60, b"")
    return Parcel(b"x" * inline, [Piece(value, 1 << 40, 1 << 40, "write") for _ in range(parts)])


def test_kinds_of_messages_differ() -> None:
    names = ["CONFIGURE", "START", "STARTED", "EXITED", "FUNCTION", "CALLS", "FORGET", "HEAP"]
    names += ["FREE", "REST", "READY", "RESULTS", "GIVE_BACK", "RECORD", "DROPPED", "NEED_ROOM"]
    assert len({getattr(m, name) for name in names}) == len(names)


def test_few_parts_travel_in_the_message() -> None:
    assert not m.is_bulky(Parcel(b""))
    assert not m.is_bulky(make_parcel(50))
    assert not m.is_bulky(make_parcel(3, inline=16 * 1024))


@pytest.mark.parametrize("parcel", [make_parcel(1000), make_parcel(1, inline=200_000)])
def test_many_travel_in_a_box(parcel: Parcel) -> None:
    assert m.is_bulky(parcel)


@pytest.mark.parametrize("inline", [0, 1000, 16 * 1024])
def test_what_travels_in_a_message_fits(inline: int) -> None:
    """The largest parcel that goes as it is, with the ids of its parts, leaves room for others in a frame."""
    parts = 1
    while not m.is_bulky(make_parcel(parts + 1, inline)):
        parts += 1
    packed = (
        b"x" * inline,
        [(1 << 60, 1 << 20, 1 << 40, 1 << 40, 1 << 40, "write") for _ in range(parts)],
        [],
        [],
    )
    frame = pickle.dumps((m.CALLS, [1], [1], [packed], [1 << 60] * parts, []), 5)
    assert len(frame) < MAX_FRAME / 2


def test_inputs_and_refs_count() -> None:
    many = Parcel(b"", (), [make_parcel(500), make_parcel(500)])
    assert m.is_bulky(many)


def test_the_region_has_room_for_its_words() -> None:
    assert 8 * (
        max(m.CURRENT, m.JOURNAL_END, m.ROOM, m.ROOM_ANSWER, m.WARM_LIMIT, m.HEAP_SIZE) + 1
    ) <= (m.JOURNAL_START)
    assert struct.calcsize(m.JOURNAL_ENTRY) < 32
    assert m.IS_ROOM and m.NO_ROOM and m.IS_ROOM != m.NO_ROOM
    assert AHEAD_CALLS > 0
