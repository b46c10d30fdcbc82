"""Where code runs, and the session that its calls use."""

import threading
from typing import Any

import pytest

from manyhands.core.place import Late, Place

LONG = 30.0


def test_the_session_of_a_place() -> None:
    session = object()
    here = Place(session, 7)
    assert here.session is session
    assert here.open_session(lambda _: pytest.fail("it is open")) is session
    assert (here.key, here.post) == (7, None)


def test_a_place_may_have_no_session() -> None:
    here = Place(None, 7)
    assert here.session is None
    assert here.open_session(lambda _: pytest.fail("there is none")) is None


def test_a_late_session_is_opened_once_a_call_asks() -> None:
    engines: list[object] = []

    def make_engine() -> object:
        engines.append(object())
        return engines[-1]

    late = Late(make_engine)
    places = [Place(late, key) for key in (1, 2)]
    assert [here.session for here in places] == [None, None]
    assert engines == []
    opened = places[0].open_session(lambda engine: ("session", engine))
    assert opened == ("session", engines[0])
    assert places[1].open_session(lambda _: pytest.fail("it is open")) is opened
    assert [here.session for here in places] == [opened, opened]
    assert late.session is opened
    assert len(engines) == 1


def test_calls_that_ask_at_once_have_the_same() -> None:
    late = Late(object)
    begun, may_end = threading.Event(), threading.Event()

    def make(engine: object) -> list[object]:
        begun.set()
        assert may_end.wait(LONG)
        return [engine]

    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(Place(late, 1).open_session(make)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(LONG)
    may_end.set()
    for thread in threads:
        thread.join(LONG)
    assert len(found) == 4
    assert all(session is found[0] for session in found)


def test_what_could_not_be_opened_is_tried_again() -> None:
    late = Late(object)

    def fail(_: object) -> None:
        raise ValueError("not yet")

    for _ in range(2):
        with pytest.raises(ValueError, match="not yet"):
            late.open(fail)
    assert late.session is None
    assert late.open(lambda _: "session") == "session"
