"""A session on a Ray cluster, seen from the program."""

from __future__ import annotations

from manyhands.engines.ray.connection import connection  # first: it sets what Ray reads when it is imported

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from manyhands.core.model import Capabilities
from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.engines.cluster.flights import LostWorkerError
from manyhands.engines.cluster.station import CallFailedError, CallJoinedError
from manyhands.engines.cluster.versions import explain_difference, tell_versions
from manyhands.engines.ray.handle import Handle
from manyhands.engines.ray.mail import Mail
from manyhands.engines.ray.office import NAMESPACE, Office
from manyhands.engines.ray.worker import perform
from manyhands.errors import OutOfMemoryError, WorkerDiedError, WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any

    from manyhands.core.model import CallOptions
    from manyhands.engines.cluster.packed import Packed
    from manyhands.engines.cluster.task import Settings, Task
    from manyhands.engines.ray.worker import Status

CONNECT_SECONDS = 30
"""How long workers have to start, and to answer."""


class RayCluster:
    """See `manyhands.engines.cluster.cluster.Cluster`.

    Parameters
    ----------
    address
        See `manyhands.engines.ray.connection.Connection`.
    """

    name = "ray"
    capabilities = Capabilities(
        isolates=True,
        parallel=True,
        pickles=True,
        actors=False,
        chains=True,
        orders=False,
        resources=False,
        shares=False,
        staffs=False,
        witnesses=False,
    )
    waits = True

    def __init__(self, address: str) -> None:
        self._address = address
        self.is_near = address == "local"

    def connect(
        self, workers: int, settings: Settings, topic: str, take: Callable[..., None]
    ) -> int:
        connection.open(self._address, workers)
        try:
            self._check_versions()
            office = ray.remote(num_cpus=0)(Office)
            self._office = office.options(name=settings.session, namespace=NAMESPACE).remote(
                settings
            )
            self._join(settings, topic, take)
            return self._count_cpus()
        except BaseException:
            connection.close()
            raise

    def _join(self, settings: Settings, topic: str, take: Callable[..., None]) -> None:
        self._settings = settings
        self._topic = topic
        self._take = take
        self._perform = ray.remote(num_cpus=1, num_returns=2, max_retries=0)(perform)
        try:
            ray.get(self._office.open_topic.remote(topic), timeout=CONNECT_SECONDS)
        except GetTimeoutError:
            raise WorkerStartError(
                f"the Ray cluster at {self._address!r} has started no process in {CONNECT_SECONDS} s"
            ) from None
        self._mail = Mail(self._office, topic, take)

    def _check_versions(self) -> None:
        """See that what we send can be read there."""
        tell = ray.remote(num_cpus=0, max_retries=0)(tell_versions)
        for node in ray.nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                try:
                    answer = ray.get(
                        tell.options(scheduling_strategy=there).remote(), timeout=CONNECT_SECONDS
                    )
                except RayError as error:
                    answer = error
                difference = explain_difference(answer)
                if difference is not None:
                    raise WorkerStartError(
                        f"the Ray node {node['NodeManagerAddress']}: {difference}"
                    )

    def _count_cpus(self) -> int:
        return int(ray.cluster_resources().get("CPU", 0))

    def launch(
        self,
        task: Task,
        inputs: list[Any],
        options: CallOptions,  # noqa: ARG002 - Ray has no priorities
        on_end: Callable[[Any], None],
    ) -> Handle:
        values = (value.value if isinstance(value, Handle) else value for value in inputs)
        try:
            status, value = self._perform.remote(self._settings.session, task, *values)
        except (ConnectionError, RayError) as cause:
            raise WorkerDiedError(
                f"no connection to the Ray cluster at {self._address!r} any more: {cause}"
            ) from cause
        return self._watch(Handle(value, status, task.id), on_end)

    def follow(self, native: Handle, on_end: Callable[[Any], None]) -> Handle:
        return self._watch(native, on_end)

    def _watch(self, handle: Handle, on_end: Callable[[Any], None]) -> Handle:
        def take_status(future: Future[Status]) -> None:
            self._mail.call(lambda: take(future))

        def take(future: Future[Status]) -> None:
            error = future.exception()
            if error is not None:
                handle.error = error
                on_end(handle)
                return
            status = future.result()
            if status.joined is not None:
                handle.error = CallJoinedError(status.joined, status.call)
            elif status.failure is not None:
                handle.error = CallFailedError(status.failure, status.call)
            self._mail.after(status.sender, status.sent, lambda: take_end(status))

        def take_end(status: Status) -> None:
            if status.end is not None:
                self._take("end", *status.end)
            on_end(handle)

        assert handle.status is not None
        handle.status.future().add_done_callback(take_status)
        return handle

    def explain_end(self, native: Handle) -> BaseException | None:
        return None if native.error is None else self._explain(native.error, native.call)

    def _explain(self, error: BaseException, call: str) -> BaseException:
        """What an error of Ray's is to a session.

        Parameters
        ----------
        error
        call
            The id of the call that failed; empty where it was another one's.
        """
        if isinstance(error, (CallFailedError, CallJoinedError)):
            return error
        if isinstance(error, RayTaskError):
            return self._explain(error.cause, "")
        if isinstance(error, RayOutOfMemoryError):
            return OutOfMemoryError(f"Ray has killed the worker for want of memory: {error}")
        if isinstance(error, (WorkerCrashedError, NodeDiedError, ObjectLostError)):
            return LostWorkerError(
                f"the worker of the Ray cluster that had it has ended: {error}", "", call
            )
        if isinstance(error, TaskCancelledError):
            return WorkerDiedError("the call was cancelled in the Ray cluster, by somebody else")
        return WorkerDiedError(f"{type(error).__name__}: {error}")

    def fetch(self, native: Handle) -> Packed:
        try:
            packed: Packed = ray.get(native.value)
        except RayError as error:
            raise self._explain(error, native.call) from None
        return packed

    def hold(self, native: Handle) -> Handle:
        return native

    def store(self, packed: Packed) -> Handle:
        return Handle(ray.put(packed))

    def ask(self, method: str, *args: Any, **options: Any) -> list[Any]:
        try:
            answers: list[Any] = ray.get(self._office.ask.remote(method, args, options))
        except RayActorError:
            return []  # the cluster is gone, and so are the calls
        return answers

    def drop(self, natives: list[Handle]) -> None:
        for native in natives:
            self.release(native)

    def release(self, native: Handle) -> None:
        if native.status is not None:
            ray.cancel(native.status, force=False, recursive=False)

    def wait_for_any(self, natives: list[Handle], seconds: float) -> None:
        """In a call: wait until one of these has ended, and let another call run meanwhile."""
        refs = [native.status for native in natives if native.status is not None]
        if refs:
            ray.wait(refs, num_returns=1, timeout=seconds, fetch_local=False)

    def report(self, *message: Any) -> None:
        """The program's session counts for itself."""

    def close(self, natives: list[Handle]) -> None:
        try:
            self._leave(natives)
            ray.get(self._office.close.remote(), timeout=CONNECT_SECONDS)
            ray.kill(self._office)
        except (ConnectionError, RayError):
            pass  # the cluster went meanwhile
        finally:
            connection.close()

    def _leave(self, natives: list[Handle]) -> None:
        self.drop(natives)
        self._office.close_topic.remote(self._topic)


def RayEngine(address: str) -> ClusterEngine:  # noqa: N802 - to whoever makes one it is a class
    """An engine on the Ray cluster at an address."""
    return ClusterEngine(RayCluster(address))
