"""Calls that are to end: by their time-outs, or cancelled; those that yield, and those that do not."""

import asyncio
import threading
from typing import Any

import pytest

from manyhands.core.future import Future
from manyhands.engines.threads import ThreadsEngine, overdue
from manyhands.errors import CallInterrupted, CallTimeoutError, WorkerDiedError
from tests.unit.engines.sinks import LONG, Blocker, FakeSink, Spinner, call, spin
from tests.unit.engines.threads.conftest import Open, list_threads


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are given up quickly."""
    monkeypatch.setattr(overdue, "GRACE_SECONDS", 0.05)


def check_timeout(error: Any, name: str, *stack: str) -> None:
    assert isinstance(error, CallTimeoutError), error
    assert error.call == name
    assert error.seconds >= 0.03
    for words in stack:
        assert words in error.stack


def test_what_computes_too_long_is_interrupted(engine: ThreadsEngine, sink: FakeSink) -> None:
    spinner = Spinner()
    engine.submit(call(1, spinner, timeout=0.03, name="crunch"))
    engine.submit(call(2, abs, -2, timeout=LONG))
    assert engine.wait_until(sink.has(1, 2), LONG)
    check_timeout(sink.ends[1], "crunch", "in spin", "in __call__")
    assert isinstance(spinner.caught[0], CallInterrupted)
    assert sink.ends[2] == 2
    assert sink.attempts[1].options.timeout == 0.03


def test_its_thread_runs_the_next_call(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    for key in range(1, 11):
        engine.submit(call(key, spin, timeout=0.01))
        engine.submit(call(key + 100, sum, range(1000)))
    keys = [*range(1, 11), *range(101, 111)]
    assert engine.wait_until(sink.has(*keys), LONG)
    assert all(sink.ends[key] == 499500 for key in range(101, 111))
    assert len(list_threads(engine)) == 1


def test_time_counts_from_the_start(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    blocker = Blocker()
    engine.submit(call(1, blocker))
    engine.submit(call(2, abs, -2, timeout=0.03))
    assert blocker.begun.wait(LONG)
    assert not engine.wait_until(sink.has(2), 0.05)
    blocker.may_end.set()
    assert engine.wait_until(sink.has(2), LONG)
    assert sink.ends[2] == 2


def test_a_call_that_cleans_up_has_time_for_that(engine: ThreadsEngine, sink: FakeSink) -> None:
    cleaned = []

    def work() -> str:
        try:
            spin()
        except CallInterrupted:
            cleaned.append(1)
        return "swallowed"

    engine.submit(call(1, work, timeout=0.03))
    assert engine.wait_until(sink.has(1), LONG)
    check_timeout(sink.ends[1], work.__qualname__)
    assert cleaned == [1]


def test_an_error_while_it_cleans_up_is_the_cause(engine: ThreadsEngine, sink: FakeSink) -> None:
    def work() -> None:
        try:
            spin()
        finally:
            raise ValueError("in cleaning")

    engine.submit(call(1, work, timeout=0.03))
    assert engine.wait_until(sink.has(1), LONG)
    check_timeout(sink.ends[1], work.__qualname__, "in spin")
    assert isinstance(sink.ends[1].__cause__, ValueError)


def test_what_ends_by_itself_too_late_is_late(engine: ThreadsEngine, sink: FakeSink) -> None:
    late = threading.Event()

    def work() -> str:
        late.wait(0.1)  # native code, which no interrupt reaches
        return "late"

    engine.submit(call(1, work, timeout=0.03))
    assert engine.wait_until(sink.has(1), LONG)
    check_timeout(sink.ends[1], work.__qualname__)


@pytest.mark.usefixtures("impatient")
def test_what_does_not_yield_is_given_up(open_engine: Open, sink: FakeSink) -> None:
    """Its call fails, another thread takes the place of its own, and what comes of it is ignored."""
    engine = open_engine(1)
    blocker = Blocker()
    engine.submit(call(1, blocker, timeout=0.03, name="stuck"))
    engine.submit(call(2, threading.get_ident))
    assert engine.wait_until(sink.has(1, 2), LONG)
    check_timeout(sink.ends[1], "stuck", "in __call__")
    assert "did not yield" in str(sink.ends[1].__notes__)
    assert not engine.is_running(1)
    blocker.may_end.set()
    engine.submit(call(3, abs, -3))
    assert engine.wait_until(sink.has(3), LONG)
    assert isinstance(sink.ends[1], CallTimeoutError)


@pytest.mark.usefixtures("impatient")
def test_a_thread_that_was_given_up_ends_with_its_call(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    (thread,) = list_threads(engine)
    blocker = Blocker()
    engine.submit(call(1, blocker, timeout=0.03))
    assert engine.wait_until(sink.has(1), LONG)
    assert thread not in list_threads(engine)
    assert thread.is_alive()
    blocker.may_end.set()
    thread.join(LONG)
    assert not thread.is_alive()


@pytest.mark.usefixtures("impatient")
def test_what_was_given_up_can_be_tried_again(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    blockers = [Blocker(), Blocker()]
    blockers[1].may_end.set()
    left = iter(blockers)

    def block() -> str:
        return next(left)()

    def try_again(key: int, error: BaseException, attempt: Any) -> bool:
        engine.resubmit(key, attempt)
        return True

    sink.on_failure = try_again
    engine.submit(call(1, block, timeout=0.03))
    assert engine.wait_until(sink.has(1), LONG)
    assert sink.ends == {1: "done"}
    blockers[0].may_end.set()
    engine.submit(call(2, abs, -2))
    assert engine.wait_until(sink.has(2), LONG)
    assert sink.ends == {1: "done", 2: 2}


def test_what_runs_can_be_cancelled(engine: ThreadsEngine, sink: FakeSink) -> None:
    spinner = Spinner()
    engine.submit(call(1, spinner))
    assert spinner.begun.wait(LONG)
    assert engine.cancel([1]) == set()
    assert engine.cancel([1], running=True) == {1}
    assert engine.cancel([1], running=True) == set()
    assert not engine.is_running(1)
    assert spinner.ended.wait(LONG)
    for key in (2, 3, 4):
        engine.submit(call(key, abs, -key))
    assert engine.wait_until(sink.has(2, 3, 4), LONG)
    assert 1 not in sink.ends


@pytest.mark.usefixtures("impatient")
def test_what_was_cancelled_and_does_not_yield_gives_its_place_up(
    open_engine: Open, sink: FakeSink
) -> None:
    engine = open_engine(1)
    blocker = Blocker()
    engine.submit(call(1, blocker))
    assert blocker.begun.wait(LONG)
    assert engine.cancel([1], running=True) == {1}
    engine.submit(call(2, abs, -2))
    assert engine.wait_until(sink.has(2), LONG)
    blocker.may_end.set()
    engine.submit(call(3, abs, -3))
    assert engine.wait_until(sink.has(3), LONG)
    assert sink.ends == {2: 2, 3: 3}


def test_a_call_may_cancel_itself(engine: ThreadsEngine, sink: FakeSink) -> None:
    told: list[Any] = []
    ended = threading.Event()

    def work() -> None:
        try:
            told.append(engine.cancel([1], running=True))
            engine.rouse()  # as the session does when its account is in order
            told.append("too far")
        finally:
            ended.set()

    engine.submit(call(1, work))
    assert ended.wait(LONG)
    assert told == [{1}]
    engine.submit(call(2, abs, -2))
    assert engine.wait_until(sink.has(2), LONG)
    assert 1 not in sink.ends


def test_many_interrupts_hit_their_own_calls(engine: ThreadsEngine, sink: FakeSink) -> None:
    """Quick calls are cancelled as they begin, run and end; each is cancelled, or ends as itself."""
    withdrawn: set[int] = set()
    for key in range(1, 401):
        engine.submit(call(key, sum, range(key % 50 * 40)))
        if key % 3 == 0:
            withdrawn |= engine.cancel(range(key - 5, key), running=True)
    left = set(range(1, 401)) - withdrawn
    assert engine.wait_until(sink.has(*left), LONG)
    for key in left:
        assert sink.ends[key] == sum(range(key % 50 * 40))
    assert not withdrawn & set(sink.ends)


# Coroutines.


def test_a_coroutine_has_a_timeout(engine: ThreadsEngine, sink: FakeSink) -> None:
    cleaned = []

    async def sleep_long() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            cleaned.append(1)

    engine.submit(call(1, sleep_long, timeout=0.03, name="sleeper"))
    assert engine.wait_until(sink.has(1), LONG)
    check_timeout(sink.ends[1], "sleeper", "in sleep_long")
    assert cleaned == [1]


def test_a_coroutine_can_be_cancelled(engine: ThreadsEngine, sink: FakeSink) -> None:
    begun, cleaned = threading.Event(), threading.Event()

    async def sleep_long() -> None:
        try:
            begun.set()
            await asyncio.sleep(LONG)
        finally:
            cleaned.set()

    engine.submit(call(1, sleep_long))
    assert begun.wait(LONG)
    assert engine.cancel([1], running=True) == {1}
    assert cleaned.wait(LONG)
    assert sink.ends == {}


@pytest.mark.usefixtures("impatient")
def test_a_coroutine_that_swallows_its_end_is_given_up(
    engine: ThreadsEngine, sink: FakeSink
) -> None:
    may_end = threading.Event()

    async def resist() -> None:
        while not may_end.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    async def give(value: int) -> int:
        return value

    engine.submit(call(1, resist, timeout=0.03))
    assert engine.wait_until(sink.has(1), LONG)
    check_timeout(sink.ends[1], resist.__qualname__)
    loop = engine._pool.loop
    engine.submit(call(2, give, 2))
    assert engine.wait_until(sink.has(2), LONG)
    assert engine._pool.loop is loop, "the loop is well"
    may_end.set()


@pytest.mark.usefixtures("impatient")
def test_a_coroutine_that_blocks_the_loop(engine: ThreadsEngine, sink: FakeSink) -> None:
    """It fails by its time-out, those beside it as if their worker had died, and others run on a fresh loop."""
    blocker = Blocker()

    async def block() -> None:
        blocker()

    async def sleep(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    engine.submit(call(1, sleep, LONG))
    engine.submit(call(2, block, timeout=0.03))
    assert blocker.begun.wait(LONG)
    assert engine.wait_until(sink.has(1, 2), LONG)
    check_timeout(sink.ends[2], block.__qualname__, "in block")
    assert isinstance(sink.ends[1], WorkerDiedError)
    assert "a call blocked" in str(sink.ends[1])
    engine.submit(call(3, sleep, 0))
    assert engine.wait_until(sink.has(3), LONG)
    blocker.may_end.set()


class SlowLoop:
    """An event loop that is at what a test says."""

    ident = 0

    def __init__(self, *tasks: object) -> None:
        self.tasks = iter(tasks)
        self.closed = 0

    def get_task(self) -> object:
        return next(self.tasks)

    def close(self, grace: float) -> None:
        self.closed += 1


def suspect(engine: ThreadsEngine, monkeypatch: pytest.MonkeyPatch, *tasks: object) -> Any:
    """Have it seen whether a loop hangs that is at these tasks in turn."""
    watched: list[Any] = []
    over = engine._pool.overdue
    monkeypatch.setattr(over._watchdog, "watch", lambda what, seconds: watched.append(what))
    loop: Any = SlowLoop(*tasks)
    suspicion = overdue._Suspicion(_Unheard(), loop)  # type: ignore[arg-type]
    over._suspect(suspicion)
    while watched:
        over._take_due(watched.pop())
    return loop


class _Unheard:
    """A run that has not heard that it is to end."""

    is_heard = False


def test_a_loop_that_stays_at_one_task_hangs(
    engine: ThreadsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert suspect(engine, monkeypatch, "a", "a").closed == 1


def test_a_loop_that_is_only_slow_has_time(
    engine: ThreadsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is at another task whenever one looks; but not for ever."""
    loop = suspect(engine, monkeypatch, *range(100))
    assert loop.closed == 1
    assert next(loop.tasks) >= overdue._LOOKS


# Calls that gave a future.


class FakeOwner:
    def attend(self) -> None:
        pass


def test_a_call_that_gave_a_future_has_a_timeout(engine: ThreadsEngine, sink: FakeSink) -> None:
    owner: Any = FakeOwner()
    future: Future[int] = Future(owner, 50, "inner")
    engine.submit(call(1, lambda: future, timeout=0.03, name="join"))
    assert engine.wait_until(sink.has(1), LONG)
    check_timeout(sink.ends[1], "join")
    future.set_result(5)
    assert isinstance(sink.ends[1], CallTimeoutError)


def test_a_call_that_gave_a_future_can_be_cancelled(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    owner: Any = FakeOwner()
    future: Future[int] = Future(owner, 50, "inner")
    engine.submit(call(1, lambda: future))
    engine.submit(call(2, abs, -2))
    assert engine.wait_until(sink.has(2), LONG)
    assert engine.is_running(1)
    assert engine.cancel([1]) == set()
    assert engine.cancel([1], running=True) == {1}
    future.set_result(5)
    assert sink.ends == {2: 2}
