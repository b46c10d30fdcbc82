"""Calls that a worker's calls make: what their engine sends, and what it holds back."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from manyhands.core import place
from manyhands.core.functions import Function
from manyhands.core.model import DEFAULT_OPTIONS
from manyhands.engines.local import messages as m
from manyhands.engines.local.nested import NestedEngine, _Attempt
from manyhands.errors import CallInterrupted


class FakeWorker:
    """A worker whose program answers as the test says, when it is waited for."""

    def __init__(self) -> None:
        self.settings = {"number": 3}
        self.sessions = 0
        self.shelf: Any = None
        self.nested: Any = None
        self.lock = nullcontext()
        self.waits = SimpleNamespace(guard=nullcontext)
        self.channel = self
        self.sent: list[tuple[Any, ...]] = []
        self.withdrawn: list[int] = []
        self.outstanding = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def send(self, message: tuple[Any, ...]) -> None:
        self.sent.append(message)

    def note_outstanding(self, key: int, change: int) -> None:
        self.outstanding += change

    def await_answer(self, is_there: Callable[[], bool], change: Any) -> None:
        self.meanwhile()
        self.nested.take((m.CANCELLED, self.sent[-1][1], self.withdrawn))

    def list_submitted(self) -> list[int]:
        return [message[2] for message in self.sent if message[0] == m.SUBMIT]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> FakeWorker:
    worker = FakeWorker()
    monkeypatch.setattr(place, "link", worker)
    engine = NestedEngine()
    engine.start(SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
    engine._attempts[7] = ATTEMPT
    return worker


ATTEMPT = _Attempt(Function(1, "simulate", b""), b"", DEFAULT_OPTIONS, 0)


def test_a_call_that_fails_while_it_is_cancelled_is_not_tried_again(worker: FakeWorker) -> None:
    worker.withdrawn = [7]
    worker.meanwhile = lambda: worker.nested.resubmit(7, ATTEMPT)
    assert worker.nested.cancel([7]) == {7}
    assert worker.list_submitted() == []
    assert worker.nested._attempts == {}


def test_one_that_could_not_be_cancelled_is_tried_again_after_that(worker: FakeWorker) -> None:
    worker.meanwhile = lambda: worker.nested.resubmit(7, ATTEMPT)
    assert worker.nested.cancel([7]) == set()
    assert worker.list_submitted() == [7]
    worker.meanwhile = lambda: None
    assert worker.nested.cancel([7]) == set()
    assert worker.list_submitted() == [7], "once"


def test_one_whose_cancellation_was_interrupted_is_tried_again(worker: FakeWorker) -> None:
    def interrupt() -> None:
        worker.nested.resubmit(7, ATTEMPT)
        raise CallInterrupted

    worker.meanwhile = interrupt
    with pytest.raises(CallInterrupted):
        worker.nested.cancel([7])
    assert worker.list_submitted() == [7]
    worker.nested.resubmit(7, ATTEMPT)
    assert worker.list_submitted() == [7, 7], "as ever"
