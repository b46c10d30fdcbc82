"""In a Dask worker: the session of calls that calls make."""

from __future__ import annotations

from pickle import loads

from distributed import get_client, get_worker, rejoin, secede

from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.engines.dask.engine import DaskCluster

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from manyhands.engines.cluster.task import Settings
    from manyhands.engines.dask.handle import Handle


class NestedCluster(DaskCluster):
    """The cluster, seen from one of its workers."""

    def connect(
        self,
        workers: int,  # noqa: ARG002 - the program's session counts
        settings: Settings,
        topic: str,
        take: Callable[..., None],
    ) -> int:
        self._client = get_client()
        self._settings = settings
        self._topic = topic
        self._client.subscribe_topic(topic, lambda event: take(*loads(event[1])))
        return self._count_threads()

    def leave(self) -> None:
        secede()

    def enter(self) -> None:
        rejoin()

    def close(self, natives: list[Handle]) -> None:  # noqa: ARG002 - they go with their handles
        self._client.unsubscribe_topic(self._topic)


def make_engine(settings: Settings) -> ClusterEngine:
    """An engine whose calls go to the cluster's workers, as those of the program do."""
    return ClusterEngine(NestedCluster(get_worker().scheduler.address), settings)
