"""Sessions for the tests of this folder; they leave nothing behind: no process, no descriptor, no named segment."""

from collections.abc import Iterator

import pytest

import manyhands as mh
from manyhands.frontends.keeping import shutdown
from tests.local.conftest import check_nothing_is_left


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Looked at after each file: workers that import pandas anew for each test would take a minute."""
    with check_nothing_is_left():
        yield
        shutdown()


@pytest.fixture(scope="module")
def session(nothing_is_left: None) -> Iterator[mh.Session]:
    with mh.Session("local", workers=2) as session:
        yield session
