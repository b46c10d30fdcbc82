"""The engine of threads: calls, one beside the other."""

import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from manyhands.core.model import EngineConfig
from manyhands.core.resources import make_need
from manyhands.engines.threads import ThreadsEngine
from manyhands.errors import SessionClosedError, WorkerDiedError, WorkerStartError
from tests.unit.engines.sinks import LONG, Blocker, FakeSink, Spinner, call, fail
from tests.unit.engines.threads.conftest import list_threads


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


def start(sink: FakeSink, workers: int = 2, **settings: Any) -> ThreadsEngine:
    config = EngineConfig(workers)
    config.gpus, config.memory = (), 10**9
    for name, value in settings.items():
        setattr(config, name, value)
    engine = ThreadsEngine()
    engine.start(config, sink)
    return engine


@pytest.fixture
def engine(sink: FakeSink) -> Iterator[ThreadsEngine]:
    engine = start(sink)
    yield engine
    engine.close(LONG)


# Calls.


def test_calls_run_and_end(engine: ThreadsEngine, sink: FakeSink) -> None:
    for key in range(1, 101):
        engine.submit(call(key, pow, key, 2))
    assert engine.wait_until(lambda: len(sink.ends) == 100, LONG)
    assert sink.ends == {key: key * key for key in range(1, 101)}
    assert engine.first_key == 1
    assert engine.load(sink.ends[7]) == (49, None)


def test_calls_run_beside_each_other(engine: ThreadsEngine, sink: FakeSink) -> None:
    meeting = threading.Barrier(2, timeout=LONG)
    for key in (1, 2):
        engine.submit(call(key, meeting.wait))
    assert engine.wait_until(sink.has(1, 2), LONG)
    assert {sink.ends[1], sink.ends[2]} == {0, 1}


def test_no_more_run_than_there_are_workers(engine: ThreadsEngine, sink: FakeSink) -> None:
    present, most = [0], [0]
    lock = threading.Lock()

    def count() -> None:
        with lock:
            present[0] += 1
            most[0] = max(most[0], present[0])
        sum(range(20000))
        with lock:
            present[0] -= 1

    for key in range(1, 101):
        engine.submit(call(key, count))
    assert engine.wait_until(lambda: len(sink.ends) == 100, LONG)
    assert most[0] <= 2


def test_an_error_is_the_calls_own(engine: ThreadsEngine, sink: FakeSink) -> None:
    error = ValueError("x")
    engine.submit(call(1, fail, error))
    engine.submit(call(2, fail, SystemExit(3)))
    engine.submit(call(3, abs, -1))
    assert engine.wait_until(sink.has(1, 2, 3), LONG)
    assert sink.ends[1] is error
    assert isinstance(sink.ends[2], WorkerDiedError)
    assert sink.ends[3] == 1


def test_a_failed_call_can_be_tried_again(engine: ThreadsEngine, sink: FakeSink) -> None:
    tries = []

    def flicker() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return "at last"

    def try_again(key: int, error: BaseException, attempt: Any) -> bool:
        assert attempt.options.priority == 5
        engine.resubmit(key, attempt)
        return True

    sink.on_failure = try_again
    engine.submit(call(1, flicker, priority=5))
    assert engine.wait_until(sink.has(1), LONG)
    assert sink.ends == {1: "at last"}


def test_what_has_not_started_is_withdrawn(engine: ThreadsEngine, sink: FakeSink) -> None:
    blockers = [Blocker(), Blocker()]
    for key, blocker in enumerate(blockers, 1):
        engine.submit(call(key, blocker))
        assert blocker.begun.wait(LONG)
    engine.submit(call(3, abs, -3))
    engine.submit(call(4, abs, -4))
    assert engine.is_running(1)
    assert not engine.is_running(3)
    assert engine.cancel([1, 3, 99]) == {3}
    assert not engine.wait_until(lambda: bool(sink.ends), 0)
    for blocker in blockers:
        blocker.may_end.set()
    assert engine.wait_until(sink.has(1, 2, 4), LONG)
    assert sink.ends == {1: "done", 2: "done", 4: 4}
    assert not engine.is_running(1)


def test_arguments_are_let_go(engine: ThreadsEngine, sink: FakeSink) -> None:
    """Without a collection: nothing leads in a circle. The thread forgets a call as it takes the next."""

    class Thing:
        pass

    thing = Thing()
    watched = weakref.ref(thing)
    gc.disable()
    try:
        engine.submit(call(1, id, thing))
        del thing
        assert engine.wait_until(sink.has(1), LONG)
        for key in range(2, 20):
            engine.submit(call(key, abs, 1))
        assert engine.wait_until(sink.has(*range(2, 20)), LONG)
        assert watched() is None
    finally:
        gc.enable()


# Order and resources.


def test_the_order_is_of_priority_and_then_of_submission(sink: FakeSink) -> None:
    engine = start(sink, 1)
    blocker = Blocker()
    engine.submit(call(1, blocker))
    assert blocker.begun.wait(LONG)
    ran: list[int] = []
    for key, priority in ((2, 0), (3, 1), (4, -1), (5, 1), (6, 0)):
        engine.submit(call(key, ran.append, key, priority=priority))
    blocker.may_end.set()
    assert engine.wait_until(lambda: len(sink.ends) == 6, LONG)
    assert ran == [3, 5, 2, 6, 4]
    engine.close(LONG)


def test_calls_that_need_less_than_a_cpu_run_beyond_the_workers(sink: FakeSink) -> None:
    engine = start(sink, 1)
    blocker = Blocker()
    engine.submit(call(1, blocker))
    assert blocker.begun.wait(LONG)
    meeting = threading.Barrier(3, timeout=LONG)
    for key in (2, 3, 4):
        engine.submit(call(key, meeting.wait, need=make_need(cpus=0)))
    assert engine.wait_until(sink.has(2, 3, 4), LONG)
    blocker.may_end.set()
    engine.close(LONG)


def test_resources_are_held_while_a_call_runs(sink: FakeSink) -> None:
    engine = start(sink, 4, resources={"licence": 1}, gpus=("0",))
    need = make_need(resources={"licence": 1})
    blocker = Blocker()
    engine.submit(call(1, blocker, need=need))
    assert blocker.begun.wait(LONG)
    engine.submit(call(2, abs, -2, need=need))
    engine.submit(call(3, abs, -3, need=make_need(gpus=1)))
    assert engine.wait_until(sink.has(3), LONG)
    assert not engine.is_running(2)
    blocker.may_end.set()
    assert engine.wait_until(sink.has(2), LONG)
    engine.close(LONG)


def test_what_never_fits_is_explained(sink: FakeSink) -> None:
    engine = start(sink, 2, resources={"licence": 1})
    misfit = engine.explain_misfit(call(1, abs, need=make_need(cpus=3)))
    assert misfit is not None
    assert "3 cpus" in misfit
    assert engine.explain_misfit(call(1, abs, need=make_need(gpus=1)))
    assert engine.explain_misfit(call(1, abs, need=make_need(memory="2GB")))
    assert engine.explain_misfit(call(1, abs, need=make_need(resources={"licence": 1}))) is None
    engine.close(LONG)


def test_devices_and_memory_are_found(sink: FakeSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    engine = start(sink, 1, gpus=None, memory=None)
    assert engine.explain_misfit(call(1, abs, need=make_need(gpus=2))) is None
    assert engine.explain_misfit(call(1, abs, need=make_need(memory="1000000GB")))
    engine.close(LONG)


def test_whether_python_runs_in_parallel() -> None:
    is_locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert ThreadsEngine.capabilities.parallel is not is_locked
    assert not ThreadsEngine.capabilities.interrupts


# Waiting.


def test_a_wait_has_a_limit(engine: ThreadsEngine, sink: FakeSink) -> None:
    assert not engine.wait_until(lambda: False, 0)
    assert not engine.wait_until(lambda: False, 0.01)
    assert not engine.wait_until(sink.has(5), 0.01, 5)
    assert engine.wait_until(lambda: True, 0)


def test_a_wait_for_one_call_ends_with_it(engine: ThreadsEngine, sink: FakeSink) -> None:
    for key in (1, 2):
        engine.submit(call(key, abs, -key))
        assert engine.wait_until(sink.has(key), LONG, key)
    engine.submit(call(3, fail, ValueError("x")))
    assert engine.wait_until(sink.has(3), LONG, 3)


def test_who_waits_is_roused(engine: ThreadsEngine) -> None:
    ended = []

    def end() -> None:
        ended.append(1)
        engine.rouse()

    threading.Timer(0.01, end).start()
    assert engine.wait_until(lambda: bool(ended), LONG)
    threading.Timer(0.01, end).start()
    assert engine.wait_until(lambda: len(ended) == 2, LONG, 77)


def test_a_callback_that_waits_for_a_call(sink: FakeSink) -> None:
    """It runs in a worker whose cpus are free already, so that the call can run in another one."""
    engine = start(sink, 1)
    take, waited = sink.take_results, []

    def take_and_wait(results: Any) -> None:
        take(results)
        if results[0][0] == 1:
            engine.submit(call(2, abs, -2))
            waited.append(engine.wait_until(sink.has(2), LONG))

    sink.take_results = take_and_wait  # type: ignore[method-assign]
    engine.submit(call(1, abs, -1))
    assert engine.wait_until(lambda: bool(waited), LONG)
    assert waited == [True]
    engine.close(LONG)


# Workers.


def test_the_initializer_runs_once_in_every_worker(sink: FakeSink) -> None:
    told: list[int] = []
    meeting = threading.Barrier(4, timeout=LONG)

    def initialize(value: int) -> None:
        told.append(value)
        meeting.wait()

    engine = start(sink, 3, initializer=initialize, initargs=(5,))
    meeting.wait()
    engine.close(LONG)
    assert told == [5, 5, 5]


def test_further_workers_are_initialized_too(sink: FakeSink) -> None:
    local = threading.local()

    def initialize() -> None:
        local.is_ready = True

    engine = start(sink, 1, initializer=initialize)
    meeting = threading.Barrier(3, timeout=LONG)

    def meet() -> bool:
        meeting.wait()
        return bool(local.is_ready)

    for key in (1, 2, 3):
        engine.submit(call(key, meet, need=make_need(cpus=0)))
    assert engine.wait_until(sink.has(1, 2, 3), LONG)
    assert sink.ends == {1: True, 2: True, 3: True}
    engine.close(LONG)


def test_an_initializer_that_fails_breaks_the_engine(sink: FakeSink) -> None:
    may_fail = threading.Event()

    def initialize() -> None:
        assert may_fail.wait(LONG)
        raise ValueError("x")

    engine = start(sink, 2, initializer=initialize)
    for key in range(1, 6):
        engine.submit(call(key, abs, 1))
    may_fail.set()
    assert engine.wait_until(lambda: sink.breakdown is not None and len(sink.ends) == 5, LONG)
    assert {type(end) for end in sink.ends.values()} == {WorkerStartError}
    assert "ValueError: x" in str(sink.ends[1])
    with pytest.raises(WorkerStartError):
        engine.submit(call(9, abs, 1))
    engine.close(LONG)


def test_idle_workers_beyond_the_usual_number_end(
    sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyhands.engines.threads.crew.IDLE_SECONDS", 0.01)
    engine = start(sink, 2)
    meeting = threading.Barrier(6, timeout=LONG)
    for key in range(1, 7):
        engine.submit(call(key, meeting.wait, need=make_need(cpus=0)))
    assert engine.wait_until(lambda: len(sink.ends) == 6, LONG)
    for thread in list_threads(engine):
        if len(list_threads(engine)) > 2:
            thread.join(0.05)
    assert engine.wait_until(lambda: len(list_threads(engine)) <= 2 or engine.rouse() is None, LONG)
    engine.submit(call(7, abs, -7))
    assert engine.wait_until(sink.has(7), LONG)
    engine.close(LONG)


def test_fresh_workers(engine: ThreadsEngine, sink: FakeSink) -> None:
    blocker = Blocker()
    engine.submit(call(1, blocker))
    assert blocker.begun.wait(LONG)
    before = list_threads(engine)
    engine.restart_workers()
    engine.submit(call(2, threading.current_thread))
    assert engine.wait_until(sink.has(2), LONG)
    assert sink.ends[2] not in before
    blocker.may_end.set()
    for thread in before:
        thread.join(LONG)
        assert not thread.is_alive()
    assert sink.ends[1] == "done"


def test_without_threads_there_is_no_engine(
    sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(WorkerStartError, match="no more threads"):
        start(sink, 2)


def test_a_call_waits_where_the_system_gives_no_more_threads(
    engine: ThreadsEngine, sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    blockers = [Blocker(), Blocker()]
    for key, blocker in enumerate(blockers, 1):
        engine.submit(call(key, blocker))
        assert blocker.begun.wait(LONG)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        engine.submit(call(3, abs, -3, need=make_need(cpus=0)))
        assert not engine.is_running(3)
    blockers[0].may_end.set()
    assert engine.wait_until(sink.has(3), LONG)
    blockers[1].may_end.set()
    assert engine.wait_until(sink.has(2), LONG)


def test_times_are_measured(engine: ThreadsEngine, sink: FakeSink) -> None:
    engine.submit(call(1, sum, range(300000)))
    assert engine.wait_until(sink.has(1), LONG)
    stats = engine.stats()
    assert stats.starting > 0
    assert engine.wait_until(lambda: stats.computing > 0, LONG)


def test_questions_are_for_the_session(engine: ThreadsEngine) -> None:
    assert engine.ask("find_actor", "x") == ("find_actor", ("x",))
    engine.look()
    engine.attend()


# The end.


def test_a_closed_engine_leaves_no_thread(sink: FakeSink) -> None:
    engine = start(sink, 3)
    threads = list_threads(engine)
    assert len(threads) == 3
    engine.close(LONG)
    assert not any(thread.is_alive() for thread in threads)
    assert all(thread.daemon for thread in threads)


def test_a_close_interrupts_what_runs(sink: FakeSink) -> None:
    engine = start(sink, 1)
    spinner = Spinner()
    engine.submit(call(1, spinner))
    engine.submit(call(2, abs, -2))
    assert spinner.begun.wait(LONG)
    engine.close(LONG)
    assert spinner.ended.is_set()
    assert sink.ends == {}


def test_a_close_does_not_wait_for_ever(sink: FakeSink) -> None:
    engine = start(sink, 1)
    blocker = Blocker()
    engine.submit(call(1, blocker))
    assert blocker.begun.wait(LONG)
    (thread,) = list_threads(engine)
    engine.close(0.0)
    assert thread.is_alive()
    blocker.may_end.set()
    thread.join(LONG)
    assert not thread.is_alive()
    assert sink.ends == {}


def test_a_call_may_close_its_own_engine(sink: FakeSink) -> None:
    engine = start(sink, 2)
    threads = list_threads(engine)
    engine.submit(call(1, engine.close, LONG))
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_a_closed_engine_takes_no_calls(sink: FakeSink) -> None:
    engine = start(sink, 1)
    engine.close(LONG)
    with pytest.raises(SessionClosedError):
        engine.submit(call(1, abs, 1))


def test_who_waits_on_a_closed_engine_looks_again(sink: FakeSink) -> None:
    """The session withdraws what has not ended after the engine has closed, and tells nobody."""
    engine = start(sink, 1)
    waited = []
    looked = threading.Event()

    def is_done() -> bool:
        looked.set()
        return 1 in sink.ends

    waiter = threading.Thread(target=lambda: waited.append(engine.wait_until(is_done, LONG)))
    waiter.start()
    assert looked.wait(LONG)
    engine.close(LONG)
    sink.ends[1] = "withdrawn"
    waiter.join(LONG)
    assert waited == [True]
