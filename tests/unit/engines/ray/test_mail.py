import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray.exceptions import RayError

from manyhands.engines.ray.mail import Mail
from tests.unit.engines.ray.conftest import FakeOffice
from tests.unit.engines.sinks import LONG


class Desk:
    """A session's mail, what it has taken, and the office that it comes from."""

    def __init__(self, office: FakeOffice) -> None:
        self.office = office
        self.office.take.is_held = True
        self.taken: list[Any] = []
        self.losses: list[str] = []
        self.has_lost = threading.Event()
        self.mail = Mail(office, "topic", lambda *message: self.taken.append(message), self.lose)

    def lose(self, loss: str) -> None:
        self.losses.append(loss)
        self.has_lost.set()

    def deliver(self, letters: Any) -> None:
        """Answer the question for messages that is open, and wait until they are taken."""
        number = len(self.office.take.calls)
        self.office.take.wait_for_calls(1)
        self.office.take.refs[-1].result.set_result(letters)
        if letters is not None:
            self.office.take.wait_for_calls(number + 1)
        self.settle()

    def settle(self) -> None:
        is_there = threading.Event()
        self.mail.call(is_there.set)
        assert is_there.wait(LONG)

    def after(self, sender: str, number: int, do: Callable[[], None]) -> None:
        self.mail.call(lambda: self.mail.after(sender, number, do))
        self.settle()


@pytest.fixture
def desk(office: FakeOffice) -> Iterator[Desk]:
    desk = Desk(office)
    office.take.wait_for_calls(1)
    yield desk
    desk.mail.close()
    for ref in office.take.refs:
        if not ref.result.done():
            ref.result.set_result(None)


def test_messages_are_taken_in_the_order_of_their_sender(desk: Desk) -> None:
    desk.deliver([("p", 2, ("b",)), ("q", 1, ("x",))])
    assert desk.taken == [("x",)]
    desk.deliver([("p", 1, ("a",))])
    assert desk.taken == [("x",), ("a",), ("b",)]


def test_an_end_waits_for_the_messages_before_it(desk: Desk) -> None:
    ends: list[int] = []
    desk.after("p", 0, lambda: ends.append(0))
    desk.after("p", 2, lambda: ends.append(2))
    assert ends == [0]
    desk.deliver([("p", 1, ("a",))])
    assert ends == [0]
    desk.deliver([("p", 2, ("b",))])
    assert ends == [0, 2]


def test_where_no_more_come_nobody_waits_for_them(desk: Desk) -> None:
    ends: list[int] = []
    desk.after("p", 5, lambda: ends.append(5))
    desk.office.take.refs[-1].result.set_exception(RayError("gone"))
    assert desk.has_lost.wait(LONG)
    desk.settle()
    assert ends == [5]
    assert "gone" in desk.losses[0]
    desk.after("p", 6, lambda: ends.append(6))
    assert ends == [5, 6]


def test_the_end_of_a_session_is_no_loss(desk: Desk) -> None:
    desk.mail.close()
    desk.office.take.refs[-1].result.set_exception(RayError("gone"))
    assert not desk.has_lost.wait(0.05)
