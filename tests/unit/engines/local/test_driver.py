"""Who drives the engine: one thread at a time."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from manyhands.engines.local.driver import Driver

LONG = 30.0
"""Seconds after which a wait that should have ended is a failure."""


class FakeSteps:
    """An engine with a pipe in the place of its workers: what is dispatched comes out of it at once."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.queued = 0
        self.lock = threading.Lock()  # of that, which several threads count
        self.sent = 0
        self.came = 0
        self.delivered = 0
        self.busy = False
        self.answers = True
        self.again: float | None = None
        self.failure: Exception | None = None
        self.errors: list[BaseException] = []
        self.threads: list[int] = []
        self.on_deliver: Callable[[], object] = lambda: None
        self.on_dispatch: Callable[[], object] = lambda: None

    def dispatch(self) -> float | None:
        self.threads.append(threading.get_ident())
        self.on_dispatch()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        while self.queued:
            with self.lock:
                self.queued -= 1
            self.sent += 1
            if self.answers:
                self.answer()
        again, self.again = self.again, None
        return again

    def answer(self) -> None:
        os.write(self.writing, b"x")

    def take(self) -> None:
        self.came += len(os.read(self.reading, 1000))

    def rest(self) -> float | None:
        return None

    def deliver(self) -> None:
        self.delivered = self.came
        self.busy = self.delivered < self.sent + self.queued
        self.on_deliver()

    def is_busy(self) -> bool:
        return self.busy

    def estimate_slack(self) -> float:
        return 0.0

    def has_free_core(self) -> bool:
        return False

    def give_up(self, error: BaseException) -> None:
        self.errors.append(error)


@pytest.fixture
def steps() -> Iterator[FakeSteps]:
    steps = FakeSteps()
    yield steps
    os.close(steps.reading)
    os.close(steps.writing)


@pytest.fixture
def driver(steps: FakeSteps, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    # Who waits beside the leader looks for himself now and then; here he has to be told.
    monkeypatch.setattr("manyhands.engines.local.driver._FOLLOW_SECONDS", 10 * LONG)
    driver = Driver(steps)
    driver.watch(steps.reading, steps.take)
    yield driver
    driver.close()


def submit(driver: Driver, steps: FakeSteps, calls: int = 1) -> None:
    for _ in range(calls):
        with steps.lock:
            steps.queued += 1
        steps.busy = True
        driver.nudge()


def run_in_thread(target: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(target()), daemon=True)
    thread.start()
    return thread, answers


def test_the_thread_that_waits_drives(driver: Driver, steps: FakeSteps) -> None:
    submit(driver, steps)
    assert driver.wait_until(lambda: steps.delivered == 1, LONG)
    assert steps.delivered == 1
    assert threading.get_ident() in steps.threads


def test_what_has_ended_is_not_waited_for(driver: Driver, steps: FakeSteps) -> None:
    assert driver.wait_until(lambda: True, None)
    assert steps.threads == []


def test_a_wait_without_time_takes_in_what_has_come(driver: Driver, steps: FakeSteps) -> None:
    steps.answer()
    assert driver.wait_until(lambda: steps.delivered == 1, 0)


def test_a_wait_without_time_ends_at_once(driver: Driver, steps: FakeSteps) -> None:
    assert not driver.wait_until(lambda: False, 0)
    assert not driver.wait_until(lambda: False, -1)
    assert len(steps.threads) == 2, "one look each"


def test_a_wait_ends_with_its_time(driver: Driver) -> None:
    assert not driver.wait_until(lambda: False, 0.01)


def test_a_burst_of_calls_is_sent_by_a_wait(driver: Driver, steps: FakeSteps) -> None:
    submit(driver, steps, 500)
    assert driver.wait_until(lambda: steps.delivered == 500, LONG)
    assert steps.sent == 500


def test_a_burst_is_sent_without_any_wait(driver: Driver, steps: FakeSteps) -> None:
    """The background thread sees to what nobody waits for."""
    arrived = threading.Event()
    steps.on_deliver = lambda: arrived.set() if steps.delivered == 100 else None
    submit(driver, steps, 100)
    assert arrived.wait(LONG)


def test_what_comes_is_delivered_while_others_wait_by_their_own_means(
    driver: Driver, steps: FakeSteps
) -> None:
    steps.answers = False
    submit(driver, steps)
    arrived = threading.Event()
    steps.on_deliver = lambda: arrived.set() if steps.delivered else None
    driver.attend()
    steps.answer()
    assert arrived.wait(LONG)


@pytest.mark.parametrize("burst_seconds", [0.0, LONG], ids=["alone", "burst"])
def test_a_parked_background_thread_is_woken_by_work(
    driver: Driver, steps: FakeSteps, monkeypatch: pytest.MonkeyPatch, burst_seconds: float
) -> None:
    monkeypatch.setattr("manyhands.engines.local.driver._IDLE_TICKS", 0)
    monkeypatch.setattr("manyhands.engines.local.driver._BURST_SECONDS", burst_seconds)
    parked = threading.Event()
    acquire = driver._gate.acquire

    def watch(*args: Any, **options: Any) -> bool:
        if options == {"timeout": None} and not steps.is_busy():
            parked.set()
        return acquire(*args, **options)

    monkeypatch.setattr(driver._gate, "acquire", watch)
    submit(driver, steps)
    assert driver.wait_until(lambda: steps.delivered == 1, LONG)
    parked.clear()
    driver._gate.release()
    assert parked.wait(LONG)
    arrived = threading.Event()
    steps.on_deliver = lambda: arrived.set() if steps.delivered == 2 else None
    submit(driver, steps)
    assert arrived.wait(2)


def test_one_thread_drives_at_a_time(driver: Driver, steps: FakeSteps) -> None:
    inside: list[int] = []
    most: list[int] = []

    def look() -> None:
        inside.append(threading.get_ident())
        most.append(len(inside))
        inside.remove(threading.get_ident())

    steps.on_dispatch = look

    def work() -> bool:
        for _ in range(50):
            submit(driver, steps)
            driver.wait_until(lambda: not steps.busy, LONG)
        return True

    threads = [run_in_thread(work) for _ in range(4)]
    for thread, _ in threads:
        thread.join(LONG)
    assert [answers for _, answers in threads] == [[True]] * 4
    assert set(most) == {1}
    assert driver.wait_until(lambda: steps.delivered == steps.sent == 200, LONG)


def test_a_follower_sees_the_end_that_the_leader_takes_in(driver: Driver, steps: FakeSteps) -> None:
    steps.answers = False
    leading = threading.Event()
    steps.on_dispatch = leading.set
    submit(driver, steps, 2)
    leader, leaders = run_in_thread(lambda: driver.wait_until(lambda: steps.delivered >= 2, LONG))
    assert leading.wait(LONG)
    follower, followers = run_in_thread(
        lambda: driver.wait_until(lambda: steps.delivered >= 1, LONG)
    )
    steps.answer()
    follower.join(LONG)
    assert followers == [True]
    assert not leaders
    steps.answer()
    leader.join(LONG)
    assert leaders == [True]


def test_a_follower_takes_over_where_the_leader_is_done(driver: Driver, steps: FakeSteps) -> None:
    steps.answers = False
    leading = threading.Event()
    steps.on_dispatch = leading.set
    submit(driver, steps, 2)
    leader, leaders = run_in_thread(lambda: driver.wait_until(lambda: steps.delivered >= 1, LONG))
    assert leading.wait(LONG)
    follower, followers = run_in_thread(
        lambda: driver.wait_until(lambda: steps.delivered >= 2, LONG)
    )
    steps.answer()
    leader.join(LONG)
    assert leaders == [True]
    steps.answer()
    follower.join(LONG)
    assert followers == [True]


def test_who_waits_looks_again_when_woken(driver: Driver, steps: FakeSteps) -> None:
    """What is waited for may come about without any worker."""
    ended: list[bool] = []
    leading = threading.Event()
    steps.on_deliver = leading.set
    steps.answer()
    leader, leaders = run_in_thread(lambda: driver.wait_until(lambda: bool(ended), LONG))
    assert leading.wait(LONG)
    follower, followers = run_in_thread(lambda: driver.wait_until(lambda: bool(ended), LONG))
    ended.append(True)
    driver.wake()
    leader.join(2)
    follower.join(2)
    assert (leaders, followers) == ([True], [True])


def test_a_callback_may_wait_inside_of_a_step(driver: Driver, steps: FakeSteps) -> None:
    seen: list[bool] = []

    def wait_for_another() -> None:
        steps.on_deliver = lambda: None
        submit(driver, steps)
        seen.append(driver.wait_until(lambda: steps.delivered == 2, LONG))

    steps.on_deliver = lambda: wait_for_another() if steps.delivered == 1 else None
    submit(driver, steps)
    assert driver.wait_until(lambda: bool(seen), LONG)
    assert seen == [True]


def test_an_action_runs_here_where_nobody_leads(driver: Driver) -> None:
    ran: list[int] = []
    driver.run(lambda: ran.append(threading.get_ident()))
    assert ran == [threading.get_ident()]


def test_an_action_of_a_leader_runs_at_once(driver: Driver, steps: FakeSteps) -> None:
    ran: list[str] = []
    driver.run(lambda: driver.run(lambda: ran.append("inner")))
    assert ran == ["inner"]


def test_an_action_is_run_by_the_leader(driver: Driver, steps: FakeSteps) -> None:
    steps.answers = False
    leading = threading.Event()
    steps.on_dispatch = leading.set
    submit(driver, steps)
    leader, _ = run_in_thread(lambda: driver.wait_until(lambda: steps.delivered == 1, LONG))
    assert leading.wait(LONG)
    ran: list[int] = []
    driver.run(lambda: ran.append(threading.get_ident()))
    assert len(ran) == 1
    steps.answer()
    leader.join(LONG)
    assert not leader.is_alive()


def test_an_actions_error_reaches_who_asked(driver: Driver, steps: FakeSteps) -> None:
    def fail() -> None:
        raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        driver.run(fail)

    steps.answers = False
    leading = threading.Event()
    steps.on_dispatch = leading.set
    submit(driver, steps)
    leader, answers = run_in_thread(lambda: driver.wait_until(lambda: steps.delivered == 1, LONG))
    assert leading.wait(LONG)
    with pytest.raises(LookupError, match="here"):
        driver.run(fail)
    steps.answer()
    leader.join(LONG)
    assert answers == [True]
    assert steps.errors == []


def test_a_step_that_fails_gives_up_and_goes_on(driver: Driver, steps: FakeSteps) -> None:
    error = steps.failure = OSError("broken")
    driver.wait_until(lambda: False, 0)
    assert steps.errors == [error]
    submit(driver, steps)
    assert driver.wait_until(lambda: steps.delivered == 1, LONG)


def test_a_dispatch_that_asks_for_it_is_called_again(driver: Driver, steps: FakeSteps) -> None:
    submit(driver, steps)
    assert driver.wait_until(lambda: steps.delivered == 1, LONG)
    steps.threads.clear()

    def ask_again() -> None:
        steps.again = 0.001 if len(steps.threads) < 5 else None

    steps.on_dispatch = ask_again
    steps.answer()
    assert driver.wait_until(lambda: len(steps.threads) >= 5, LONG)


def test_what_is_no_longer_watched_is_not_read(driver: Driver, steps: FakeSteps) -> None:
    driver.unwatch(steps.reading)
    driver.unwatch(steps.reading)
    steps.answer()
    assert not driver.wait_until(lambda: steps.came > 0, 0)
    driver.watch(steps.reading, steps.take)
    assert driver.wait_until(lambda: steps.came > 0, LONG)


def test_a_handler_may_unwatch_another(driver: Driver, steps: FakeSteps) -> None:
    reading, writing = os.pipe()
    try:
        read: list[str] = []

        def take(name: str, other: int) -> None:
            read.append(name)
            driver.unwatch(other)

        driver.unwatch(steps.reading)
        driver.watch(steps.reading, lambda: take("first", reading))
        driver.watch(reading, lambda: take("second", steps.reading))
        os.write(writing, b"x")
        steps.answer()
        driver.wait_until(lambda: False, 0)
        assert len(read) == 1
    finally:
        os.close(reading)
        os.close(writing)


def test_a_wait_is_interrupted_and_the_driver_stays_whole(driver: Driver, steps: FakeSteps) -> None:
    def handle(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        steps.on_dispatch = lambda: signal.raise_signal(signal.SIGINT)
        steps.answer()
        with pytest.raises(KeyboardInterrupt):
            driver.wait_until(lambda: bool(steps.threads), LONG)
        assert steps.delivered == 1, "the step was not torn"
        assert signal.getsignal(signal.SIGINT) is handle
    finally:
        signal.signal(signal.SIGINT, before)
    steps.on_dispatch = lambda: None
    submit(driver, steps)
    assert driver.wait_until(lambda: steps.delivered == 2, LONG)


def test_times_longer_than_the_system_takes_are_waited_for_too(
    driver: Driver, steps: FakeSteps
) -> None:
    """A call may have a time-out of a year, and its caller patience for a century."""
    steps.answers = False
    steps.again = 366 * 86_400.0
    submit(driver, steps)
    waiter, answers = run_in_thread(lambda: driver.wait_until(lambda: steps.delivered == 1, 1e10))
    steps.answer()
    waiter.join(LONG)
    assert answers == [True]
    assert steps.errors == []


def test_a_closed_driver_leaves_nothing(steps: FakeSteps) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is asked
    driver = Driver(steps)
    driver.watch(steps.reading, steps.take)
    submit(driver, steps)
    assert driver.wait_until(lambda: steps.delivered == 1, LONG)
    background = driver._background
    assert background is not None
    driver.close()
    assert not background.is_alive()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    driver.wake()
    driver.attend()


def test_who_is_woken_by_a_close_finds_it_closed(
    steps: FakeSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(steps)
    found: list[bool] = []
    monkeypatch.setattr(os, "eventfd_write", lambda fd, value: found.append(driver._is_closed))
    driver.close()
    assert found == [True]


def test_a_close_ends_the_wait_of_others_once_they_are_done(steps: FakeSteps) -> None:
    driver = Driver(steps)
    driver.watch(steps.reading, steps.take)
    steps.answers = False
    leading = threading.Event()
    steps.on_dispatch = leading.set
    submit(driver, steps)
    ended: list[bool] = []
    waiter, answers = run_in_thread(lambda: driver.wait_until(lambda: bool(ended), LONG))
    assert leading.wait(LONG)
    driver.close()
    ended.append(True)  # as a session that closes ends its futures
    waiter.join(LONG)
    assert answers == [True]
