"""Calls with inputs and retries: events in, effects out."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manyhands.core.lifecycle import Again, Attempts, Cancel, Effect, Fail, Lifecycle, Submit
from manyhands.core.model import NO_RETRIES, CallState, RetryPolicy
from manyhands.errors import WorkerDiedError


def make_policy(retries: int = 0, worker_retries: int = 0) -> RetryPolicy:
    """One whose attempts follow at once."""
    return RetryPolicy(retries, worker_retries=worker_retries, backoff=0.0)


# How often.


def test_failures_are_tried_again_as_often_as_allowed() -> None:
    attempts = Attempts(make_policy(2))
    errors = [ValueError(str(number)) for number in range(3)]
    assert [attempts.fail(error, 1.0) for error in errors] == [0.0, 0.0, None]
    assert attempts.errors == errors


def test_a_workers_death_is_tried_again_once_unasked_and_at_once() -> None:
    attempts = Attempts(NO_RETRIES)
    assert attempts.fail(WorkerDiedError(), 1.0) == 0.0
    assert attempts.fail(WorkerDiedError(), 1.0) is None


def test_retries_do_not_cover_deaths() -> None:
    attempts = Attempts(make_policy(retries=9, worker_retries=0))
    assert attempts.fail(WorkerDiedError(), 1.0) is None


def test_worker_retries_do_not_cover_failures() -> None:
    attempts = Attempts(make_policy(retries=0, worker_retries=9))
    assert attempts.fail(ValueError(), 1.0) is None


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 3), st.integers(0, 3))
def test_deaths_and_failures_are_counted_apart(
    deaths: list[bool], retries: int, worker_retries: int
) -> None:
    attempts = Attempts(make_policy(retries, worker_retries))
    for place, is_death in enumerate(deaths):
        so_far = deaths[: place + 1].count(is_death)
        allowed = so_far <= (worker_retries if is_death else retries)
        error = WorkerDiedError() if is_death else ValueError()
        assert (attempts.fail(error, 1.0) is not None) == allowed
        if not allowed:
            return


def test_delays_double_up_to_the_cap() -> None:
    policy = RetryPolicy(6, backoff=0.5, backoff_cap=3.0)
    attempts = Attempts(policy)
    delays = [attempts.fail(ValueError(), 1.0) for _ in range(6)]
    assert delays == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_deaths_do_not_lengthen_the_delay_of_failures() -> None:
    attempts = Attempts(RetryPolicy(3, worker_retries=5, backoff=0.5))
    for _ in range(4):
        attempts.fail(WorkerDiedError(), 1.0)
    assert attempts.fail(ValueError(), 1.0) == 0.5
    assert attempts.fail(WorkerDiedError(), 1.0) == 0.0
    assert attempts.fail(ValueError(), 1.0) == 1.0


@given(st.floats(0, 1), st.integers(1, 2000))
def test_chance_takes_up_to_half_of_a_delay(chance: float, failures: int) -> None:
    policy = RetryPolicy(failures, backoff=0.1, backoff_cap=30.0)
    attempts, longest = Attempts(policy), Attempts(policy)
    for _ in range(failures):
        delay, most = attempts.fail(ValueError(), chance), longest.fail(ValueError(), 1.0)
    assert delay is not None and most is not None
    assert most / 2 <= delay <= most <= 30.0
    assert delay == pytest.approx(most * (1 + chance) / 2)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_what_is_no_exception_is_not_tried_again_by_default(error: BaseException) -> None:
    assert Attempts(make_policy(5)).fail(error, 1.0) is None


def test_a_function_may_say_what_is_tried_again() -> None:
    seen: list[BaseException] = []

    def is_transient(error: BaseException) -> object:
        seen.append(error)
        return str(error)  # anything that is true will do

    attempts = Attempts(RetryPolicy(9, is_transient, backoff=0.0))
    errors = [ValueError("once"), ValueError("")]
    assert [attempts.fail(error, 1.0) for error in errors] == [0.0, None]
    assert seen == errors


def test_a_function_is_not_asked_of_deaths_nor_when_no_attempt_is_left() -> None:
    def refuse(error: BaseException) -> object:
        raise AssertionError(error)

    attempts = Attempts(RetryPolicy(0, refuse))
    assert attempts.fail(WorkerDiedError(), 1.0) == 0.0
    error = ValueError()
    assert attempts.fail(error, 1.0) is None
    assert not hasattr(error, "__notes__")


def test_a_function_that_fails_says_no_and_is_told_of() -> None:
    def stumble(error: BaseException) -> object:
        raise LookupError("in the function")

    error = ValueError("x")
    assert Attempts(RetryPolicy(9, stumble)).fail(error, 1.0) is None
    assert "retry_on=" in error.__notes__[0] and "in the function" in error.__notes__[0]


# One call.


def test_a_call_without_inputs_costs_nothing() -> None:
    life = Lifecycle()
    assert life.admit(1, []) == [Submit(1)]
    assert not life
    assert life.get_state(1) is None
    assert life.is_with_engine(1)


def test_a_call_waits_for_all_its_inputs() -> None:
    life = Lifecycle()
    assert life.admit(3, [1, 2, 1]) == []
    assert life.get_state(3) is CallState.WAITING
    assert not life.is_with_engine(3)
    assert life.succeed(1) == []
    assert life.get_state(3) is CallState.WAITING
    assert life.succeed(2) == [Submit(3)]
    assert life.is_with_engine(3)
    assert not life


def test_a_call_that_was_tried_stays_in_the_account_until_it_ends() -> None:
    life = Lifecycle()
    life.fail(2, ValueError(), make_policy(1))
    assert life.resume(2)
    assert life.get_state(2) is CallState.READY
    assert life.is_with_engine(2)
    assert life.succeed(2) == []
    assert not life


def test_a_failure_is_tried_again_as_often_as_allowed() -> None:
    life, policy = Lifecycle(), make_policy(2)
    errors = [ValueError("1"), ValueError("2"), ValueError("3")]
    assert life.fail(1, errors[0], policy) == [Again(1, 0.0)]
    assert life.resume(1)
    assert life.fail(1, errors[1], policy) == [Again(1, 0.0)]
    assert life.count_attempts(1) == 2
    assert life.resume(1)
    assert life.fail(1, errors[2], policy) == [Fail(1, None, tuple(errors[:2]))]
    assert life.count_attempts(1) == 0
    assert not life


def test_a_call_is_delayed_until_its_next_attempt_is_due() -> None:
    life = Lifecycle()
    assert life.fail(1, ValueError(), RetryPolicy(1, backoff=0.5), chance=0.0) == [Again(1, 0.25)]
    assert life.get_state(1) is CallState.DELAYED
    assert not life.is_with_engine(1)
    assert life.resume(1)
    assert life.is_with_engine(1)
    assert not life.resume(1), "it is due once"


def test_only_the_errors_of_the_policy_are_tried_again() -> None:
    life, policy = Lifecycle(), RetryPolicy(5, (OSError,), backoff=0.0)
    missing = FileNotFoundError()
    assert life.fail(1, missing, policy) == [Again(1, 0.0)]
    assert life.resume(1)
    assert life.fail(1, ValueError(), policy) == [Fail(1, None, (missing,))]


def test_a_failure_that_is_tried_again_fails_nothing_that_waits_for_it() -> None:
    life = Lifecycle()
    life.admit(2, [1])
    assert life.fail(1, ValueError(), make_policy(1)) == [Again(1, 0.0)]
    assert life.get_state(2) is CallState.WAITING
    assert life.resume(1)
    assert life.succeed(1) == [Submit(2)]


def test_a_failure_fails_all_that_hangs_on_it_and_names_the_nearest_cause() -> None:
    life = Lifecycle()
    life.admit(2, [1])
    life.admit(3, [2, 99])
    life.admit(4, [1, 3])
    first, *others = life.fail(1, ValueError(), NO_RETRIES)
    assert first == Fail(1, None)
    assert {effect.key for effect in others} == {2, 3, 4}
    causes = {effect.key: effect.cause for effect in others if isinstance(effect, Fail)}
    assert causes[2] == 1 and causes[3] == 2 and causes[4] in (1, 3)
    assert not life


def test_what_cannot_run_at_all_is_not_tried_again() -> None:
    life = Lifecycle()
    life.admit(2, [1])
    life.fail(1, ValueError(), make_policy(5))
    assert life.refuse(1) == [Fail(1, None), Fail(2, 1)]
    assert not life


def test_a_withdrawn_call_cancels_what_waits_for_it_and_not_itself() -> None:
    life = Lifecycle()
    life.admit(2, [1])
    life.admit(3, [2])
    life.admit(4, [3, 1])
    assert life.cancel(2) == [Cancel(3, 2), Cancel(4, 3)]
    assert not life
    assert life.succeed(1) == []


def test_a_withdrawn_call_that_was_delayed_is_not_tried_again() -> None:
    life = Lifecycle()
    life.fail(1, ValueError(), make_policy(5))
    assert life.cancel(1) == []
    assert not life
    assert not life.resume(1)


@pytest.mark.parametrize("event", ["succeed", "cancel"])
def test_unknown_keys_mean_nothing(event: str) -> None:
    assert getattr(Lifecycle(), event)(7) == []


def test_an_unknown_call_is_not_resumed() -> None:
    life = Lifecycle()
    assert not life.resume(7)
    life.admit(2, [1])
    assert not life.resume(2), "it waits for its input"
    assert life.get_state(2) is CallState.WAITING


def test_an_unknown_call_that_fails_fails() -> None:
    assert Lifecycle().fail(7, ValueError(), NO_RETRIES) == [Fail(7, None)]
    assert Lifecycle().refuse(7) == [Fail(7, None)]


def test_validate_finds_a_call_that_nobody_would_wake() -> None:
    life = Lifecycle()
    life.admit(2, [1])
    life._dependents.clear()
    with pytest.raises(AssertionError):
        life.validate()


class LifecycleMachine(RuleBasedStateMachine):
    """Beside a model that knows of each call what it waits for and how often it may still fail."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Lifecycle()
        self.keys = 0
        self.foreign_keys = 0
        self.missing: dict[int, set[int]] = {}  # of calls that wait
        self.running: set[int] = set()
        self.delayed: set[int] = set()
        self.foreign: set[int] = set()  # inputs that are no calls
        self.policies: dict[int, RetryPolicy] = {}
        self.errors: dict[int, list[BaseException]] = {}  # of attempts so far
        self.ends: Counter[int] = Counter()

    def take(self, effects: list[Effect]) -> None:
        """Carry effects out as a session would."""
        for effect in effects:
            assert isinstance(effect, Submit)
            assert effect.key not in self.running, "submitted while it runs"
            assert self.missing.pop(effect.key) == set(), "submitted before its inputs"
            self.running.add(effect.key)

    def end_well(self, key: int) -> None:
        self.running.discard(key)
        self.foreign.discard(key)
        self.ends[key] += 1
        for missing in self.missing.values():
            missing.discard(key)

    @property
    def open(self) -> list[int]:
        return sorted(self.running | self.missing.keys() | self.delayed | self.foreign)

    @rule(data=st.data(), retries=st.integers(0, 2), worker_retries=st.integers(0, 2))
    def admit(self, data: st.DataObject, retries: int, worker_retries: int) -> None:
        inputs = data.draw(st.lists(st.sampled_from(self.open), max_size=4)) if self.open else []
        self.keys += 1
        self.policies[self.keys] = RetryPolicy(retries, (ValueError,), worker_retries, backoff=1.0)
        self.errors[self.keys] = []
        self.missing[self.keys] = set(inputs)
        self.take(self.life.admit(self.keys, inputs))
        assert (self.keys in self.running) == (not inputs)

    @rule()
    def add_foreign_input(self) -> None:
        self.foreign_keys -= 1
        self.foreign.add(self.foreign_keys)

    def draw_ending(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.running | self.foreign)))

    @precondition(lambda self: self.running or self.foreign)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        key = self.draw_ending(data)
        ready = {call for call, missing in self.missing.items() if missing == {key}}
        self.end_well(key)
        effects = self.life.succeed(key)
        assert sorted(effect.key for effect in effects) == sorted(ready)
        self.take(effects)

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        kind=st.sampled_from([ValueError, KeyError, WorkerDiedError]),
        chance=st.floats(0, 1),
    )
    def fail(self, data: st.DataObject, kind: type[BaseException], chance: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        policy, error, history = self.policies[key], kind(), self.errors[key]
        deaths = sum(isinstance(earlier, WorkerDiedError) for earlier in history)
        left = (
            policy.worker_retries - deaths
            if kind is WorkerDiedError
            else policy.retries - (len(history) - deaths)
        )
        self.running.discard(key)
        effects = self.life.fail(key, error, policy, chance)
        if left > 0 and kind is not KeyError:
            (again,) = effects
            assert isinstance(again, Again) and again.key == key
            assert (again.delay == 0) == (kind is WorkerDiedError)
            history.append(error)
            self.delayed.add(key)
            assert self.life.count_attempts(key) == len(history)
        else:
            self.come_to_nothing(key, effects, Fail(key, None, tuple(history)))

    @precondition(lambda self: self.running or self.foreign)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        key = self.draw_ending(data)
        self.running.discard(key)
        self.foreign.discard(key)
        self.come_to_nothing(key, self.life.refuse(key), Fail(key, None))

    @precondition(lambda self: self.delayed)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.delayed)))
        self.delayed.discard(key)
        assert self.life.resume(key)
        self.running.add(key)

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def resume_another(self, data: st.DataObject) -> None:
        key = data.draw(st.integers(1, self.keys))
        if key not in self.delayed:
            assert not self.life.resume(key)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.open))
        self.running.discard(key)
        self.foreign.discard(key)
        self.delayed.discard(key)
        self.missing.pop(key, None)
        self.come_to_nothing(key, self.life.cancel(key), None)

    def come_to_nothing(self, key: int, effects: list[Effect], own: Fail | None) -> None:
        if own is not None:
            assert effects.pop(0) == own
        doomed = self.find_dependents(key)
        assert sorted(effect.key for effect in effects) == sorted(doomed)
        for effect in effects:
            assert isinstance(effect, Cancel if own is None else Fail)
            assert effect.cause == key or effect.cause in doomed
            assert effect.cause in self.missing[effect.key]
        for ended in (key, *doomed):
            self.missing.pop(ended, None)
            self.ends[ended] += 1

    def find_dependents(self, key: int) -> set[int]:
        found: set[int] = set()
        front = {key}
        while front:
            front = {call for call, missing in self.missing.items() if missing & front} - found
            found |= front
        return found

    @invariant()
    def account_is_whole(self) -> None:
        self.life.validate()
        for key, missing in self.missing.items():
            assert self.life.get_state(key) is CallState.WAITING
            assert missing
        for key in self.delayed:
            assert self.life.get_state(key) is CallState.DELAYED
        for key in self.running:
            assert self.life.is_with_engine(key)
            tried = bool(self.errors[key])
            assert self.life.get_state(key) is (CallState.READY if tried else None)
        for key in self.ends:
            assert self.life.get_state(key) is None

    @invariant()
    def every_call_is_in_one_place_and_ends_once(self) -> None:
        assert all(times == 1 for times in self.ends.values())
        ended = (key for key in self.ends if key > 0)
        places = [*self.running, *self.missing, *self.delayed, *ended]
        assert sorted(places) == list(range(1, self.keys + 1))

    def teardown(self) -> None:
        """All that is left ends well: then nothing is left, and nothing is remembered."""
        while self.running or self.foreign or self.delayed:
            for key in self.delayed:
                assert self.life.resume(key)
            self.running |= self.delayed
            self.delayed.clear()
            key = next(iter(self.running or self.foreign))
            self.end_well(key)
            self.take(self.life.succeed(key))
        assert not self.missing
        assert not self.life


TestLifecycleMachine = LifecycleMachine.TestCase
TestLifecycleMachine.settings = settings(max_examples=60, stateful_step_count=40)
