"""What Dask's scheduler does otherwise for calls of ours."""

from __future__ import annotations

from pickle import dumps

from distributed import SchedulerPlugin
from distributed.core import Status
from distributed.scheduler import NoWorkerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from distributed import LocalCluster, Scheduler

PREFIX = "manyhands-"
"""What the keys of our calls begin with."""

_WAITING = ("no-worker", "queued")
"""States of tasks that wait for a worker."""

_REVIVAL_SECONDS = 1.0
"""How often we look for workers that Dask has given up, as long as some are missing."""


class OneLife(SchedulerPlugin):  # type: ignore[misc]
    """What is different for calls and messages of sessions, for all sessions of the cluster.

    A call whose worker dies has failed, and its session decides whether it runs again.

    By itself Dask would run it again three times, and a call that kills its workers would kill four of them. Results
    that are lost with a worker are made again all the same.

    Calls that wait in a cluster whose last worker is gone fail where no other one comes. By itself Dask would let them
    wait for ever, unless its configuration says otherwise for the calls of everybody.

    Parameters
    ----------
    patience
        Seconds until then.
    """

    name = "manyhands"
    idempotent = True  # one for all sessions of the cluster

    def __init__(self, patience: float) -> None:
        self._patience = patience

    async def start(self, scheduler: Scheduler) -> None:
        """See `distributed.SchedulerPlugin`."""
        self._scheduler = scheduler

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - Dask's
        """See `distributed.SchedulerPlugin`."""
        scheduler = self._scheduler
        if finish not in ("processing", *_WAITING) or not str(key).startswith(PREFIX):
            return
        if finish == "processing":
            task = scheduler.tasks.get(key)
            if task is not None:
                task.suspicious = scheduler.allowed_failures
        elif not scheduler.workers:
            scheduler.loop.call_later(self._patience, self._give_up, [key])

    def log_event(self, topic: str, msg: Any) -> None:  # noqa: ARG002 - Dask's
        """See `distributed.SchedulerPlugin`: what sessions have been sent need not be kept, as Dask keeps events."""
        if topic.startswith(PREFIX):
            self._scheduler._broker.truncate(topic)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:  # noqa: ARG002 - Dask's
        """See `distributed.SchedulerPlugin`."""
        if not scheduler.workers:
            keys = [task.key for task in (*scheduler.unrunnable, *scheduler.queued)]
            ours = [key for key in keys if str(key).startswith(PREFIX)]
            scheduler.loop.call_later(self._patience, self._give_up, ours)

    def _give_up(self, keys: list[Any]) -> None:
        """These have waited for a worker since there was none; where there still is none, they fail."""
        scheduler = self._scheduler
        if scheduler.workers:
            return
        stimulus = "manyhands-no-workers"
        for key in keys:
            task = scheduler.tasks.get(key)
            if task is None or task.state not in _WAITING:
                continue
            error = dumps(NoWorkerError(task=key, timeout=self._patience))
            moves = scheduler.transition(
                key, "erred", exception=error, cause=key, stimulus_id=stimulus
            )
            scheduler.transitions(moves, stimulus_id=stimulus)


class Revival(SchedulerPlugin):  # type: ignore[misc]
    """Keeps a cluster of this machine as large as it was.

    By itself Dask gives up a worker that dies while it starts; and one that dies again while its cluster still counts
    the seconds in which the first was to come back it ends although it has come back, unless it is told to wait for
    ever (``distributed.deploy.lost-worker-timeout``).

    Parameters
    ----------
    cluster
    """

    name = "manyhands-revival"

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._workers = len(cluster.worker_spec)
        self._looks = False

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:  # noqa: ARG002 - Dask's
        """See `distributed.SchedulerPlugin`."""
        if not self._looks:
            self._looks = True
            scheduler.loop.call_later(_REVIVAL_SECONDS, self._look)

    def _look(self) -> None:
        """Called in the cluster's own thread."""
        cluster = self._cluster
        self._looks = cluster.status == Status.running and (
            len(cluster.scheduler.workers) < self._workers
        )
        if self._looks:
            for name, nanny in list(cluster.workers.items()):
                if nanny.status in (Status.closed, Status.failed):
                    del cluster.workers[name]
            cluster.scale(self._workers)
            cluster.scheduler.loop.call_later(_REVIVAL_SECONDS, self._look)
