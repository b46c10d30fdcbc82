"""Every case of the public conformance suite on a real Ray cluster."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import manyhands as mh
from manyhands.engines.ray import connection  # noqa: F401 - it says what Ray is to be like, before that is imported
from manyhands.testing.conformance import Case, list_cases, run_case

ray = pytest.importorskip("ray")

LACKS = {"actors", "interrupts", "orders", "resources", "shares", "staffs", "stores", "witnesses"}

SIZES = range(1, 6)
"""Of clusters that cases ask for."""


@pytest.fixture(scope="module")
def have_cluster() -> Iterator[Callable[[int], None]]:
    """Begins a cluster of so many cpus, and ends the one before."""
    current = 0

    def have(cpus: int) -> None:
        nonlocal current
        if cpus != current:
            ray.shutdown()
            ray.init(
                "local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
            )
            current = cpus

    yield have
    ray.shutdown()


@pytest.mark.parametrize("case", list_cases(), ids=str)
def test_case(have_cluster: Callable[[int], None], case: Case) -> None:
    def open_session(workers: Any = 2, **options: Any) -> mh.Session:
        have_cluster(workers if workers in SIZES else 2)
        return mh.Session("ray://auto", workers=workers, **options)

    missing = run_case(case, open_session)
    assert set(missing) <= LACKS
