"""What the tests of the engine of threads share."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from manyhands.core.model import EngineConfig
from manyhands.engines.threads import ThreadsEngine
from tests.unit.engines.sinks import LONG, FakeSink

Open = Callable[..., ThreadsEngine]


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def open_engine(sink: FakeSink) -> Iterator[Open]:
    """Starts engines, and closes them after the test."""
    engines = []

    def start(workers: int = 2, **settings: Any) -> ThreadsEngine:
        config = EngineConfig(workers)
        config.gpus, config.memory = (), 10**9
        for name, value in settings.items():
            setattr(config, name, value)
        engine = ThreadsEngine()
        engine.start(config, sink)
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        engine.close(LONG)


@pytest.fixture
def engine(open_engine: Open) -> ThreadsEngine:
    return open_engine()


def list_threads(engine: ThreadsEngine) -> list[threading.Thread]:
    """The threads of its workers, whatever others of them do meanwhile."""
    with engine._pool.lock:
        return engine._pool.crew.list_threads()
