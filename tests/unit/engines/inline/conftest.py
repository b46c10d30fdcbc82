"""What the tests of the engine in the caller share."""

from typing import Any

import pytest

from manyhands.core.model import EngineConfig
from manyhands.engines.inline import InlineEngine
from tests.unit.engines.sinks import FakeSink


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def engine(sink: FakeSink) -> Any:
    engine = InlineEngine()
    config = EngineConfig(1)
    config.gpus = ()
    engine.start(config, sink)
    yield engine
    engine.close(0)
