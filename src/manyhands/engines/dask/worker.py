"""A Dask worker's side: a station for each session."""

from __future__ import annotations

import os
from logging import getLogger
from pickle import dumps
from time import monotonic, sleep

from distributed import WorkerPlugin, get_client, get_worker, rejoin, secede

from manyhands.engines.cluster.output import share_output
from manyhands.engines.cluster.station import Station
from manyhands.engines.dask.handle import Handle, hold
from manyhands.engines.dask.scheduler import PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import LogRecord
    from typing import Any

    from distributed import Worker

    from manyhands.engines.cluster.packed import Packed
    from manyhands.engines.cluster.task import Settings, Task

_KNOWN_SECONDS = 10.0
"""How long the scheduler may take to hear of a call."""

_LOOK_SECONDS = 0.005

_stations: dict[str, Station] = {}
"""Of this process, by the names of their sessions."""


class Sites(WorkerPlugin):  # type: ignore[misc]
    """Opens a station on each worker, also on those that come later.

    Parameters
    ----------
    settings
        Of the session.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.name = self.make_name(settings.session)

    @staticmethod
    def make_name(session: str) -> str:
        """What Dask knows the plugin by."""
        return f"manyhands-{session}"

    def setup(self, worker: Worker) -> None:
        """See `distributed.WorkerPlugin`."""
        share_output(self._settings.log_levels)
        getLogger("distributed.worker").addFilter(_is_news)  # again does nothing
        _stations[self._settings.session] = Station(self._settings, DaskLink(worker), worker.id)

    def transition(self, key: Any, start: Any, finish: Any, **kwargs: Any) -> None:  # noqa: ARG002 - Dask's
        """See `distributed.WorkerPlugin`: nobody wants a call any more, its client or its own caller has died."""
        if start in ("executing", "long-running") and finish == "released":
            station = _stations.get(self._settings.session)
            if station is not None:
                station.interrupt([key])

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002 - the only one of this process
        """See `distributed.WorkerPlugin`."""
        station = _stations.pop(self._settings.session, None)
        if station is not None:
            station.close()


class DaskLink:
    """See `manyhands.engines.cluster.cluster.Link`."""

    waits = False

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def send(self, topic: str, message: tuple[Any, ...]) -> None:
        self._worker.log_event(topic, dumps(message, 5))

    def fetch(self, native: Handle) -> Packed:
        packed: Packed = hold(get_client(), native.key).result()
        return packed

    def hold(self, native: Handle) -> Handle:
        return native

    def publish(self, native: Handle) -> None:
        """The program's connection may be quicker than ours, and then the scheduler would not know of the call yet."""
        client = get_client()
        deadline = monotonic() + _KNOWN_SECONDS
        while monotonic() < deadline:
            (state,) = client.sync(client.scheduler.get_task_status, keys=[native.key]).values()
            if state is not None:
                return
            sleep(_LOOK_SECONDS)

    def doze(self) -> None:
        """Calls leave their threads to others however they wait."""

    def leave(self) -> None:
        secede()

    def enter(self) -> None:
        rejoin()

    def make_engine(self, settings: Settings) -> Any:
        from manyhands.engines.dask.nested import make_engine

        return make_engine(settings)

    def die(self) -> None:
        sleep(0.1)  # what was sent goes first
        os._exit(1)


def _is_news(record: LogRecord) -> bool:
    """Whether Dask says something that our sessions do not: the failure of a call is for whoever made it."""
    return not record.getMessage().startswith(f"Compute Failed\nKey:       {PREFIX}")


def perform(task: Task, *inputs: Packed) -> Packed:
    """Run a call; Dask calls this in a thread of a worker."""
    station = _stations.get(task.session)
    if station is None:
        raise RuntimeError(f"the worker {get_worker().address} has no station of {task.session}")
    return station.perform(task, inputs)


def ask_station(session: str, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Call a method of a station of this worker; None where there is none."""
    station = _stations.get(session)
    return None if station is None else getattr(station, method)(*args, **options)
