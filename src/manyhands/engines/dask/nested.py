"""In a Dask worker: the session of calls that calls make."""

from __future__ import annotations

from pickle import dumps, loads

from distributed import get_client, get_worker

from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.engines.dask.engine import DaskCluster

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

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
        self._worker = get_worker()
        self._settings = settings
        self._topic = topic
        self._client.subscribe_topic(topic, lambda event: take(*loads(event[1])))
        return self._count_threads()

    def report(self, *message: Any) -> None:
        self._worker.log_event(self._settings.session, dumps(message, 5))

    def close(self, natives: list[Handle]) -> None:  # noqa: ARG002 - they go with their handles
        self._client.unsubscribe_topic(self._topic)


def make_engine(settings: Settings) -> ClusterEngine:
    """An engine whose calls go to the cluster's workers, as those of the program do."""
    return ClusterEngine(NestedCluster(get_worker().scheduler.address), settings)
