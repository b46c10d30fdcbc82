"""The engine that runs every call at once, in the caller."""

import threading
from typing import Any

import pytest

from manyhands.core.model import Call, EngineConfig
from manyhands.engines.inline import InlineEngine
from manyhands.errors import WorkerDiedError, WorkerStartError


class FakeSink:
    def __init__(self) -> None:
        self.results: list[tuple[int, Any]] = []
        self.errors: list[tuple[int, BaseException]] = []

    def take_results(self, results: Any) -> None:
        self.results += results

    def take_error(self, key: int, error: BaseException) -> None:
        self.errors.append((key, error))

    def take_breakdown(self, error: BaseException) -> None:
        raise AssertionError("it cannot break down")


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def engine(sink: FakeSink) -> InlineEngine:
    engine = InlineEngine()
    engine.start(EngineConfig(1), sink)
    return engine


def fail(error: BaseException) -> None:
    raise error


def test_a_call_has_ended_when_it_is_submitted(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(Call(1, pow, (2, 5), {"mod": 7}))
    assert sink.results == [(1, 4)]
    assert engine.load(4) == (4, None)
    assert engine.wait_until(lambda: True, None)
    assert not engine.wait_until(lambda: False, 0)
    assert engine.cancel([1]) == set()


def test_a_call_runs_in_the_callers_thread(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(Call(1, threading.get_ident, (), {}))
    assert sink.results == [(1, threading.get_ident())]


def test_a_failed_call_is_its_error(engine: InlineEngine, sink: FakeSink) -> None:
    error = ValueError("x")
    engine.submit(Call(1, fail, (error,), {}))
    assert sink.errors == [(1, error)]


def test_an_exit_fails_the_call_alone(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(Call(1, fail, (SystemExit(3),), {}))
    [(key, error)] = sink.errors
    assert key == 1
    assert isinstance(error, WorkerDiedError)


def test_an_interrupt_is_the_callers(engine: InlineEngine, sink: FakeSink) -> None:
    with pytest.raises(KeyboardInterrupt):
        engine.submit(Call(1, fail, (KeyboardInterrupt(),), {}))


def test_a_call_knows_that_it_runs(engine: InlineEngine, sink: FakeSink) -> None:
    engine.submit(Call(4, lambda: (engine.is_running(4), engine.is_running(5)), (), {}))
    assert sink.results == [(4, (True, False))]
    assert not engine.is_running(4)


def test_the_initializer_runs_at_the_start(sink: FakeSink) -> None:
    told: list[int] = []
    InlineEngine().start(EngineConfig(1, told.append, (3,)), sink)
    assert told == [3]


def test_an_initializer_that_fails_fails_the_start(sink: FakeSink) -> None:
    with pytest.raises(WorkerStartError, match="ValueError: x") as caught:
        InlineEngine().start(EngineConfig(1, fail, (ValueError("x"),)), sink)
    assert isinstance(caught.value.__cause__, ValueError)


def test_computing_is_measured(engine: InlineEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 12.5])
    monkeypatch.setattr("manyhands.engines.inline.perf_counter", lambda: next(ticks))
    engine.submit(Call(1, abs, (1,), {}))
    assert engine.stats().computing == 2.5
