"""The tests of this folder leave nothing behind either: no process, no descriptor, no named segment."""

from collections.abc import Iterator

import pytest

from manyhands.frontends.joblib import shutdown
from tests.local.conftest import nothing_is_left  # noqa: F401 - pytest finds it here by its name


@pytest.fixture(autouse=True)
def nothing_is_kept(nothing_is_left: None) -> Iterator[None]:  # noqa: F811
    yield
    shutdown()
