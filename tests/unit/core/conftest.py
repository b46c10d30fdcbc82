"""What the tests of the core share."""

import pytest


@pytest.fixture(autouse=True)
def fresh_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unpickled here finds no globals of an earlier test, as in a worker that has just started."""
    for name in ("_namespaces", "_tokens", "_made"):
        monkeypatch.setattr(f"manyhands.core.namespaces.{name}", {})
