"""In a Ray worker: the session of calls that calls make."""

from __future__ import annotations

import ray

from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.engines.ray.engine import RayCluster
from manyhands.engines.ray.office import NAMESPACE
from manyhands.engines.ray.worker import find_link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from manyhands.engines.cluster.task import Settings
    from manyhands.engines.ray.handle import Handle


class NestedCluster(RayCluster):
    """The cluster, seen from one of its workers."""

    def connect(
        self,
        workers: int,  # noqa: ARG002 - the program's session counts
        settings: Settings,
        topic: str,
        take: Callable[..., None],
    ) -> int:
        self._office = ray.get_actor(settings.session, namespace=NAMESPACE)
        self._join(settings, topic, take)
        return self._count_cpus()

    def report(self, *message: Any) -> None:
        find_link(self._settings.session).send(self._settings.session, message)

    def _read(self, ref: Any) -> Any:
        # In the thread of a call, Ray lets another one run meanwhile.
        return ray.get(ref)

    def close(self, natives: list[Handle]) -> None:  # noqa: ARG002 - they end with those that made them
        self._leave()
        self._mail.close()


def make_engine(settings: Settings) -> ClusterEngine:
    """An engine whose calls go to the cluster's workers, as those of the program do."""
    return ClusterEngine(NestedCluster("worker"), settings)
