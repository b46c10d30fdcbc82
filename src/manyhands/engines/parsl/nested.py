"""In a Parsl worker: the session of calls that calls make."""

from __future__ import annotations

from weakref import finalize

from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.engines.parsl.cluster import ParslBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from manyhands.engines.cluster.task import Settings, Task
    from manyhands.engines.parsl.handle import Handle
    from manyhands.engines.parsl.worker import ParslLink


class NestedCluster(ParslBase):
    """The cluster, seen from one of its workers.

    Parameters
    ----------
    link
        To the program, which has the calls of all sessions.
    """

    is_near = False

    def __init__(self, link: ParslLink) -> None:
        self._link = link

    def connect(
        self,
        workers: int,  # noqa: ARG002 - the program's session counts
        settings: Settings,
        topic: str,
        take: Callable[..., None],
    ) -> int:
        self._settings = settings
        self._topic = topic
        self._hub = self._link
        self._vault = self._link.vault
        self._link.open_topic(topic, take)
        return settings.workers

    def launch(
        self, task: Task, inputs: list[Any], options: Any, on_end: Callable[[Any], None]
    ) -> Handle:
        handle = super().launch(task, inputs, options, on_end)
        finalize(handle, self._link.forget, handle.id).atexit = False
        return handle

    def report(self, *message: Any) -> None:
        self._link.send(self._settings.session, message)

    def close(self, natives: list[Handle]) -> None:
        self.drop(natives)
        self._link.close_topic(self._topic)


def make_engine(settings: Settings, link: ParslLink) -> ClusterEngine:
    """An engine whose calls go to the cluster's workers, as those of the program do."""
    return ClusterEngine(NestedCluster(link), settings)
