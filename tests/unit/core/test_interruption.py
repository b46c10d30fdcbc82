"""Work in a thread that other threads interrupt."""

import threading
from collections.abc import Callable

import pytest

from manyhands.core.interruption import Interruptible
from manyhands.errors import CallInterrupted

LONG = 30.0


def run_in_thread(
    work: Interruptible, body: Callable[[], None], told: list[str]
) -> threading.Thread:
    """Do what `body` does as that work, note by what it ended, and do a little more in the same thread."""

    def run() -> None:
        try:
            try:
                work.begin()
                body()
                told.append("done")
            finally:
                work.leave()
        except CallInterrupted:
            work.leave()
            told.append("interrupted")
        told.append("over")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_an_interrupt_strikes_work_that_runs() -> None:
    begun, told = threading.Event(), list[str]()
    work = Interruptible()

    def spin() -> None:
        begun.set()
        while True:
            pass

    thread = run_in_thread(work, spin, told)
    assert begun.wait(LONG)
    work.interrupt()
    work.interrupt()  # once is enough
    thread.join(LONG)
    assert told == ["interrupted", "over"]
    assert work.thread == 0


def test_work_that_was_interrupted_before_does_not_begin() -> None:
    told = list[str]()
    work = Interruptible()
    work.interrupt()
    run_in_thread(work, lambda: told.append("begun"), told).join(LONG)
    assert told == ["interrupted", "over"]


def test_what_follows_the_work_is_not_struck() -> None:
    for _ in range(200):
        told = list[str]()
        work = Interruptible()
        thread = run_in_thread(work, lambda: None, told)
        work.interrupt()
        thread.join(LONG)
        assert told[-1] == "over"
        assert len(told) == 2 or told == ["done", "interrupted", "over"]


def test_a_guard_holds_an_interrupt_back_until_its_end() -> None:
    inside, may_go, told = threading.Event(), threading.Event(), list[str]()
    woken = threading.Event()
    work = Interruptible()

    def use() -> None:
        with work, work:
            work.set_wake(woken.set)
            inside.set()
            assert may_go.wait(LONG)
            assert woken.is_set()
            told.append("whole" if work.is_due else "not told")
        told.append("went on")

    thread = run_in_thread(work, use, told)
    assert inside.wait(LONG)
    work.interrupt()
    may_go.set()
    thread.join(LONG)
    assert told == ["whole", "interrupted", "over"]


def test_a_guard_says_no_to_work_that_was_given_up() -> None:
    work = Interruptible()
    work.is_interrupted = work.is_given_up = True
    with pytest.raises(CallInterrupted), work:
        pytest.fail("it makes more calls")


def test_a_task_of_an_event_loop_is_told_by_its_stop() -> None:
    told = list[str]()
    early, late = Interruptible(), Interruptible()
    assert early.set_stop(lambda: told.append("stop"))
    early.interrupt()
    late.interrupt()
    assert not late.set_stop(lambda: told.append("never"))
    assert told == ["stop"]
