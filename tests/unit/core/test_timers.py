"""What is due in a while is called, in order."""

import threading
from collections.abc import Callable
from time import monotonic

import pytest

from manyhands.core import timers as timers_module
from manyhands.core.timers import Timers


@pytest.fixture
def timers() -> Timers:
    return Timers()


def test_what_is_due_is_called_in_a_thread_of_its_own(timers: Timers) -> None:
    called = threading.Event()
    threads: list[threading.Thread] = []

    def note() -> None:
        threads.append(threading.current_thread())
        called.set()

    timers.call_later(0, note)
    assert called.wait(30)
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert thread.daemon, "it keeps no program from ending"


def test_the_earliest_goes_first_whenever_it_was_given(timers: Timers) -> None:
    order: list[int] = []
    both = threading.Semaphore(0)

    def note(number: int) -> Callable[[], None]:
        def call() -> None:
            order.append(number)
            both.release()

        return call

    timers.call_later(1.0, note(2))
    timers.call_later(3600, note(4))
    timers.call_later(0.02, note(1))  # for this the thread has to look up from its wait
    timers.call_later(1.2, note(3))
    for _ in range(3):
        assert both.acquire(timeout=30)
    assert order == [1, 2, 3]


def test_of_those_due_at_once_the_first_given_goes_first(
    timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers_module, "monotonic", lambda: 5.0)
    order: list[int] = []
    done = threading.Event()
    begin = threading.Event()
    timers.call_later(0, lambda: begin.wait(30))
    for number in range(20):
        timers.call_later(0, lambda number=number: order.append(number))  # type: ignore[misc]
    timers.call_later(0, done.set)
    begin.set()
    assert done.wait(30)
    assert order == list(range(20))


def test_a_finalizer_may_give_something_amid_a_call(
    timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in whatever thread is just at anything, and waits for nothing that this one holds."""
    given: list[str] = []
    both = threading.Semaphore(0)

    def finalize() -> float:
        if threading.current_thread() is giver and not given:
            given.append("by a finalizer")
            timers.call_later(0, both.release)
        return monotonic()

    monkeypatch.setattr(timers_module, "monotonic", finalize)
    giver = threading.Thread(target=timers.call_later, args=(0, both.release), daemon=True)
    giver.start()
    assert both.acquire(timeout=30)
    assert both.acquire(timeout=30)


def test_it_starts_later_where_the_system_gives_no_thread(
    timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Semaphore(0)

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            timers.call_later(0, done.release)
    timers.call_later(0, done.release)
    assert done.acquire(timeout=30)
    assert done.acquire(timeout=30)


def test_there_is_one_thread_and_none_before_it_is_needed(timers: Timers) -> None:
    assert timers._thread is None
    done = threading.Event()
    timers.call_later(3600, lambda: None)
    thread = timers._thread
    timers.call_later(0, done.set)
    assert done.wait(30)
    assert timers._thread is thread


def test_what_is_due_in_centuries_keeps_nothing_from_its_time(timers: Timers) -> None:
    done = threading.Event()
    timers.call_later(1e12, lambda: None)  # a lock takes no more than 292 years
    timers.call_later(0.02, done.set)
    assert done.wait(30)
    again = threading.Event()
    timers.call_later(0.02, again.set)
    assert again.wait(30)


def test_what_was_called_is_let_go(timers: Timers) -> None:
    done = threading.Event()
    gone = threading.Event()

    class Witness:
        def __call__(self) -> None:
            done.set()

        def __del__(self) -> None:
            gone.set()

    timers.call_later(0, Witness())
    assert done.wait(30)
    assert gone.wait(30)


def test_a_forked_child_has_timers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = timers_module.timers
    monkeypatch.setattr(timers_module, "timers", before)
    timers_module._renew()
    assert timers_module.timers is not before
    assert timers_module.timers._thread is None
