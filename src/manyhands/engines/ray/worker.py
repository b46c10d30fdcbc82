"""A Ray worker's side: a station for each session."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

from manyhands.core.exceptions import pack_exception
from manyhands.core.run import get_own_run
from manyhands.engines.cluster.output import share_output
from manyhands.engines.cluster.station import CallFailedError, CallJoinedError, Station
from manyhands.engines.ray.office import NAMESPACE
from manyhands.engines.ray.stays import Stays
from manyhands.errors import WorkerDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from manyhands.engines.cluster.packed import Packed
    from manyhands.engines.cluster.task import Settings, Task
    from manyhands.engines.ray.handle import Handle

_stations: dict[str, tuple[Station, RayLink]] = {}
"""Of this process, by the names of their sessions."""

_opening = threading.Lock()

MOST_COROUTINES = 10_000
"""Of a session, at a time."""

_LAST_SECONDS = 1.0
"""How long a process that ends waits until what it has sent is there."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the program hears of a call that has ended.

    Attributes
    ----------
    call
        Its id; empty where not itself failed, but one of its inputs.
    end
        The call's last message: its id, its seconds, and its result where that is small; None where it has failed.
    failure
        Its packed error; None where it went well.
    joined
        The handle of what it goes on as; None where it has ended.
    sender, sent
        The process, and how many messages it had sent by then to the session that made the call: they come first.
    nbytes
        Size of the result.
    """

    call: str
    end: tuple[Any, ...] | None
    failure: bytes | None
    joined: Handle | None
    sender: str
    sent: int
    nbytes: int = 0


class RayLink:
    """See `manyhands.engines.cluster.cluster.Link`.

    Parameters
    ----------
    session
        The session's name, which is that of its office.
    """

    def __init__(self, session: str) -> None:
        self.name = f"{os.uname().nodename}-{os.getpid()}"
        self.office = ray.get_actor(session, namespace=NAMESPACE)
        self.ends: dict[str, tuple[Any, ...]] = {}
        self._sent: dict[str, int] = {}
        self._last: Any = None
        self._sending = threading.Lock()
        self.stays = Stays(self.office, self.name)

    def send(self, topic: str, message: tuple[Any, ...]) -> None:
        if message[0] == "end":  # it goes with the result
            self.ends[message[1]] = message[1:]
            return
        with self._sending:
            number = self._sent.get(topic, 0) + 1
            self._sent[topic] = number
            self._last = self.office.post.remote(topic, [(self.name, number, message)])

    def count_sent(self, topic: str) -> int:
        """How many messages have gone to a session so far."""
        return self._sent.get(topic, 0)

    def fetch(self, native: Handle) -> Packed:
        packed: Packed = ray.get(native.value)
        return packed

    def hold(self, native: Handle) -> Handle:
        return native

    waits = True

    def publish(self, native: Handle) -> None:
        """Who holds a reference of Ray's can follow it."""

    def doze(self) -> None:
        ray.get(self.office.hear.remote(self.name))

    def leave(self) -> None:
        self.stays.leave()

    def enter(self) -> None:
        run = get_own_run()
        if run is not None:
            self.stays.enter(lambda: run.is_due)

    def make_engine(self, settings: Settings) -> Any:
        from manyhands.engines.ray.nested import make_engine

        return make_engine(settings)

    def die(self) -> None:
        if self._last is not None:  # what was sent goes first
            ray.wait([self._last], timeout=_LAST_SECONDS)
        os._exit(1)


def perform(session: str, task: Task, *inputs: Packed) -> tuple[Status, Packed | None]:
    """Run a call; Ray calls this in a worker's main thread."""
    station, link = _find_station(session)
    packed = joined = failure = None
    origin = task.id
    if None in inputs:  # it has failed, or goes on as another call
        lost = WorkerDiedError(
            "an input was lost with the node that it was on, and its call failed when it ran again"
        )
        failure, origin = pack_exception(lost), ""
    else:
        if not task.is_async:
            link.stays.begin()
        try:
            packed = station.perform(task, inputs)
        except CallJoinedError as error:
            joined = error.native
        except CallFailedError as error:
            failure = error.packed
        finally:
            link.stays.end()
    end = link.ends.pop(task.id, None)
    nbytes = 0 if packed is None else packed.nbytes
    sent = link.count_sent(task.topic)
    return Status(origin, end, failure, joined, link.name, sent, nbytes), packed


class LoopHost:
    """An actor for calls that run on an event loop: one process for all of a session, many calls at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MOST_COROUTINES, "manyhands-coroutine")

    async def perform(self, session: str, task: Task, *inputs: Packed) -> Any:
        """See the function `perform`. A thread waits for each call, and does nothing else."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, perform, session, task, *inputs)


def find_link(session: str) -> RayLink:
    """What messages to a session go by."""
    return _find_station(session)[1]


def _find_station(session: str) -> tuple[Station, RayLink]:
    with _opening:
        found = _stations.get(session)
        if found is None:
            link = RayLink(session)
            settings, withdrawn, counts = ray.get(link.office.join.remote(link.name))
            if counts:
                link.stays.count()
            share_output(settings.log_levels)
            station = Station(settings, link, link.name)
            station.withdraw(withdrawn)
            found = _stations[session] = station, link
            threading.Thread(target=_serve, args=(session, station, link), daemon=True).start()
        return found


def _serve(session: str, station: Station, link: RayLink) -> None:
    """Answer what the session asks, until it ends or is gone."""
    office = link.office
    with suppress(RayError):
        while (questions := ray.get(office.take_questions.remote(link.name))) is not None:
            for number, method, args, options in questions:
                asked = link.stays if hasattr(link.stays, method) else station
                answer = getattr(asked, method)(*args, **options)
                if number:
                    office.answer.remote(number, link.name, answer)
    _stations.pop(session, None)
    link.stays.close()
    station.close()
