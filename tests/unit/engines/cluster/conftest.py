"""What the tests of engines on clusters share."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manyhands.core.model import EngineConfig
from manyhands.engines.cluster import station
from manyhands.engines.cluster.engine import ClusterEngine
from tests.unit.engines.cluster.desk import Desk
from tests.unit.engines.cluster.fakes import FakeCluster, FakeLink, Net
from tests.unit.engines.sinks import LONG, FakeSink

Open = Callable[..., ClusterEngine]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the marks of this test are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are given up quickly."""
    monkeypatch.setattr(station, "GRACE_SECONDS", 0.05)


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def open_desk(link: FakeLink) -> Iterator[Callable[..., Desk]]:
    """Opens stations, and closes them after the test."""
    desks = []

    def start(*args: Any) -> Desk:
        desks.append(Desk(link, *args))
        return desks[-1]

    yield start
    for desk in desks:
        desk.close()


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def net() -> Net:
    """One of a single worker."""
    return Net(1)


@pytest.fixture
def open_engine(net: Net, sink: FakeSink) -> Iterator[Open]:
    """Starts engines, and closes them after the test."""
    engines = []

    def start(workers: int = 0, **settings: Any) -> ClusterEngine:
        config = EngineConfig(workers)
        for name, value in settings.items():
            setattr(config, name, value)
        engine = ClusterEngine(FakeCluster(net))
        engine.start(config, sink)  # type: ignore[arg-type]
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        engine.close(LONG)


@pytest.fixture
def engine(open_engine: Open) -> ClusterEngine:
    return open_engine()


def get_cluster(engine: ClusterEngine) -> FakeCluster:
    """The cluster that a test's engine uses."""
    cluster = engine._cluster
    assert isinstance(cluster, FakeCluster)
    return cluster
