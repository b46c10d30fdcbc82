"""What an executor waits for at its end."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from manyhands.core.outstanding import Outstanding, run_when_dropped
from manyhands.errors import SessionClosedError
from manyhands.testing.checks import LIMIT


class FakeMap:
    def __init__(self) -> None:
        self.cancelled: list[bool] = []

    def cancel(self, *, running: bool) -> None:
        self.cancelled.append(running)


class FakeSession:
    """Ends the oldest call at each look."""

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.cancelled: list[tuple[list[int], bool]] = []
        self.closed: list[dict[str, Any]] = []
        self.is_foreign = False

    def is_outstanding(self, key: int) -> bool:
        return key in self.keys

    def cancel_keys(self, keys: Iterable[int], *, running: bool = False) -> None:
        self.cancelled.append((list(keys), running))

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        if self.is_foreign:
            raise SessionClosedError("of another process")
        while not is_done():
            self.keys.pop(0)
        return True

    def close(self, **options: Any) -> None:
        self.closed.append(options)


def make(keys: int = 0, *, is_own: bool = True) -> tuple[FakeSession, Any]:
    session = FakeSession()
    outstanding: Any = Outstanding(session, is_own=is_own)  # type: ignore[arg-type]
    for key in range(1, keys + 1):
        session.keys.append(key)
        outstanding.note(key)
    return session, outstanding


def test_the_end_waits_for_the_calls_and_closes_its_own_session() -> None:
    for is_own in (True, False):
        session, outstanding = make(3, is_own=is_own)
        outstanding.finish()
        assert session.keys == []
        assert session.closed == [{}] * is_own


def test_the_end_waits_for_maps_and_for_submissions_under_way() -> None:
    session, outstanding = make(1)
    some_map = FakeMap()
    outstanding.add_map(some_map)
    outstanding.tickets.append(None)
    session.keys.clear()
    assert not outstanding._has_ended()
    outstanding.tickets.pop()
    assert not outstanding._has_ended()
    outstanding.drop_map(some_map)
    assert outstanding._has_ended()


def test_it_is_shut_once() -> None:
    _, outstanding = make()
    assert outstanding.shut()
    assert not outstanding.shut()
    assert outstanding.is_shut
    assert outstanding._has_ended()


def test_the_oldest_may_be_spared() -> None:
    session, outstanding = make(4)
    some_map = FakeMap()
    outstanding.add_map(some_map)
    session.keys.remove(1)
    outstanding.cancel(running=False, but=2)
    assert session.cancelled == [([4], False)]
    assert some_map.cancelled == [False]


def test_an_abort_ends_what_runs() -> None:
    session, outstanding = make(2)
    outstanding.abort()
    assert session.cancelled == [([1, 2], True)]
    assert session.closed == [{"grace": 0}]
    assert outstanding.is_shut


def test_keys_of_calls_that_have_ended_are_forgotten() -> None:
    session, outstanding = make()
    for key in range(1, 10_001):
        outstanding.note(key)
    assert len(outstanding._keys) <= 1001
    session.keys = list(range(10_001, 15_001))
    for key in session.keys:
        outstanding.note(key)
    assert set(session.keys) <= set(outstanding._keys)


def test_in_a_forked_child_there_is_nothing_to_wait_for() -> None:
    session, outstanding = make(1)
    session.is_foreign = True
    outstanding.wait()


def test_what_a_finalizer_asks_for_runs_in_another_thread() -> None:
    found: list[int] = []
    event = threading.Event()

    def note() -> None:
        found.append(threading.get_ident())
        event.set()

    run_when_dropped(note)
    assert event.wait(LIMIT)
    assert found != [threading.get_ident()]
