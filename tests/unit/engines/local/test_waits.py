"""How a call waits in a worker, over a parent that does as the test says."""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from manyhands.engines.local import messages as m
from manyhands.engines.local import waits as waits_module
from manyhands.engines.local.waits import Waits, _RousedError
from manyhands.errors import CallInterrupted

GO_ON = "go on"
"""From this parent: the call's cpus are there."""


class FakeWorker:
    """A worker and its channel; a pipe stands for the socket.

    Attributes
    ----------
    on_send
        For each kind of message, what the parent does about it.
    """

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.channel = self
        self.arrived: list[tuple[Any, ...]] = []
        self.sent: list[tuple[Any, ...]] = []
        self.taken: list[tuple[Any, ...]] = []
        self.on_send: dict[int, Callable[..., object]] = {}
        self.waiting: list[int] = []
        self.flushed = 0
        self.reading = threading.Lock()
        self.taking = 0
        self.waits = Waits(self)  # type: ignore[arg-type]

    def fileno(self) -> int:
        return self.reader

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)

    def arrive(self, *message: Any) -> None:
        """The parent sends a message."""
        self.arrived.append(message)
        os.write(self.writer, b"x")

    def receive(self, *, wait: bool) -> tuple[tuple[Any, ...], tuple[int, ...]] | None:
        assert not wait
        if not self.arrived:
            return None
        os.read(self.reader, 1)
        return self.arrived.pop(0), ()

    def send(self, message: tuple[Any, ...]) -> None:
        self.sent.append(message)
        self.on_send.get(message[0], lambda *_: None)(*message[1:])

    def take_beside(self, message: tuple[Any, ...], fds: tuple[int, ...]) -> None:
        self.taken.append(message)
        if message[0] == GO_ON:
            self.waits.let_go_on()

    def find_guard(self) -> None:
        return None

    def give_up_waiting(self) -> list[int]:
        given, self.waiting = self.waiting, []
        return given

    def flush(self) -> None:
        self.flushed += 1

    @property
    def kinds(self) -> list[int]:
        return [message[0] for message in self.sent]

    def has_taken(self, what: str) -> Callable[[], bool]:
        return lambda: (what,) in self.taken


@pytest.fixture
def worker() -> Iterator[FakeWorker]:
    worker = FakeWorker()
    yield worker
    worker.close()


# Guards.


def test_an_interrupt_strikes_at_once(worker: FakeWorker) -> None:
    with pytest.raises(CallInterrupted):
        worker.waits.interrupt()


def test_an_interrupt_comes_at_the_end_of_what_it_must_not_tear(worker: FakeWorker) -> None:
    done = []
    with pytest.raises(CallInterrupted), worker.waits.guard():
        with worker.waits.guard():
            worker.waits.interrupt()
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    with worker.waits.guard():
        done.append("it came once")


def test_an_error_goes_before_an_interrupt(worker: FakeWorker) -> None:
    with pytest.raises(LookupError), worker.waits.guard():
        worker.waits.interrupt()
        raise LookupError
    with worker.waits.guard():
        pass


def test_threads_beside_the_calls_own_are_not_struck(worker: FakeWorker) -> None:
    inside, leave = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with worker.waits.guard():
                inside.set()
                leave.wait(30)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(30)
    with pytest.raises(CallInterrupted):
        worker.waits.interrupt()  # what another thread guards does not hold it back
    leave.set()
    thread.join(30)
    assert errors == []


# Waits.


def test_what_is_there_is_not_waited_for(worker: FakeWorker) -> None:
    worker.arrive("outcome")
    assert worker.waits.wait(worker.has_taken("outcome"), None)
    assert worker.sent == []
    assert worker.waits.seconds == 0.0


def test_a_wait_gives_the_cpus_up_and_goes_on_when_told(worker: FakeWorker) -> None:
    worker.waiting = [8, 9]

    def answer(keys: list[int], awaited: int) -> None:
        assert (keys, awaited) == ([8, 9], 5)
        worker.arrive("outcome")
        worker.arrive(GO_ON)

    worker.on_send[m.BLOCKED] = answer
    assert worker.waits.wait(worker.has_taken("outcome"), None, 5)
    assert worker.kinds == [m.BLOCKED]
    assert worker.flushed == 1, "what has ended is not kept back meanwhile"
    assert worker.waits.seconds > 0


def test_a_wait_that_is_over_while_it_begins_asks_for_its_cpus(worker: FakeWorker) -> None:
    """The outcome was on its way before the parent heard of the wait."""
    worker.on_send[m.BLOCKED] = lambda *_: worker.arrive("outcome")
    worker.on_send[m.WAKE] = lambda is_urgent: worker.arrive(GO_ON)
    assert worker.waits.wait(worker.has_taken("outcome"), None)
    assert worker.sent[1:] == [(m.WAKE, False)]


def test_a_call_does_not_go_on_before_it_has_its_cpus(worker: FakeWorker) -> None:
    worker.on_send[m.BLOCKED] = lambda *_: worker.arrive("outcome")

    def delay(is_urgent: bool) -> None:
        worker.arrive("something else")
        worker.arrive(GO_ON)

    worker.on_send[m.WAKE] = delay
    assert worker.waits.wait(worker.has_taken("outcome"), None)
    assert worker.taken == [("outcome",), ("something else",), (GO_ON,)]


def test_a_call_that_was_woken_for_something_else_waits_again(worker: FakeWorker) -> None:
    answers = iter([["other", GO_ON], ["outcome", GO_ON]])

    def answer(keys: list[int], awaited: int) -> None:
        for what in next(answers):
            worker.arrive(what)

    worker.on_send[m.BLOCKED] = answer
    assert worker.waits.wait(worker.has_taken("outcome"), None)
    assert worker.kinds == [m.BLOCKED, m.BLOCKED]


def test_asking_may_take_messages_in(worker: FakeWorker) -> None:
    """A condition that looks at futures takes in what has come, also the word to go on."""

    def is_done() -> bool:
        worker.waits.take_in()
        return ("outcome",) in worker.taken

    def answer(keys: list[int], awaited: int) -> None:
        worker.arrive("outcome")
        worker.arrive(GO_ON)

    worker.on_send[m.BLOCKED] = answer
    assert worker.waits.wait(is_done, None)
    assert worker.kinds == [m.BLOCKED]


class Clock:
    """Passes while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, worker: FakeWorker) -> None:
        self.now = 100.0
        self.sleeps: list[float | None] = []
        self.worker = worker
        self.on_sleep: Callable[[], object] = lambda: None
        monkeypatch.setattr(waits_module, "perf_counter", lambda: self.now)
        monkeypatch.setattr(worker.waits, "_poll", self)

    def poll(self, milliseconds: float | None) -> None:
        self.sleeps.append(milliseconds)
        self.on_sleep()
        if not self.worker.arrived:
            assert milliseconds is not None, "it would sleep for ever"
            self.now += milliseconds / 1000


def test_a_wait_ends_when_its_time_is_over(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, worker)
    worker.on_send[m.WAKE] = lambda is_urgent: worker.arrive(GO_ON)
    assert not worker.waits.wait(lambda: False, 2.5)
    assert clock.now == 102.5
    assert worker.sent == [(m.BLOCKED, [], 0), (m.WAKE, True)]
    assert worker.waits.seconds == 2.5


def test_a_wait_without_time_looks_once(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, worker)
    worker.on_send[m.WAKE] = lambda is_urgent: worker.arrive(GO_ON)
    worker.arrive("outcome")
    assert worker.waits.wait(worker.has_taken("outcome"), 0)
    assert not worker.waits.wait(lambda: False, 0)


def test_a_wait_may_be_longer_than_the_system_takes(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, worker)
    worker.on_send[m.WAKE] = lambda is_urgent: worker.arrive(GO_ON)
    assert not worker.waits.wait(lambda: False, 100 * 86_400)
    assert clock.now == 100.0 + 100 * 86_400
    assert max(sleep or 0.0 for sleep in clock.sleeps) < 2**31, "of milliseconds"


def test_the_seconds_of_several_waits_add_up(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, worker)
    worker.on_send[m.WAKE] = lambda is_urgent: worker.arrive(GO_ON)
    worker.waits.wait(lambda: False, 2.0)
    worker.waits.wait(lambda: False, 3.0)
    assert worker.waits.seconds == 5.0


def test_a_call_that_is_interrupted_while_it_waits_ends_when_it_has_its_cpus(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, worker)

    def strike() -> None:
        clock.on_sleep = lambda: None
        worker.waits.interrupt()

    clock.on_sleep = strike
    worker.on_send[m.WAKE] = lambda is_urgent: worker.arrive(GO_ON)
    with pytest.raises(CallInterrupted):
        worker.waits.wait(lambda: False, None)
    assert worker.sent == [(m.BLOCKED, [], 0), (m.WAKE, True)]
    assert not worker.waits._guards


def test_an_interrupt_before_the_sleep_is_not_slept_through(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, worker)
    worker.on_send[m.BLOCKED] = lambda *_: worker.waits.interrupt()
    worker.on_send[m.WAKE] = lambda is_urgent: worker.arrive(GO_ON)
    with pytest.raises(CallInterrupted):
        worker.waits.wait(lambda: False, None)


def test_an_interrupt_amid_what_must_not_be_torn_does_not_end_a_sleep_elsewhere(
    worker: FakeWorker,
) -> None:
    with pytest.raises(CallInterrupted), worker.waits.guard():
        try:
            worker.waits.interrupt()
        except _RousedError:
            pytest.fail("nobody slept")


def test_an_error_of_the_condition_ends_the_wait(worker: FakeWorker) -> None:
    def is_done() -> bool:
        raise LookupError

    with pytest.raises(LookupError):
        worker.waits.wait(is_done, None)
    assert not worker.waits._guards


def test_while_an_event_loop_waits_its_cpus_are_lent(worker: FakeWorker) -> None:
    def sleep() -> str:
        assert worker.kinds == [m.BLOCKED]
        worker.arrive(GO_ON)  # with a result
        return "events"

    assert worker.waits.lend(sleep) == "events"
    assert worker.kinds == [m.BLOCKED]


def test_what_is_no_message_has_the_call_go_on_at_once(worker: FakeWorker) -> None:
    worker.on_send[m.WAKE] = lambda at_once: worker.arrive(GO_ON) if at_once else None
    assert worker.waits.lend(lambda: "a timer") == "a timer"
    assert worker.kinds == [m.BLOCKED, m.WAKE]


def test_an_interrupt_ends_what_an_event_loop_waits_for(worker: FakeWorker) -> None:
    worker.on_send[m.WAKE] = lambda _: worker.arrive(GO_ON)

    def sleep() -> None:
        worker.waits.interrupt()
        pytest.fail("it slept on")

    with pytest.raises(CallInterrupted):
        worker.waits.lend(sleep)
    assert worker.kinds == [m.BLOCKED, m.WAKE]
