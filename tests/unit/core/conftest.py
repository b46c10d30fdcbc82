"""What the tests of the core share."""

import pytest

from manyhands.core import namespaces
from tests.unit.core.workers import STATE, FakeWorker


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unpickled here finds no globals of an earlier test."""
    for name in STATE:
        monkeypatch.setattr(namespaces, name, {})


@pytest.fixture
def worker() -> FakeWorker:
    """One that has just started."""
    return FakeWorker()
