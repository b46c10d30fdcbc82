"""A call under way in a thread of this process, and how other threads end it."""

import threading
from typing import Any

import pytest

from manyhands.core import place
from manyhands.core.model import Call, CallOptions
from manyhands.core.run import Run, get_own_run, guard
from manyhands.errors import CallInterrupted, CallTimeoutError

LONG = 30.0
SINK: Any = object()


def spin() -> None:
    while True:
        pass


class Thread(threading.Thread):
    """Performs runs, one after the other."""

    def __init__(self, *runs: Run) -> None:
        super().__init__(daemon=True)
        self.runs = runs
        self.outcomes: list[Any] = []
        self.start()

    def run(self) -> None:
        for run in self.runs:
            self.outcomes.append(run.perform(SINK, run))  # type: ignore[arg-type]

    def finish(self) -> list[Any]:
        self.join(LONG)
        assert not self.is_alive()
        return self.outcomes


def make(fn: Any, *args: Any, **options: Any) -> Run:
    return Run(Call(1, fn, args, {}, CallOptions(**options)))


def test_a_run_gives_what_its_call_gives() -> None:
    assert make(divmod, 7, 2).perform(SINK, None) == ((3, 1), None)
    error = ValueError("x")

    def fail() -> None:
        raise error

    run = make(fail)
    assert run.perform(SINK, None) == (None, error)
    assert run.thread == 0


def test_an_interrupt_ends_what_computes() -> None:
    begun = threading.Event()
    cleaned = []

    def work() -> None:
        try:
            begun.set()
            spin()
        finally:
            cleaned.append(True)

    run = make(work)
    thread = Thread(run)
    assert begun.wait(LONG)
    run.interrupt()
    run.interrupt()
    [(value, error)] = thread.finish()
    assert value is None
    assert isinstance(error, CallInterrupted)
    assert cleaned == [True]


def test_an_interrupt_comes_once() -> None:
    begun, caught = threading.Event(), threading.Event()

    def resist() -> str:
        try:
            begun.set()
            spin()
        except CallInterrupted:
            caught.set()
        assert second.wait(LONG)
        return "still here"

    second = threading.Event()
    run = make(resist)
    thread = Thread(run)
    assert begun.wait(LONG)
    run.interrupt()
    assert caught.wait(LONG)
    run.interrupt()
    second.set()
    assert thread.finish() == [("still here", None)]


def test_a_call_that_was_interrupted_before_does_not_begin() -> None:
    ran = []
    run = make(ran.append, 1)
    run.interrupt()
    _, error = run.perform(SINK, None)
    assert isinstance(error, CallInterrupted)
    assert ran == []


def test_no_interrupt_hits_the_next_call() -> None:
    """An interrupt that is on its way as the call ends goes with it."""
    for _ in range(200):
        ready = threading.Event()
        first, second = make(ready.set), make(sum, range(2000))
        thread = Thread(first, second)
        ready.wait(LONG)
        first.interrupt()
        (_, error), outcome = thread.finish()
        assert error is None or isinstance(error, CallInterrupted)
        assert outcome == (1999000, None)


def test_a_guard_holds_interrupts_back() -> None:
    guarded, interrupted = threading.Event(), threading.Event()
    steps = []

    def work() -> None:
        with guard():
            guarded.set()
            assert interrupted.wait(LONG)
            steps.append("whole")
        steps.append("too far")

    run = make(work)
    thread = Thread(run)
    assert guarded.wait(LONG)
    run.interrupt()
    interrupted.set()
    [(_, error)] = thread.finish()
    assert isinstance(error, CallInterrupted)
    assert steps == ["whole"]


def test_guards_nest() -> None:
    steps = []

    def work() -> None:
        with guard():
            with guard():
                threading.Thread(target=interrupt).start()
                assert sent.wait(LONG)
            steps.append("inner")
        steps.append("outer")

    def interrupt() -> None:
        run.interrupt()
        sent.set()

    sent = threading.Event()
    run = make(work)
    assert isinstance(run.perform(SINK, run)[1], CallInterrupted)  # type: ignore[arg-type]
    assert steps == ["inner"]


def test_an_interrupt_under_a_guard_wakes_a_wait() -> None:
    woken, waiting = threading.Event(), threading.Event()

    def work() -> None:
        with guard():
            assert run.set_wake(woken.set)
            waiting.set()
            assert woken.wait(LONG)
            assert run.is_due
            assert not run.set_wake(None)

    run = make(work)
    thread = Thread(run)
    assert waiting.wait(LONG)
    run.interrupt()
    assert isinstance(thread.finish()[0][1], CallInterrupted)


def test_a_call_that_ends_itself_gets_through_with_that() -> None:
    """The guard that it asks under lets it go on, so that its session can see to the rest; the next one does not."""
    steps = []

    def work() -> None:
        with guard():
            run.interrupt()
        steps.append("the session's account is in order")
        with guard():
            pass
        steps.append("too far")

    run = make(work)
    assert isinstance(run.perform(SINK, run)[1], CallInterrupted)  # type: ignore[arg-type]
    assert len(steps) == 1


def test_a_call_that_cleans_up_may_use_the_session() -> None:
    begun = threading.Event()
    steps = []

    def work() -> None:
        try:
            begun.set()
            spin()
        except CallInterrupted:
            with guard():
                steps.append("guarded")
            steps.append("done")

    run = make(work)
    thread = Thread(run)
    assert begun.wait(LONG)
    run.interrupt()
    assert thread.finish() == [(None, None)]
    assert steps == ["guarded", "done"]


def test_a_call_that_was_given_up_makes_no_more_calls() -> None:
    begun, caught, given_up = threading.Event(), threading.Event(), threading.Event()
    steps = []

    def work() -> None:
        try:
            begun.set()
            spin()
        except CallInterrupted:
            caught.set()
        assert given_up.wait(LONG)
        with guard():
            steps.append("too far")

    run = make(work)
    thread = Thread(run)
    assert begun.wait(LONG)
    run.interrupt()
    assert caught.wait(LONG)
    assert run.give_up()
    given_up.set()
    assert isinstance(thread.finish()[0][1], CallInterrupted)
    assert steps == []


def test_a_call_that_has_left_is_not_given_up() -> None:
    run = make(abs, 1)
    run.perform(SINK, None)
    assert not run.give_up()
    assert not run.is_given_up


def test_one_says_how_a_call_ended() -> None:
    run = make(abs, 1)
    assert run.claim()
    assert not run.claim()


def test_a_task_of_a_loop_is_told_by_its_loop() -> None:
    told = []
    run = make(abs, 1)
    assert run.set_stop(lambda: told.append(1))
    run.interrupt()
    assert told == [1]
    assert not run.set_stop(lambda: told.append(2))


def test_the_own_run_is_that_of_the_thread() -> None:
    def look() -> Any:
        found = [get_own_run()]
        here = place.here.get()

        def look_beside() -> None:
            place.here.set(here)
            found.append(get_own_run())

        beside = threading.Thread(target=look_beside)
        beside.start()
        beside.join()
        return found

    run = make(look)
    assert run.perform(SINK, run) == ([run, None], None)  # type: ignore[arg-type]
    assert get_own_run() is None


def test_outside_of_calls_a_guard_holds_ctrl_c_back() -> None:
    import signal

    def handle(*_: object) -> None:
        steps.append("interrupt")

    steps: list[str] = []
    previous = signal.signal(signal.SIGINT, handle)
    try:
        with guard():
            with guard():
                signal.raise_signal(signal.SIGINT)
            steps.append("whole")
        assert steps == ["whole", "interrupt"]
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_guard_does_nothing_in_other_threads() -> None:
    entered = []

    def enter() -> None:
        with guard():
            entered.append(True)

    thread = threading.Thread(target=enter)
    with guard():
        thread.start()
        thread.join(LONG)
    assert entered == [True]


def test_a_call_is_over_time_when_it_was_told_so_or_took_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make(abs, 1)
    assert not run.is_over_time()
    run = make(abs, 1, timeout=5.0)
    monkeypatch.setattr("manyhands.core.run.monotonic", lambda: 103.0)
    run.began = 100.0
    assert not run.is_over_time()
    run.is_late = True
    assert run.is_over_time()
    run.is_late = False
    run.began = 98.0
    assert run.is_over_time()


def test_the_error_says_where_the_call_stood() -> None:
    begun = threading.Event()

    def work() -> None:
        begun.set()
        spin()

    run = make(work, timeout=0.5, name="crunch")
    thread = Thread(run)
    assert begun.wait(LONG)
    run.interrupt()
    [(_, caught)] = thread.finish()
    error = run.make_timeout_error(caught)
    assert isinstance(error, CallTimeoutError)
    assert error.call == "crunch"
    assert error.seconds > 0
    assert "in spin" in error.stack and "in work" in error.stack
    assert "attempt.py" not in error.stack
    assert error.__cause__ is None
    for words in ("call 1, crunch", "timeout is 0.5 s", "timeout=…"):
        assert words in str(error)


def test_the_error_finds_the_interrupt_behind_another_error() -> None:
    begun = threading.Event()

    def work() -> None:
        try:
            begun.set()
            spin()
        finally:
            raise ValueError("while it cleaned up")

    run = make(work, timeout=0.5)
    thread = Thread(run)
    assert begun.wait(LONG)
    run.interrupt()
    [(_, caught)] = thread.finish()
    error = run.make_timeout_error(caught)
    assert "in spin" in error.stack
    assert isinstance(error.__cause__, ValueError)


def test_an_error_without_a_place() -> None:
    error = make(abs, 1, timeout=0.5).make_timeout_error()
    assert error.stack == ""
