"""Every case of the public conformance suite on a real Ray cluster."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

import manyhands as mh
from manyhands.engines.ray import connection  # noqa: F401 - it says what Ray is to be like, before that is imported
from manyhands.testing.conformance import Case, list_cases, run_case

ray: Any = import_module("ray")

# One after the other, since they share what is begun for them.
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("ray"), pytest.mark.timeout(600)]

LACKS = {"actors", "interrupts", "orders", "resources", "shares", "staffs", "stores", "witnesses"}

CPUS = 5
"""Of the cluster; sessions have the part of it that cases ask for."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(
        "local",
        num_cpus=CPUS,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        # Processes are there for the next case. Starting them is what takes long.
        _system_config={"idle_worker_killing_time_threshold_ms": 60_000},
    )
    yield
    ray.shutdown()


@pytest.mark.parametrize("case", list_cases(), ids=str)
def test_case(case: Case) -> None:
    def open_session(workers: Any = 2, **options: Any) -> mh.Session:
        return mh.Session("ray://auto", workers=workers, **options)

    missing = run_case(case, open_session)
    assert set(missing) <= LACKS
