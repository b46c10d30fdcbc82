"""Calls with inputs or retries: what the life cycle decides is carried out."""

import concurrent.futures
from collections.abc import Callable
from typing import Any

import pytest

from manyhands.core import ledger as ledger_module
from manyhands.core import timers
from manyhands.core.future import Future
from manyhands.core.ledger import Ledger, describe_briefly, note_attempts
from manyhands.core.model import Call, CallOptions, Capabilities, RetryPolicy
from manyhands.core.refs import Record, Ref
from manyhands.core.resources import make_need
from manyhands.errors import (
    DependencyError,
    InvalidArgumentError,
    UnpicklableError,
    WorkerDiedError,
)


class FakeEngine:
    """Takes calls, and remembers them."""

    def __init__(self) -> None:
        self.capabilities = Capabilities(isolates=False, parallel=False, pickles=False)
        self.submitted: list[Call] = []
        self.refusal: BaseException | None = None
        self.misfit: str | None = None
        self.roused = 0

    def submit(self, call: Call) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.submitted.append(call)

    def resubmit(self, key: int, attempt: Call) -> None:
        assert attempt.key == key
        self.submit(attempt)

    def explain_misfit(self, call: Call) -> str | None:
        return self.misfit

    def forward(self, value: Any) -> Any:
        return value.content if isinstance(value, Record) else ("forwarded", value)

    def rouse(self) -> None:
        self.roused += 1


class House:
    """A ledger, and a session around it."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.futures: dict[int, Future[Any]] = {}
        self.ended: list[tuple[int, BaseException | None]] = []
        self.ledger = Ledger(self.engine, self.futures, Future, self, self.end)  # type: ignore[arg-type]

    def end(self, key: int, error: BaseException | None) -> None:
        self.ended.append((key, error))
        future = self.futures.pop(key)
        if error is None:
            future.withdraw()
        else:
            future.settle(None, error, None)

    def make(self, *args: Any, options: CallOptions | None = None) -> Call:
        key = 1 + len(self.ended) + len(self.futures)
        while key in self.futures or any(key == ended for ended, _ in self.ended):
            key += 1
        self.futures[key] = Future(self, key, f"call{key}")  # type: ignore[arg-type]
        call = Call(key, max, args, {}, options or CallOptions())
        call.has_inputs = bool(args)
        return call

    def admit(self, *inputs: Any, options: CallOptions | None = None) -> Future[Any]:
        """A call that waits for `inputs`."""
        call = self.make(*inputs, options=options)
        future = self.futures[call.key]
        self.ledger.admit(call, list(inputs))
        return future

    def run(self, options: CallOptions | None = None) -> tuple[Call, Future[Any]]:
        """A call without inputs."""
        call = self.make(options=options)
        future = self.futures[call.key]
        self.ledger.hand_over(call)
        return call, future

    def succeed(self, future: Future[Any], value: Any) -> None:
        """As a session does."""
        self.futures.pop(future.key)
        future.settle(value, None, lambda value: (value, None))
        if self.ledger.is_used:
            self.ledger.succeed([future.key])

    # What futures ask of a session.

    def look(self) -> None:
        pass

    def attend(self) -> None:
        pass

    def is_call_running(self, future: Future[Any]) -> bool:
        return False

    @property
    def sent(self) -> list[int]:
        return [call.key for call in self.engine.submitted]

    def is_empty(self) -> bool:
        ledger = self.ledger
        return not (ledger._kept or ledger._delayed or ledger._inputs or ledger._life)


class Later:
    """What is due in a while, until the test lets the time pass."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, seconds: float, fn: Callable[[], object]) -> None:
        self.due.append((seconds, fn))

    def pass_time(self) -> None:
        due, self.due = self.due, []
        for _, fn in due:
            fn()


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    later = Later()
    monkeypatch.setattr(timers, "timers", later)
    monkeypatch.setattr("manyhands.core.ledger.random.random", lambda: 1.0)
    return later


def retry(retries: int, backoff: float = 0.0, worker_retries: int = 0) -> CallOptions:
    return CallOptions(RetryPolicy(retries, worker_retries=worker_retries, backoff=backoff))


# Inputs.


def test_a_call_is_sent_when_its_inputs_are_there(house: House) -> None:
    _, first = house.run()
    _, second = house.run()
    both = house.admit(first, second)
    assert house.ledger.is_used
    house.succeed(first, 1)
    assert house.sent == [first.key, second.key]
    house.succeed(second, 2)
    assert house.sent == [first.key, second.key, both.key]
    assert house.engine.submitted[-1].args == (("forwarded", 1), ("forwarded", 2))
    assert house.is_empty()
    assert not house.ledger.is_used


def test_inputs_of_others_are_waited_for_by_their_own_means(house: House) -> None:
    standard: concurrent.futures.Future[int] = concurrent.futures.Future()
    other = House()
    _, foreign = other.run()
    call = house.admit(standard, foreign)
    standard.set_result(1)
    assert house.sent == []
    other.succeed(foreign, 2)
    assert house.sent == [call.key]
    assert house.engine.submitted[0].args == (1, 2), "another engine's values are read"
    assert house.is_empty()


def test_an_input_that_ends_while_the_call_is_admitted_is_not_missed(house: House) -> None:
    """Nobody tells of an input that ended before the account was made."""
    _, first = house.run()

    original = house.ledger._get_life

    def admit_late() -> Any:
        if not first.done():
            house.futures.pop(first.key)
            first.settle(
                5, None, lambda value: (value, None)
            )  # and no `succeed`: nothing was used yet
        return original()

    house.ledger._get_life = admit_late  # type: ignore[method-assign]
    call = house.admit(first)
    assert house.sent == [first.key, call.key]
    assert house.is_empty()


def test_a_call_whose_input_has_failed_is_not_run_and_names_it(house: House) -> None:
    _, first = house.run()
    second = house.admit(first)
    third = house.admit(second)
    error = ValueError("x")
    house.ledger.fail(first.key, error, None)
    failures = dict(house.ended)
    assert failures[first.key] is error
    for future, cause in ((second, first), (third, second)):
        failure = failures[future.key]
        assert isinstance(failure, DependencyError)
        assert f"call {future.key}, call{future.key}, was not run" in str(failure)
        assert repr(cause) in str(failure)
        assert failure.__cause__ is cause.exception()
    assert house.engine.roused
    assert house.is_empty()


def test_a_call_whose_input_was_cancelled_is_cancelled(house: House) -> None:
    _, first = house.run()
    second = house.admit(first)
    third = house.admit(second)
    house.end(first.key, None)
    house.ledger.cancel(first.key)
    assert second.cancelled() and third.cancelled()
    assert house.sent == [first.key]
    assert house.engine.roused
    assert house.is_empty()


def test_an_input_of_others_that_was_cancelled_cancels(house: House) -> None:
    standard: concurrent.futures.Future[int] = concurrent.futures.Future()
    call = house.admit(standard)
    standard.cancel()
    assert call.cancelled()
    assert house.is_empty()


def test_a_call_that_is_cancelled_while_it_waits_is_never_sent(house: House) -> None:
    _, first = house.run()
    second = house.admit(first)
    assert house.ledger.withdraw_unsent({second.key}) == {second.key}
    house.end(second.key, None)
    house.ledger.cancel(second.key)
    house.succeed(first, 1)
    assert house.sent == [first.key]
    assert house.is_empty()


def test_refs_among_the_arguments_are_handed_on(house: House) -> None:
    ref: Ref[int] = Ref(Record(None, 1, "content", "thing", 0))  # type: ignore[arg-type]
    call = house.make(ref, [ref, 5])
    house.ledger.hand_over(call)
    assert house.engine.submitted[0].args == ("content", ["content", 5])


# Attempts.


def test_a_failed_attempt_is_followed_by_another_after_its_delay(
    house: House, later: Later
) -> None:
    call, future = house.run(retry(2, backoff=0.5))
    house.ledger.fail(call.key, ValueError("1"), call)
    assert house.ended == []
    assert [seconds for seconds, _ in later.due] == [0.5]
    later.pass_time()
    assert house.sent == [call.key] * 2
    assert house.ledger.withdraw_unsent({call.key}) == set()
    house.ledger.fail(call.key, ValueError("2"), call)
    assert [seconds for seconds, _ in later.due] == [1.0]
    later.pass_time()
    house.succeed(future, 1)
    assert house.ledger.retried == 2
    assert house.is_empty()


def test_an_attempt_after_a_death_follows_at_once(house: House, later: Later) -> None:
    call, _ = house.run(retry(0, worker_retries=1))
    house.ledger.fail(call.key, WorkerDiedError("1"), call)
    assert house.sent == [call.key] * 2
    assert later.due == []
    error = WorkerDiedError("2")
    house.ledger.fail(call.key, error, call)
    assert house.ended == [(call.key, error)]
    assert error.__notes__ == [
        "All 2 attempts failed:\n  1. WorkerDiedError: 1\n  2. WorkerDiedError: 2"
    ]
    assert house.is_empty()


def test_where_calls_run_in_their_caller_he_waits(
    house: House, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.engine.capabilities = Capabilities(
        isolates=False, parallel=False, pickles=False, concurrent=False
    )
    slept: list[float] = []
    monkeypatch.setattr(ledger_module, "sleep", slept.append)
    call, _ = house.run(retry(1, backoff=0.25))
    house.ledger.fail(call.key, ValueError("1"), call)
    assert slept == [0.25]
    assert house.sent == [call.key] * 2


def test_what_cannot_be_tried_again_is_not(house: House, later: Later) -> None:
    call, _ = house.run(retry(5))
    error = ValueError("x")
    house.ledger.fail(call.key, error, None)
    assert house.ended == [(call.key, error)]
    assert not hasattr(error, "__notes__")
    assert house.is_empty()


def test_an_attempt_that_cannot_be_sent_is_the_last(house: House, later: Later) -> None:
    call, _ = house.run(retry(5, backoff=1.0))
    house.ledger.fail(call.key, ValueError("1"), call)
    house.engine.refusal = RuntimeError("broken down")
    later.pass_time()
    assert house.ended == [(call.key, house.engine.refusal)]
    assert house.is_empty()


def test_a_delayed_call_that_is_cancelled_is_not_tried_again(house: House, later: Later) -> None:
    call, _ = house.run(retry(5, backoff=1.0))
    dependent = house.admit(house.futures[call.key])
    house.ledger.fail(call.key, ValueError("1"), call)
    house.end(call.key, None)
    house.ledger.cancel(call.key)
    assert dependent.cancelled()
    later.pass_time()
    assert house.sent == [call.key]
    assert house.is_empty()


def test_a_call_that_is_about_to_be_cancelled_is_not_tried_meanwhile(
    house: House, later: Later
) -> None:
    """Its time may come, in the timers' thread, after it was found that the engine has it not."""
    call, _ = house.run(retry(5, backoff=1.0))
    waiting = house.admit(house.futures[call.key])
    house.ledger.fail(call.key, ValueError("1"), call)
    assert house.ledger.withdraw_unsent({call.key, waiting.key}) == {call.key, waiting.key}
    later.pass_time()
    assert house.sent == [call.key]


def test_nothing_is_tried_again_after_the_end(house: House, later: Later) -> None:
    call, _ = house.run(retry(5, backoff=1.0))
    waiting = house.admit(house.futures[call.key])
    house.ledger.fail(call.key, ValueError("1"), call)
    house.ledger.clear()
    later.pass_time()
    assert house.sent == [call.key]
    assert not waiting.done()


# What keeps a call from running.


def test_what_the_engine_refuses_is_the_calls_error(house: House) -> None:
    house.engine.refusal = UnpicklableError("argument 0")
    call, _ = house.run(retry(5))
    assert house.ended == [(call.key, house.engine.refusal)]
    assert house.ledger.retried == 0


def test_an_interrupt_amid_a_submission_goes_to_the_caller(house: House) -> None:
    house.engine.refusal = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        house.run()


def test_a_call_that_never_fits_is_not_sent(house: House) -> None:
    house.engine.misfit = "it needs 9 gpus, and the session has none"
    call, _ = house.run(CallOptions(need=make_need(gpus=9)))
    ((key, error),) = house.ended
    assert key == call.key and isinstance(error, InvalidArgumentError)
    assert "9 gpus" in str(error)
    assert house.sent == []


def test_calls_that_need_one_cpu_are_not_asked_about(house: House) -> None:
    house.engine.misfit = "it does not fit"
    call, _ = house.run()
    assert house.sent == [call.key]


# Words.


def test_an_error_tells_of_all_attempts() -> None:
    error = ValueError("third\nwith a second line")
    note_attempts(error, (OSError("first"), WorkerDiedError()))
    assert error.__notes__ == [
        "All 3 attempts failed:\n  1. OSError: first\n  2. WorkerDiedError\n  3. ValueError: third"
    ]


def test_of_very_many_attempts_the_first_and_the_last_are_told() -> None:
    errors = [ValueError(str(number)) for number in range(1, 101)]
    note_attempts(errors[-1], tuple(errors[:-1]))
    head, *lines = errors[-1].__notes__[0].splitlines()
    assert head == "All 100 attempts failed:"
    told = [line.split(".")[0].strip() for line in lines if "more" not in line]
    assert told == ["1", "2", "3", "94", "95", "96", "97", "98", "99", "100"]
    assert lines[3].strip() == "… 90 more …"


def test_an_error_without_text_is_told_of_by_its_class() -> None:
    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert describe_briefly(KeyError()) == "KeyError"
    assert describe_briefly(ValueError("\n\n  late\nlines")) == "ValueError: late"
    assert describe_briefly(SpeechlessError()).startswith("SpeechlessError: (")
