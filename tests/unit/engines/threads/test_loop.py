"""Coroutines, and calls that give futures."""

import asyncio
import threading
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

import pytest

from manyhands.core import place
from manyhands.core.future import Future
from manyhands.core.resources import make_need
from manyhands.engines.threads import ThreadsEngine
from manyhands.errors import WorkerDiedError, WorkerStartError
from manyhands.testing.checks import wait_for
from tests.unit.engines.sinks import LONG, Blocker, FakeSink, call
from tests.unit.engines.threads.conftest import Open, list_threads


class FakeOwner:
    def attend(self) -> None:
        pass


def make_future() -> Future[Any]:
    owner: Any = FakeOwner()
    return Future(owner, 50, "inner")


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def raise_error(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def test_a_coroutine_runs_to_its_end(engine: ThreadsEngine, sink: FakeSink) -> None:
    error = ValueError("x")
    engine.submit(call(1, give, 3))
    engine.submit(call(2, raise_error, error))
    engine.submit(call(3, raise_error, SystemExit(3)))
    engine.submit(call(4, lambda: give(4)))
    engine.submit(call(5, partial(give, 5)))
    assert engine.wait_until(sink.has(1, 2, 3, 4, 5), LONG)
    assert (sink.ends[1], sink.ends[4], sink.ends[5]) == (3, 4, 5)
    assert sink.ends[2] is error
    assert isinstance(sink.ends[3], WorkerDiedError)
    engine.submit(call(6, give, 6))
    assert engine.wait_until(sink.has(6), LONG)


def test_many_run_at_once_on_one_thread(open_engine: Open, sink: FakeSink) -> None:
    """They are not counted against the workers, which may all be busy."""
    engine = open_engine(1)
    blocker = Blocker()
    engine.submit(call(1, blocker))
    assert blocker.begun.wait(LONG)
    arrived: list[int] = []
    all_here: list[asyncio.Event] = []

    async def meet(key: int) -> int:
        if not all_here:
            all_here.append(asyncio.Event())
        arrived.append(key)
        if len(arrived) == 500:
            all_here[0].set()
        await all_here[0].wait()
        return threading.get_ident()

    keys = range(2, 502)
    for key in keys:
        engine.submit(call(key, meet, key))
    assert engine.wait_until(sink.has(*keys), LONG)
    assert len({sink.ends[key] for key in keys}) == 1
    assert len(list_threads(engine)) == 1
    blocker.may_end.set()


def test_they_begin_in_their_order(engine: ThreadsEngine, sink: FakeSink) -> None:
    order: list[int] = []

    async def note(key: int) -> None:
        order.append(key)

    for key in range(1, 101):
        engine.submit(call(key, note, key))
    assert engine.wait_until(sink.has(*range(1, 101)), LONG)
    assert order == list(range(1, 101))


def test_a_coroutine_holds_what_it_needs_but_cpus(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1, resources={"licence": 1})
    may_end: list[asyncio.Event] = []
    begun = threading.Event()
    loops: list[Any] = []

    async def hold() -> None:
        may_end.append(asyncio.Event())
        loops.append(asyncio.get_running_loop())
        begun.set()
        await may_end[0].wait()

    need = make_need(cpus=1, resources={"licence": 1})
    engine.submit(call(1, hold, need=need))
    assert begun.wait(LONG)
    engine.submit(call(2, abs, -2, need=make_need(resources={"licence": 1})))
    engine.submit(call(3, abs, -3))
    assert engine.wait_until(sink.has(3), LONG)
    assert not engine.is_running(2)
    loops[0].call_soon_threadsafe(may_end[0].set)
    assert engine.wait_until(sink.has(1, 2), LONG)


def test_a_coroutine_knows_its_call(engine: ThreadsEngine, sink: FakeSink) -> None:
    async def look() -> Any:
        await asyncio.sleep(0)
        here = place.here.get()
        assert here is not None
        return engine.get_running(), here.session

    for key in (7, 8):
        engine.submit(call(key, look))
    assert engine.wait_until(sink.has(7, 8), LONG)
    assert sink.ends == {7: (7, sink), 8: (8, sink)}


def test_its_thread_is_initialized(open_engine: Open, sink: FakeSink) -> None:
    local = threading.local()

    def initialize() -> None:
        local.is_ready = True

    async def look() -> bool:
        return bool(local.is_ready)

    engine = open_engine(1, initializer=initialize)
    engine.submit(call(1, look))
    assert engine.wait_until(sink.has(1), LONG)
    assert sink.ends[1] is True


def test_an_initializer_that_fails_there(open_engine: Open, sink: FakeSink) -> None:
    def initialize() -> None:
        if threading.current_thread().name == "manyhands-loop":
            raise ValueError("not here")

    engine = open_engine(1, initializer=initialize)
    engine.submit(call(1, give, 1))
    assert engine.wait_until(sink.has(1), LONG)
    assert isinstance(sink.ends[1], WorkerStartError)
    with pytest.raises(WorkerStartError):
        engine.submit(call(2, abs, 1))


def test_a_close_cancels_coroutines(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    begun, cleaned = threading.Event(), threading.Event()

    async def sleep_long() -> None:
        try:
            begun.set()
            await asyncio.sleep(LONG)
        finally:
            cleaned.set()

    engine.submit(call(1, sleep_long))
    assert begun.wait(LONG)
    engine.close(LONG)
    assert cleaned.is_set()
    assert sink.ends == {}
    assert not any(t.name == "manyhands-loop" for t in threading.enumerate())


def test_a_close_does_not_wait_for_a_loop_that_hangs(open_engine: Open) -> None:
    engine = open_engine(1)
    blocker = Blocker()

    async def block() -> None:
        blocker()

    engine.submit(call(1, block))
    assert blocker.begun.wait(LONG)
    engine.close(0.01)
    blocker.may_end.set()


def test_a_coroutine_that_comes_as_the_engine_closes(open_engine: Open) -> None:
    """It is let go of, and no event loop is left behind for it."""
    engine = open_engine(1)
    coroutine = give(1)

    def close() -> None:
        closer = threading.Thread(target=engine.close, args=(0.01,))
        closer.start()
        closer.join(LONG)

    engine._pool.load_loop = close  # type: ignore[method-assign]
    engine.submit(call(1, lambda: coroutine))
    wait_for(lambda: coroutine.cr_frame is None, "the coroutine is closed")
    wait_for(
        lambda: not any(t.name == "manyhands-loop" for t in threading.enumerate()),
        "the loop's thread ends",
    )


# Futures as results.


def test_a_future_that_is_a_result_is_followed(open_engine: Open, sink: FakeSink) -> None:
    """It keeps no worker meanwhile."""
    engine = open_engine(1)
    future = make_future()
    engine.submit(call(1, lambda: future))
    engine.submit(call(2, abs, -2))
    assert engine.wait_until(sink.has(2), LONG)
    assert 1 not in sink.ends
    future.set_result("inner result")
    assert engine.wait_until(sink.has(1), LONG)
    assert sink.ends[1] == "inner result"


def test_a_future_that_fails_fails_the_call(engine: ThreadsEngine, sink: FakeSink) -> None:
    failed, withdrawn = make_future(), make_future()
    error = ValueError("x")
    failed.set_exception(error)
    withdrawn.withdraw()
    engine.submit(call(1, lambda: failed))
    engine.submit(call(2, lambda: withdrawn))
    assert engine.wait_until(sink.has(1, 2), LONG)
    assert sink.ends[1] is error
    assert isinstance(sink.ends[2], CancelledError)


def test_a_coroutine_may_give_a_future(engine: ThreadsEngine, sink: FakeSink) -> None:
    future = make_future()
    engine.submit(call(1, give, future))
    engine.submit(call(2, give, 2))
    assert engine.wait_until(sink.has(2), LONG)
    future.set_result(5)
    assert engine.wait_until(sink.has(1), LONG)
    assert sink.ends[1] == 5


def test_who_waits_for_such_a_call_is_told(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    future = make_future()

    def outer() -> Any:
        engine.submit(call(2, lambda: future))
        engine.submit(call(3, future.set_result, 7))
        assert engine.wait_until(sink.has(2), LONG, 2)
        return sink.ends[2]

    engine.submit(call(1, outer))
    assert engine.wait_until(sink.has(1), LONG)
    assert sink.ends[1] == 7
