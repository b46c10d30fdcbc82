"""A map that goes on though nobody asks for its results."""

from concurrent.futures import CancelledError
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.core.mapping import Failure, Source
from manyhands.core.unattended import Feed, UnattendedMap, freeze
from manyhands.errors import SessionClosedError
from tests.unit.core.sessions import FakeSession


def square(x: int) -> int:
    if x == 13:
        raise ValueError("13")
    return x * x


def start(session: FakeSession, items: Any, **options: Any) -> UnattendedMap:
    source = items if isinstance(items, Feed) else Source((items,))
    unattended = UnattendedMap(session, square, source, **options)  # type: ignore[arg-type]
    unattended.advance()
    return unattended


def run_all(session: FakeSession) -> None:
    while session.outstanding:
        session.step()


@given(st.integers(0, 200), st.integers(1, 4), st.none() | st.integers(1, 20), st.randoms())
def test_all_items_run_and_the_results_are_in_their_order(
    size: int, workers: int, batch: int | None, rng: Any
) -> None:
    session = FakeSession(Random(rng.random()), workers, deaths={7: 1}, leaves_rests=True)
    ended: list[object] = []
    unattended = start(session, range(size), batch=batch, on_end=ended.append)
    run_all(session)
    assert unattended.is_over
    assert ended == [unattended]
    values = unattended.collect()
    assert unattended.has_failed is (size > 13)
    assert [value for value in values if type(value) is not Failure] == [
        x * x for x in range(size) if x != 13
    ]
    assert [type(value) is Failure for value in values] == [x == 13 for x in range(size)]
    assert session.items == size
    assert session.most_outstanding <= 3 * workers


def test_a_failure_names_its_item() -> None:
    session = FakeSession()
    unattended = start(session, range(20))
    run_all(session)
    failure = unattended.collect()[13]
    assert isinstance(failure.error, ValueError)
    assert failure.error.__notes__[-1] == "in item 13 of a map of square"


def test_an_item_that_kills_its_workers_fails_alone() -> None:
    session = FakeSession(deaths={3: 3})
    unattended = start(session, range(10))
    run_all(session)
    values = unattended.collect()
    assert [place for place, value in enumerate(values) if type(value) is Failure] == [3]


def test_items_that_come_later_are_run() -> None:
    session = FakeSession()
    feed = Feed()
    unattended = start(session, feed)
    assert not session.outstanding
    for begin in (0, 5):
        feed.add(range(begin, begin + 5))
        unattended.advance()
        run_all(session)
        assert not unattended.is_over
    assert feed.count() == 10
    feed.end()
    unattended.advance()
    assert unattended.is_over
    assert unattended.collect() == [x * x for x in range(10)]


def test_an_error_takes_the_place_of_an_item() -> None:
    session = FakeSession()
    feed = Feed()
    unattended = start(session, feed)
    feed.add([1, 2])
    unattended.fail_at(feed.count(), KeyError("no more"))
    feed.end()
    unattended.advance()
    run_all(session)
    assert [type(value) for value in unattended.collect()] == [int, int, Failure]


def test_parts_are_taken_in_order_or_as_they_come() -> None:
    session = FakeSession()
    session.choose = lambda: len(session.outstanding) - 1
    unattended = start(session, range(2), batch=1)
    session.step()
    assert unattended.take(0) is None
    assert unattended.take(None) == [1]
    assert unattended.take(None) is None
    assert unattended.await_part(0, None) == [0]
    assert (
        unattended.await_part(1, None) is None
    )  # nothing more will come, and nothing was withdrawn


def test_what_was_withdrawn_before_it_began_is_missed() -> None:
    session = FakeSession()
    unattended = start(session, range(100), batch=1)
    session.step()
    unattended.cancel()
    run_all(session)
    assert unattended.is_over
    assert session.items == 1
    assert [running for _, running in session.withdrawn] == [False] * len(session.withdrawn)
    with pytest.raises(CancelledError):
        unattended.collect()


def test_after_its_end_it_cannot_be_cancelled() -> None:
    session = FakeSession()
    unattended = start(session, range(10))
    run_all(session)
    unattended.cancel()
    assert unattended.collect() == [x * x for x in range(10)]


def test_a_session_that_closes_ends_it() -> None:
    session = FakeSession()
    unattended = start(session, range(100), batch=1)
    session.is_closed = True
    run_all(session)
    assert unattended.is_over
    with pytest.raises(SessionClosedError):
        unattended.check_whole()


@pytest.mark.parametrize("items", [[1, 2], bytearray(b"ab"), np.arange(3)])
def test_what_is_frozen_does_not_change(items: Any) -> None:
    frozen = freeze(items)
    before = list(frozen)
    items[0] = 99
    assert list(frozen) == before


def test_what_cannot_change_is_not_copied() -> None:
    for items in (range(5), (1, 2), "ab"):
        assert freeze(items) is items
    assert freeze(x for x in "ab") == ["a", "b"]
    assert freeze({"a": 1}) == ["a"]
