"""Calls with inputs and retries: events in, effects out."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manyhands.core.lifecycle import Effect, Fail, Lifecycle, Submit
from manyhands.core.model import CallState, RetryPolicy

ONCE = RetryPolicy()
TWICE = RetryPolicy(1)


def test_a_call_without_inputs_or_retries_costs_nothing() -> None:
    life = Lifecycle()
    assert life.admit(1, [], ONCE) == [Submit(1)]
    assert not life
    assert life.get_state(1) is None


def test_a_call_waits_for_all_its_inputs() -> None:
    life = Lifecycle()
    assert life.admit(3, [1, 2, 1], ONCE) == []
    assert life.is_waiting(3)
    assert life.succeed(1) == []
    assert life.get_state(3) is CallState.WAITING
    assert life.succeed(2) == [Submit(3)]
    assert not life


def test_a_call_with_inputs_and_retries_stays_in_the_account_until_it_ends() -> None:
    life = Lifecycle()
    life.admit(2, [1], TWICE)
    assert life.succeed(1) == [Submit(2)]
    assert life.get_state(2) is CallState.READY
    assert not life.is_waiting(2)
    assert life.succeed(2) == []
    assert not life


def test_a_failure_is_tried_again_as_often_as_allowed() -> None:
    life = Lifecycle()
    life.admit(1, [], RetryPolicy(2))
    assert life.fail(1, ValueError()) == [Submit(1)]
    assert life.fail(1, ValueError()) == [Submit(1)]
    assert life.count_attempts(1) == 2
    assert life.fail(1, ValueError()) == [Fail(1, None)]
    assert life.count_attempts(1) == 0
    assert not life


def test_only_the_errors_of_the_policy_are_tried_again() -> None:
    life = Lifecycle()
    life.admit(1, [], RetryPolicy(5, (OSError,)))
    assert life.fail(1, FileNotFoundError()) == [Submit(1)]
    assert life.fail(1, ValueError()) == [Fail(1, None)]


def test_an_interrupt_is_not_tried_again_by_default() -> None:
    life = Lifecycle()
    life.admit(1, [], RetryPolicy(5))
    assert life.fail(1, KeyboardInterrupt()) == [Fail(1, None)]


def test_a_failure_that_is_tried_again_fails_nothing_that_waits_for_it() -> None:
    life = Lifecycle()
    life.admit(1, [], TWICE)
    life.admit(2, [1], ONCE)
    assert life.fail(1, ValueError()) == [Submit(1)]
    assert life.is_waiting(2)
    assert life.succeed(1) == [Submit(2)]


def test_a_failure_fails_all_that_hangs_on_it_and_names_the_nearest_cause() -> None:
    life = Lifecycle()
    life.admit(2, [1], TWICE)
    life.admit(3, [2, 99], ONCE)
    life.admit(4, [1, 3], ONCE)
    first, *others = life.fail(1, ValueError())
    assert first == Fail(1, None)
    assert {effect.key for effect in others} == {2, 3, 4}
    causes = {effect.key: effect.cause for effect in others if isinstance(effect, Fail)}
    assert causes[2] == 1 and causes[3] == 2 and causes[4] in (1, 3)
    assert not life


def test_a_withdrawn_call_fails_what_waits_for_it_and_not_itself() -> None:
    life = Lifecycle()
    life.admit(2, [1], ONCE)
    life.admit(3, [2], ONCE)
    assert life.cancel(2) == [Fail(3, 2)]
    assert not life
    assert life.succeed(1) == []


@pytest.mark.parametrize("event", ["succeed", "cancel"])
def test_unknown_keys_mean_nothing(event: str) -> None:
    assert getattr(Lifecycle(), event)(7) == []


def test_an_unknown_call_that_fails_fails() -> None:
    assert Lifecycle().fail(7, ValueError()) == [Fail(7, None)]


def test_validate_finds_a_call_that_nobody_would_wake() -> None:
    life = Lifecycle()
    life.admit(2, [1], ONCE)
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
        self.foreign: set[int] = set()  # inputs that are no calls
        self.left: dict[int, int] = {}  # tries after this one
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
        return sorted(self.running | self.missing.keys() | self.foreign)

    @rule(data=st.data(), retries=st.integers(0, 2))
    def admit(self, data: st.DataObject, retries: int) -> None:
        inputs = data.draw(st.lists(st.sampled_from(self.open), max_size=4)) if self.open else []
        self.keys += 1
        self.left[self.keys] = retries
        self.missing[self.keys] = set(inputs)
        self.take(self.life.admit(self.keys, inputs, RetryPolicy(retries)))
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

    @precondition(lambda self: self.running or self.foreign)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        key = self.draw_ending(data)
        if key in self.running:
            self.running.discard(key)
            if self.left[key]:
                self.left[key] -= 1
                self.missing[key] = set()
                assert self.life.fail(key, ValueError()) == [Submit(key)]
                self.take([Submit(key)])
                return
        self.foreign.discard(key)
        self.come_to_nothing(key, self.life.fail(key, ValueError()), own=True)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.open))
        self.running.discard(key)
        self.foreign.discard(key)
        self.missing.pop(key, None)
        self.come_to_nothing(key, self.life.cancel(key), own=False)

    def come_to_nothing(self, key: int, effects: list[Effect], *, own: bool) -> None:
        if own:
            assert effects.pop(0) == Fail(key, None)
        doomed = self.find_dependents(key)
        assert sorted(effect.key for effect in effects) == sorted(doomed)
        for effect in effects:
            assert isinstance(effect, Fail)
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
            assert self.life.is_waiting(key)
            assert missing
        for key in self.ends:
            assert self.life.get_state(key) is None

    @invariant()
    def every_call_is_in_one_place_and_ends_once(self) -> None:
        assert all(times == 1 for times in self.ends.values())
        places = [*self.running, *self.missing, *(key for key in self.ends if key > 0)]
        assert sorted(places) == list(range(1, self.keys + 1))

    def teardown(self) -> None:
        """All that still runs ends well: then nothing is left, and nothing is remembered."""
        while self.running or self.foreign:
            key = next(iter(self.running or self.foreign))
            self.end_well(key)
            self.take(self.life.succeed(key))
        assert not self.missing
        assert not self.life


TestLifecycleMachine = LifecycleMachine.TestCase
TestLifecycleMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
