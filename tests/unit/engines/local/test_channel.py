"""Whole messages, with open files beside them."""

import _socket
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.engines.local import channel as channel_module
from manyhands.engines.local.channel import _MAX_FDS, MAX_FRAME, Channel, open_pair

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = map(Channel, open_pair())
    yield ours, theirs
    ours.close()
    theirs.close()


@given(st.lists(st.lists(plain, min_size=1, max_size=4).map(tuple), max_size=5))
def test_messages_arrive_whole_and_in_order(messages: list[tuple[Any, ...]]) -> None:
    ours, theirs = map(Channel, open_pair())
    for message in messages:
        assert ours.send(message)
    assert [theirs.receive() for _ in messages] == [(message, ()) for message in messages]
    assert theirs.receive(wait=False) is None
    ours.close()
    theirs.close()


def test_both_ways(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    ours.send((1, "there"))
    theirs.send((2, "back"))
    assert ours.receive() == ((2, "back"), ())
    assert theirs.receive() == ((1, "there"), ())


def test_a_large_message_arrives(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    message = (1, bytes(MAX_FRAME - 100))
    assert ours.send(message, wait=False)
    assert theirs.receive() == (message, ())


def test_where_there_is_no_room_nothing_is_sent(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    sent = 0
    while ours.send((sent, bytes(50_000)), wait=False):
        sent += 1
        assert sent < 1000
    assert sent >= 1
    for number in range(sent):
        received = theirs.receive(wait=False)
        assert received is not None
        assert received[0][0] == number
    assert theirs.receive(wait=False) is None
    assert ours.send((0,), wait=False), "and then there is room again"


@pytest.mark.parametrize("count", [1, 5, _MAX_FDS])
def test_descriptors_are_handed_over(pair: tuple[Channel, Channel], count: int) -> None:
    ours, theirs = pair
    reading, writing = os.pipe()
    try:
        ours.send((7, "take these"), (writing,) * count)
        received = theirs.receive()
        assert received is not None
        message, fds = received
        assert message == (7, "take these")
        assert len(set(fds)) == count
        assert writing not in fds, "the caller keeps its own"
        for fd in fds:
            os.write(fd, b"x")
            os.close(fd)
        assert os.read(reading, 1000) == b"x" * count
    finally:
        os.close(reading)
        os.close(writing)


def test_either_reader_of_an_end_takes_whole_messages(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    other = Channel(_socket.socket(fileno=os.dup(theirs.fileno())))
    try:
        for number in range(4):
            ours.send((number,))
        readers = [theirs, other, other, theirs]
        assert [reader.receive(wait=False) for reader in readers] == [
            ((number,), ()) for number in range(4)
        ]
        assert theirs.receive(wait=False) is None
        assert other.receive(wait=False) is None
    finally:
        other.close()


@pytest.mark.parametrize("wait", [True, False])
def test_the_end_of_the_other_side_is_an_end(pair: tuple[Channel, Channel], wait: bool) -> None:
    ours, theirs = pair
    ours.send((1,))
    ours.close()
    assert theirs.receive(wait=wait) == ((1,), ()), "what was sent is still read"
    with pytest.raises(EOFError):
        theirs.receive(wait=wait)
    with pytest.raises(OSError):
        theirs.send((2,))


def test_an_end_that_closes_with_unread_messages_is_an_end(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    theirs.send((1,))
    ours.close()
    with pytest.raises(EOFError):
        while True:
            theirs.receive()


def test_a_program_that_is_started_inherits_no_end(pair: tuple[Channel, Channel]) -> None:
    assert not any(os.get_inheritable(end.fileno()) for end in pair)


def test_a_wait_ends_with_a_message_or_with_its_time(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    assert not theirs.wait(0)
    assert not theirs.wait(0.001)
    ours.send((1,))
    assert theirs.wait(0)
    assert theirs.wait(1e10), "longer than the system takes"


def test_a_watch_ends_with_a_message_or_with_its_time(
    pair: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    looks: list[float] = []

    def tick() -> float:
        looks.append(float(len(looks)))
        return looks[-1]

    monkeypatch.setattr(channel_module, "perf_counter", tick)
    theirs.watch(10.0)
    assert 10 <= len(looks) <= 12
    ours.send((1,))
    looks.clear()
    theirs.watch(10.0)
    assert len(looks) == 1
