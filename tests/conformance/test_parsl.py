"""Every case of the public conformance suite on real workers of Parsl's HighThroughputExecutor."""

from collections.abc import Iterator
from typing import Any

import parsl
import pytest

import manyhands as mh
from manyhands.engines.parsl.kernel import make_local_config
from manyhands.testing.conformance import Case, list_cases, run_case

# One after the other, since they share what is begun for them.
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("parsl")]

LACKS = {"actors", "interrupts", "resources", "shares", "staffs", "stores", "witnesses"}

WORKERS = 5
"""Of the executor; sessions have the part of it that cases ask for."""


@pytest.fixture(scope="module", autouse=True)
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the program has loaded; cases share it."""
    with parsl.load(make_local_config(WORKERS, str(tmp_path_factory.mktemp("parsl")))):
        yield


@pytest.mark.parametrize("case", list_cases(), ids=str)
def test_case(case: Case) -> None:
    def open_session(workers: Any = 2, **options: Any) -> mh.Session:
        return mh.Session("parsl://current", workers=workers, **options)

    missing = run_case(case, open_session)
    assert set(missing) <= LACKS
