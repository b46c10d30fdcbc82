"""The tests of this folder leave nothing behind either: no process, no descriptor, no named segment.

That is looked at after each file and not after each test: workers are kept between the calls of joblib, and those that
have to import joblib and NumPy anew for each test would take a minute.
"""

from collections.abc import Iterator

import pytest

from manyhands.frontends.joblib import shutdown
from tests.local.conftest import check_nothing_is_left


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    with check_nothing_is_left():
        yield
        shutdown()
