"""What Dask's scheduler does otherwise for calls of ours."""

from __future__ import annotations

from pickle import dumps

from dask import config
from dask.utils import parse_timedelta
from distributed import SchedulerPlugin
from distributed.scheduler import NoWorkerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from distributed import LocalCluster, Scheduler

PREFIX = "manyhands-"
"""What the keys of our calls begin with."""

REVIVAL_SECONDS = 1.0
"""How soon after Dask's own cluster has let go of a dead worker we have it begin another one."""


class OneLife(SchedulerPlugin):  # type: ignore[misc]
    """A call whose worker dies has failed, and its session decides whether it runs again.

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
        if finish == "processing" and str(key).startswith(PREFIX):
            task = self._scheduler.tasks.get(key)
            if task is not None:
                task.suspicious = self._scheduler.allowed_failures

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:  # noqa: ARG002 - Dask's
        """See `distributed.SchedulerPlugin`."""
        if not scheduler.workers:
            scheduler.loop.call_later(self._patience, self._give_up)

    def _give_up(self) -> None:
        scheduler = self._scheduler
        if scheduler.workers:
            return
        stimulus = "manyhands-no-workers"
        waiting = [*scheduler.unrunnable, *scheduler.queued]
        for key in [task.key for task in waiting if str(task.key).startswith(PREFIX)]:
            error = dumps(NoWorkerError(task=key, timeout=self._patience))
            moves = scheduler.transition(
                key, "erred", exception=error, cause=key, stimulus_id=stimulus
            )
            scheduler.transitions(moves, stimulus_id=stimulus)


class Revival(SchedulerPlugin):  # type: ignore[misc]
    """Keeps a cluster of this machine as large as it was: Dask gives up a worker that dies while it starts.

    Parameters
    ----------
    cluster
    workers
        How many it is to have.
    """

    name = "manyhands-revival"

    def __init__(self, cluster: LocalCluster, workers: int) -> None:
        self._cluster = cluster
        self._workers = workers

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:  # noqa: ARG002 - Dask's
        """See `distributed.SchedulerPlugin`."""
        # Until then the cluster counts the dead one, in case that it comes back.
        patience = parse_timedelta(config.get("distributed.deploy.lost-worker-timeout"))
        scheduler.loop.call_later(patience + REVIVAL_SECONDS, self._cluster.scale, self._workers)
