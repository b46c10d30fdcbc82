"""Work in a thread that other threads interrupt."""

import gc
import sys
import threading
from collections.abc import Callable
from time import monotonic

import pytest

from manyhands.core import interruption
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


class Finalized:
    """An object whose finalizer goes on until an interrupt has struck it.

    Made where it goes: without a lock around the interpreter, a thread finalizes what it has made.
    """

    def __init__(self, begun: threading.Event) -> None:
        self.begun = begun

    def __del__(self) -> None:
        self.begun.set()
        spin()


def spin() -> None:
    deadline = monotonic() + LONG
    while True:
        if monotonic() > deadline:
            pytest.fail("no interrupt came")


def test_an_interrupt_that_strikes_a_finalizer_comes_again() -> None:
    first, second, told = threading.Event(), threading.Event(), list[str]()
    work = Interruptible()

    def use() -> None:
        Finalized(first)
        Finalized(second)
        told.append("went on")
        spin()

    thread = run_in_thread(work, use, told)
    assert first.wait(LONG)
    work.interrupt()
    assert second.wait(LONG)
    thread.join(LONG)
    assert told == ["went on", "interrupted", "over"]


def test_a_wait_hears_of_an_interrupt_that_struck_a_finalizer() -> None:
    begun, woken, told = threading.Event(), threading.Event(), list[str]()
    work = Interruptible()

    def use() -> None:
        Finalized(begun)
        with work:
            work.set_wake(woken.set)
            told.append("woken" if work.is_due or woken.wait(LONG) else "not told")
        told.append("went on")

    thread = run_in_thread(work, use, told)
    assert begun.wait(LONG)
    work.interrupt()
    thread.join(LONG)
    assert told[-2:] == ["interrupted", "over"]
    assert told[:-2] in ([], ["woken"])  # it may come before the guard


def test_an_interrupt_that_struck_a_finalizer_is_over_with_the_work() -> None:
    for _ in range(20):
        begun, told = threading.Event(), list[str]()
        work = Interruptible()

        def use(begun: threading.Event = begun) -> None:
            Finalized(begun)

        thread = run_in_thread(work, use, told)
        assert begun.wait(LONG)
        work.interrupt()
        thread.join(LONG)
        work.interrupt_again()
        assert told[-1] == "over"
        assert len(told) == 2 or told == ["done", "interrupted", "over"]


def test_what_else_a_finalizer_raises_goes_where_it_went(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_has_hook", False)
    kinds = list[type[BaseException]]()
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: kinds.append(unraisable.exc_type))
    interruption._set_hook()

    class Failing:
        def __init__(self, kind: type[BaseException]) -> None:
            self.kind = kind

        def __del__(self) -> None:
            raise self.kind

    for kind in (ValueError, CallInterrupted):  # no interrupt was sent here
        Failing(kind)
        gc.collect()
    assert kinds == [ValueError, CallInterrupted]


def test_a_task_of_an_event_loop_is_told_by_its_stop() -> None:
    told = list[str]()
    early, late = Interruptible(), Interruptible()
    assert early.set_stop(lambda: told.append("stop"))
    early.interrupt()
    late.interrupt()
    assert not late.set_stop(lambda: told.append("never"))
    assert told == ["stop"]
