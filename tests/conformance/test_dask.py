"""Every case of the public conformance suite on real Dask clusters: a scheduler, and workers that are processes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dask import config
from distributed import LocalCluster

import manyhands as mh
from manyhands.testing.conformance import Case, list_cases, run_case

# One after the other, since they share what is begun for them.
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("dask")]

LACKS = {"actors", "interrupts", "orders", "resources", "shares", "staffs", "stores", "witnesses"}

SIZES = range(1, 6)
"""Of clusters that cases ask for."""


@pytest.fixture(scope="module")
def find_cluster() -> Iterator[Callable[[int], str]]:
    """Gives the address of a cluster of so many workers; cases share it."""
    clusters: dict[int, LocalCluster] = {}
    # Else Dask ends workers that have come back, where they had died twice meanwhile.
    config.set({"distributed.deploy.lost-worker-timeout": "1000d"})

    def find(workers: int) -> str:
        cluster = clusters.get(workers)
        if cluster is not None and not _is_whole(cluster, workers):
            cluster.close()
            cluster = None
        if cluster is None:
            cluster = clusters[workers] = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
            )
        return str(cluster.scheduler_address.removeprefix("tcp://"))

    yield find
    for cluster in clusters.values():
        cluster.close()


def _is_whole(cluster: LocalCluster, workers: int) -> bool:
    """Whether all workers are there; Dask gives one up that dies again as it starts."""
    try:
        cluster.wait_for_workers(workers, timeout=10)
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("case", list_cases(), ids=str)
def test_case(find_cluster: Callable[[int], str], case: Case) -> None:
    def open_session(workers: Any = 2, **options: Any) -> mh.Session:
        size = workers if workers in SIZES else 2
        return mh.Session(f"dask://{find_cluster(size)}", workers=workers, **options)

    missing = run_case(case, open_session)
    assert set(missing) <= LACKS
