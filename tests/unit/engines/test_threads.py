"""The engine of threads."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from manyhands.core.model import Call, EngineConfig
from manyhands.engines.threads import ThreadsEngine
from manyhands.errors import WorkerDiedError, WorkerStartError

LONG = 30.0
"""Seconds after which a wait that should have ended is a failure."""


class FakeSink:
    def __init__(self) -> None:
        self.ends: dict[int, Any] = {}
        self.breakdown: BaseException | None = None

    def take_results(self, results: Any) -> None:
        for key, value in results:
            self.take(key, value)

    def take_error(self, key: int, error: BaseException) -> None:
        self.take(key, error)

    def take(self, key: int, end: Any) -> None:
        assert key not in self.ends, "a call ends once"
        self.ends[key] = end

    def take_breakdown(self, error: BaseException) -> None:
        self.breakdown = error


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def engine(sink: FakeSink) -> Iterator[ThreadsEngine]:
    engine = ThreadsEngine()
    engine.start(EngineConfig(2), sink)
    yield engine
    engine.close(LONG)


class Blocker:
    """A call that waits until it may end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(LONG)
        return "done"


def fail(error: BaseException) -> None:
    raise error


def test_calls_run_and_end(engine: ThreadsEngine, sink: FakeSink) -> None:
    for key in range(1, 101):
        engine.submit(Call(key, pow, (key, 2), {}))
    assert engine.wait_until(lambda: len(sink.ends) == 100, LONG)
    assert sink.ends == {key: key * key for key in range(1, 101)}


def test_calls_run_beside_each_other(engine: ThreadsEngine, sink: FakeSink) -> None:
    meeting = threading.Barrier(2, timeout=LONG)
    for key in (1, 2):
        engine.submit(Call(key, meeting.wait, (), {}))
    assert engine.wait_until(lambda: len(sink.ends) == 2, LONG)
    assert {sink.ends[1], sink.ends[2]} == {0, 1}


def test_an_error_is_the_calls_own(engine: ThreadsEngine, sink: FakeSink) -> None:
    error = ValueError("x")
    engine.submit(Call(1, fail, (error,), {}))
    engine.submit(Call(2, fail, (SystemExit(3),), {}))
    engine.submit(Call(3, abs, (-1,), {}))
    assert engine.wait_until(lambda: len(sink.ends) == 3, LONG)
    assert sink.ends[1] is error
    assert isinstance(sink.ends[2], WorkerDiedError)
    assert sink.ends[3] == 1


def test_what_has_not_started_is_withdrawn(engine: ThreadsEngine, sink: FakeSink) -> None:
    blockers = [Blocker(), Blocker()]
    for key, blocker in enumerate(blockers, 1):
        engine.submit(Call(key, blocker, (), {}))
        assert blocker.begun.wait(LONG)
    engine.submit(Call(3, abs, (-3,), {}))
    engine.submit(Call(4, abs, (-4,), {}))
    assert engine.is_running(1)
    assert not engine.is_running(3)
    assert engine.cancel([1, 3, 99], kill=True) == {3}
    assert not engine.wait_until(lambda: bool(sink.ends), 0)
    for blocker in blockers:
        blocker.may_end.set()
    assert engine.wait_until(lambda: len(sink.ends) == 3, LONG)
    assert sink.ends == {1: "done", 2: "done", 4: 4}
    assert not engine.is_running(1)


def test_a_call_that_waits_for_others_runs_them(engine: ThreadsEngine, sink: FakeSink) -> None:
    """As many nested calls as there are workers, and none is left to run what they wait for."""
    meeting = threading.Barrier(2, timeout=LONG)

    def outer(key: int) -> bool:
        meeting.wait()
        engine.submit(Call(key + 10, abs, (-key,), {}))
        return engine.wait_until(lambda: key + 10 in sink.ends, LONG)

    for key in (1, 2):
        engine.submit(Call(key, outer, (key,), {}))
    assert engine.wait_until(lambda: len(sink.ends) == 4, LONG)
    assert sink.ends == {1: True, 2: True, 11: 1, 12: 2}


def test_the_initializer_runs_once_in_every_worker(sink: FakeSink) -> None:
    told: list[int] = []
    meeting = threading.Barrier(4, timeout=LONG)

    def initialize(value: int) -> None:
        told.append(value)
        meeting.wait()

    engine = ThreadsEngine()
    engine.start(EngineConfig(3, initialize, (5,)), sink)
    meeting.wait()
    engine.close(LONG)
    assert told == [5, 5, 5]


def test_an_initializer_that_fails_breaks_the_engine(sink: FakeSink) -> None:
    may_fail = threading.Event()

    def initialize() -> None:
        assert may_fail.wait(LONG)
        raise ValueError("x")

    engine = ThreadsEngine()
    engine.start(EngineConfig(1, initialize), sink)
    engine.submit(Call(1, abs, (1,), {}))
    may_fail.set()
    assert engine.wait_until(lambda: sink.breakdown is not None, LONG)
    assert isinstance(sink.ends[1], WorkerStartError)
    assert "ValueError: x" in str(sink.ends[1])
    with pytest.raises(WorkerStartError):
        engine.submit(Call(2, abs, (1,), {}))
    engine.close(LONG)


def test_a_closed_engine_leaves_no_thread(sink: FakeSink) -> None:
    engine = ThreadsEngine()
    engine.start(EngineConfig(3), sink)
    threads = list(engine._threads)
    engine.close(LONG)
    assert not any(thread.is_alive() for thread in threads)


def test_a_close_does_not_wait_for_ever(sink: FakeSink) -> None:
    engine = ThreadsEngine()
    engine.start(EngineConfig(1), sink)
    blocker = Blocker()
    engine.submit(Call(1, blocker, (), {}))
    assert blocker.begun.wait(LONG)
    engine.close(0.0)
    (thread,) = engine._threads
    assert thread.is_alive()
    blocker.may_end.set()
    thread.join(LONG)
    assert not thread.is_alive()


def test_a_call_may_close_its_own_engine(sink: FakeSink) -> None:
    engine = ThreadsEngine()
    engine.start(EngineConfig(2), sink)
    engine.submit(Call(1, engine.close, (LONG,), {}))
    for thread in engine._threads:
        thread.join(LONG)
        assert not thread.is_alive()
