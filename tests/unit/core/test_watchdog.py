"""When runs are to be looked at again."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from manyhands.core import timers
from manyhands.core.watchdog import Watchdog


class FakeClock:
    """Time that stands still, and timers that are run by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, seconds: float, fn: Callable[[], object]) -> None:
        self.timers.append((self.now + seconds, fn))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [timer for timer in self.timers if timer[0] <= end]
            if not due:
                break
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(timers, "timers", clock)
    monkeypatch.setattr("manyhands.core.watchdog.monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def dog(clock: FakeClock, told: list[Any]) -> Watchdog:
    return Watchdog(told.append)


def test_it_tells_what_is_due(dog: Watchdog, clock: FakeClock, told: list[Any]) -> None:
    dog.watch("b", 2.0)
    dog.watch("a", 1.0)
    clock.advance(0.9)
    assert told == []
    clock.advance(0.2)
    assert told == ["a"]
    clock.advance(1.0)
    assert told == ["a", "b"]
    clock.advance(100.0)
    assert told == ["a", "b"]


def test_what_is_called_off_is_not_told(dog: Watchdog, clock: FakeClock, told: list[Any]) -> None:
    dog.watch("a", 1.0)
    dog.watch("b", 1.5)
    dog.unwatch("a")
    dog.unwatch("nobody")
    clock.advance(5.0)
    assert told == ["b"]


def test_a_deadline_can_be_moved(dog: Watchdog, clock: FakeClock, told: list[Any]) -> None:
    dog.watch("a", 1.0)
    dog.watch("a", 3.0)
    clock.advance(2.0)
    assert told == []
    dog.watch("a", 0.5)
    clock.advance(0.6)
    assert told == ["a"]


def test_what_is_told_may_be_watched_again(clock: FakeClock) -> None:
    told = []

    def tell(what: str) -> None:
        told.append(what)
        if len(told) < 3:
            dog.watch(what, 1.0)

    dog = Watchdog(tell)
    dog.watch("a", 1.0)
    clock.advance(10.0)
    assert told == ["a"] * 3


def test_many_calls_cost_few_timers(dog: Watchdog, clock: FakeClock, told: list[Any]) -> None:
    for number in range(1000):
        dog.watch(number, 60.0)
        dog.unwatch(number)
        clock.advance(0.01)
    assert len(clock.timers) <= 2
    assert told == []


def test_timers_do_not_pile_up(dog: Watchdog, clock: FakeClock, told: list[Any]) -> None:
    """Earlier deadlines set further timers, and those that they make needless set none."""
    for number in range(200):
        dog.watch(number, 50.0 - number % 7)
        clock.advance(1.0)
    clock.advance(60.0)
    assert sorted(told) == list(range(200))
    assert clock.timers == []


def test_a_closed_one_lets_go(clock: FakeClock) -> None:
    class Teller:
        def tell(self, what: object) -> None:
            raise AssertionError("it is closed")

    teller = Teller()
    watched = weakref.ref(teller)
    dog = Watchdog(teller.tell)
    dog.watch("a", 3600.0)
    dog.close()
    del teller
    gc.collect()
    assert watched() is None
    clock.advance(4000.0)
