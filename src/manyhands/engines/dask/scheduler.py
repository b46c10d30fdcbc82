"""What Dask's scheduler does otherwise for calls of ours."""

from __future__ import annotations

from distributed import SchedulerPlugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from distributed import Scheduler

PREFIX = "manyhands-"
"""What the keys of our calls begin with."""


class OneLife(SchedulerPlugin):  # type: ignore[misc]
    """A call whose worker dies has failed, and its session decides whether it runs again.

    By itself Dask would run it again three times, and a call that kills its workers would kill four of them. Results
    that are lost with a worker are made again all the same.
    """

    name = "manyhands"

    async def start(self, scheduler: Scheduler) -> None:
        """See `distributed.SchedulerPlugin`."""
        self._scheduler = scheduler

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - Dask's
        """See `distributed.SchedulerPlugin`."""
        if finish == "processing" and str(key).startswith(PREFIX):
            task = self._scheduler.tasks.get(key)
            if task is not None:
                task.suspicious = self._scheduler.allowed_failures
