"""The engine that runs every call at once, in the caller."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import CancelledError
from contextvars import ContextVar
from typing import Any

import pytest

from manyhands.core.future import Future
from manyhands.core.model import EngineConfig
from manyhands.core.resources import make_need
from manyhands.engines.inline import InlineEngine
from manyhands.errors import (
    CallInterrupted,
    CallTimeoutError,
    WorkerDiedError,
    WorkerStartError,
)
from tests.unit.engines.sinks import LONG, Blocker, FakeSink, Spinner, call, fail, spin


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def engine(sink: FakeSink) -> InlineEngine:
    engine = InlineEngine()
    config = EngineConfig(1)
    config.gpus = ()
    engine.start(config, sink)
    return engine


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def make_future() -> Future[Any]:
    class FakeOwner:
        def attend(self) -> None:
            pass

    owner: Any = FakeOwner()
    return Future(owner, 50, "inner")


# Calls.


def test_a_call_has_ended_when_it_is_submitted(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(call(1, pow, 2, 5, 7))
    assert sink.ends == {1: 4}
    assert engine.load(4) == (4, None)
    assert engine.wait_until(lambda: True, None)
    assert not engine.wait_until(lambda: False, 0)
    assert engine.cancel([1]) == set()
    assert engine.first_key == 1


def test_a_call_runs_in_the_callers_thread(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(call(1, threading.get_ident))
    assert sink.ends == {1: threading.get_ident()}


def test_a_failed_call_is_its_error(engine: InlineEngine, sink: FakeSink) -> None:
    error = ValueError("x")
    made = call(1, fail, error)
    engine.submit(made)
    assert sink.ends == {1: error}
    assert sink.attempts[1] is made


def test_a_failed_call_can_be_tried_again(engine: InlineEngine, sink: FakeSink) -> None:
    tries = []

    def flicker() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return "at last"

    def try_again(key: int, error: BaseException, attempt: Any) -> bool:
        engine.resubmit(key, attempt)
        return True

    sink.on_failure = try_again
    engine.submit(call(1, flicker))
    assert sink.ends == {1: "at last"}


def test_an_exit_fails_the_call_alone(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(call(1, fail, SystemExit(3)))
    assert isinstance(sink.ends[1], WorkerDiedError)


def test_an_interrupt_is_the_callers(engine: InlineEngine, sink: FakeSink) -> None:
    with pytest.raises(KeyboardInterrupt):
        engine.submit(call(1, fail, KeyboardInterrupt()))
    assert sink.attempts == {1: None}
    engine.submit(call(2, abs, -2))
    assert sink.ends[2] == 2


def test_a_call_knows_that_it_runs(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(
        call(4, lambda: (engine.is_running(4), engine.is_running(5), engine.get_running()))
    )
    assert sink.ends == {4: (True, False, 4)}
    assert not engine.is_running(4)
    assert engine.get_running() == 0


def test_calls_nest(engine: InlineEngine, sink: FakeSink) -> None:
    def fibonacci(key: int, n: int) -> int:
        if n < 2:
            return n
        for inner, m in ((2 * key, n - 1), (2 * key + 1, n - 2)):
            engine.submit(call(inner, fibonacci, inner, m))
            assert engine.get_running() == key
        return int(sink.ends[2 * key] + sink.ends[2 * key + 1])

    engine.submit(call(1, fibonacci, 1, 10))
    assert sink.ends[1] == 55


def test_a_calls_context_is_its_own(engine: InlineEngine, sink: FakeSink) -> None:
    tone: ContextVar[str] = ContextVar("tone", default="none")
    tone.set("outer")

    def change() -> str:
        before = tone.get()
        tone.set("inner")
        return before

    engine.submit(call(1, change))
    assert (sink.ends[1], tone.get()) == ("outer", "outer")


def test_arguments_are_let_go(engine: InlineEngine, sink: FakeSink) -> None:
    """Without a collection: nothing leads in a circle."""

    class Thing:
        pass

    thing = Thing()
    watched = weakref.ref(thing)
    gc.disable()
    try:
        engine.submit(call(1, id, thing))
        del thing
        assert watched() is None
    finally:
        gc.enable()


def test_what_never_fits_is_explained(engine: InlineEngine) -> None:
    assert engine.explain_misfit(call(1, abs)) is None
    assert engine.explain_misfit(call(1, abs, need=make_need(cpus=2)))
    assert engine.explain_misfit(call(1, abs, need=make_need(gpus=1)))


def test_computing_is_measured(engine: InlineEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 12.5])
    monkeypatch.setattr("manyhands.engines.inline.engine.monotonic", lambda: next(ticks))
    engine.submit(call(1, abs, 1))
    assert engine.stats().computing == 2.5


def test_what_has_no_meaning_here_does_nothing(engine: InlineEngine) -> None:
    engine.restart_workers()
    engine.attend()
    engine.look()
    engine.grant(1, 2)
    assert engine.ask("actors") == ("actors", ())


# The initializer.


def test_the_initializer_runs_at_the_start(sink: FakeSink) -> None:
    told: list[int] = []
    InlineEngine().start(EngineConfig(1, told.append, (3,)), sink)
    assert told == [3]


def test_an_initializer_that_fails_fails_the_start(sink: FakeSink) -> None:
    with pytest.raises(WorkerStartError, match="ValueError: x") as caught:
        InlineEngine().start(EngineConfig(1, fail, (ValueError("x"),)), sink)
    assert isinstance(caught.value.__cause__, ValueError)


# Coroutines and futures.


def test_a_coroutine_runs_to_its_end(engine: InlineEngine, sink: FakeSink) -> None:
    error = ValueError("x")

    async def raise_error() -> None:
        raise error

    async def leave() -> None:
        raise SystemExit(3)

    engine.submit(call(1, give, 3))
    engine.submit(call(2, raise_error))
    engine.submit(call(3, leave))
    assert sink.ends[1] == 3
    assert sink.ends[2] is error
    assert isinstance(sink.ends[3], WorkerDiedError)


def test_a_coroutine_knows_its_call(engine: InlineEngine, sink: FakeSink) -> None:
    async def look() -> int:
        await asyncio.sleep(0)
        return engine.get_running()

    engine.submit(call(7, look))
    assert sink.ends == {7: 7}


def test_a_coroutine_under_a_running_loop(engine: InlineEngine, sink: FakeSink) -> None:
    async def main() -> None:
        engine.submit(call(1, give, 3))

    asyncio.run(main())
    assert sink.ends == {1: 3}


def test_a_coroutine_has_a_timeout(engine: InlineEngine, sink: FakeSink) -> None:
    cleaned = []

    async def sleep_long() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            cleaned.append(1)

    engine.submit(call(1, sleep_long, timeout=0.03))
    assert isinstance(sink.ends[1], CallTimeoutError)
    assert cleaned == [1]


def test_ctrl_c_ends_a_coroutine_and_its_caller(engine: InlineEngine, sink: FakeSink) -> None:
    import signal

    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(LONG)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.submit(call(1, interrupt))
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_future_that_is_a_result_is_followed(engine: InlineEngine, sink: FakeSink) -> None:
    future, withdrawn = make_future(), make_future()
    engine.submit(call(1, lambda: future))
    engine.submit(call(2, lambda: withdrawn))
    assert sink.ends == {}
    assert engine.is_running(1)
    future.set_result(5)
    withdrawn.withdraw()
    assert sink.ends[1] == 5
    assert isinstance(sink.ends[2], CancelledError)


def test_a_call_that_gave_a_future_can_be_cancelled(engine: InlineEngine, sink: FakeSink) -> None:
    future = make_future()
    engine.submit(call(1, lambda: future))
    assert engine.cancel([1]) == set()
    assert engine.cancel([1], running=True) == {1}
    future.set_result(5)
    assert sink.ends == {}


# Time-outs and cancellation.


def test_what_computes_too_long_is_interrupted(engine: InlineEngine, sink: FakeSink) -> None:
    spinner = Spinner()
    engine.submit(call(1, spinner, timeout=0.03, name="crunch"))
    error = sink.ends[1]
    assert isinstance(error, CallTimeoutError)
    assert error.call == "crunch"
    assert "in spin" in error.stack
    assert isinstance(spinner.caught[0], CallInterrupted)


def test_what_returns_late_is_late(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(call(1, threading.Event().wait, 0.1, timeout=0.03))
    assert isinstance(sink.ends[1], CallTimeoutError)
    assert sink.attempts[1].options.timeout == 0.03


def test_the_time_of_a_call_covers_the_calls_inside(engine: InlineEngine, sink: FakeSink) -> None:
    """The inner call ends with the interrupt of the outer one, which ends by its time-out."""

    def outer() -> None:
        engine.submit(call(2, spin))

    engine.submit(call(1, outer, timeout=0.03))
    assert isinstance(sink.ends[1], CallTimeoutError)
    assert isinstance(sink.ends[2], CallInterrupted)
    assert sink.attempts[2] is None


def test_an_inner_timeout_leaves_the_outer_call_alone(engine: InlineEngine, sink: FakeSink) -> None:
    def outer() -> str:
        engine.submit(call(2, spin, timeout=0.03))
        return type(sink.ends[2]).__name__

    engine.submit(call(1, outer, timeout=LONG))
    assert sink.ends[1] == "CallTimeoutError"


def test_what_runs_in_another_thread_can_be_cancelled(engine: InlineEngine, sink: FakeSink) -> None:
    spinner = Spinner()
    thread = threading.Thread(target=engine.submit, args=(call(1, spinner),))
    thread.start()
    assert spinner.begun.wait(LONG)
    assert engine.cancel([1]) == set()
    assert engine.cancel([1], running=True) == {1}
    thread.join(LONG)
    assert not thread.is_alive()
    assert sink.ends == {}


def test_a_call_may_cancel_itself(engine: InlineEngine, sink: FakeSink) -> None:
    told: list[Any] = []

    def work() -> None:
        told.append(engine.cancel([1], running=True))
        engine.rouse()
        told.append("too far")

    engine.submit(call(1, work))
    assert told == [{1}]
    assert sink.ends == {}


# Waiting and the end.


def test_who_waits_is_roused(engine: InlineEngine) -> None:
    ended = []

    def end() -> None:
        ended.append(1)
        engine.rouse()

    threading.Timer(0.01, end).start()
    assert engine.wait_until(lambda: bool(ended), LONG)
    assert not engine.wait_until(lambda: len(ended) == 2, 0.01)


def test_a_wait_in_a_call_can_be_interrupted(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(call(1, engine.wait_until, lambda: False, None, timeout=0.03))
    assert isinstance(sink.ends[1], CallTimeoutError)


def test_a_close_interrupts_what_runs_in_other_threads(
    engine: InlineEngine, sink: FakeSink
) -> None:
    spinner, blocker = Spinner(), Blocker()
    threads = [
        threading.Thread(target=engine.submit, args=(call(key, fn),), daemon=True)
        for key, fn in ((1, spinner), (2, blocker))
    ]
    for thread in threads:
        thread.start()
    assert spinner.begun.wait(LONG)
    assert blocker.begun.wait(LONG)
    engine.close(0.01)
    assert spinner.ended.wait(LONG)
    blocker.may_end.set()
    for thread in threads:
        thread.join(LONG)
    assert sink.ends == {}


def test_a_call_may_close_its_own_engine(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(call(1, engine.close, LONG))
    assert sink.ends == {1: None}


def test_who_waits_on_a_closed_engine_looks_again(engine: InlineEngine) -> None:
    ended: list[int] = []
    waited: list[bool] = []
    waiter = threading.Thread(
        target=lambda: waited.append(engine.wait_until(lambda: bool(ended), LONG))
    )
    waiter.start()
    engine.close(0)
    ended.append(1)
    waiter.join(LONG)
    assert waited == [True]
