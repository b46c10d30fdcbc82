"""A session on a Ray cluster, seen from the program."""

from __future__ import annotations

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
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from manyhands.core.model import Capabilities
from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.engines.cluster.flights import LostWorkerError
from manyhands.engines.cluster.station import CallFailedError, CallJoinedError
from manyhands.engines.cluster.versions import explain_difference, tell_versions
from manyhands.engines.ray.connection import (
    connection,  # first: it sets what Ray reads when it is imported
)
from manyhands.engines.ray.handle import Handle
from manyhands.engines.ray.mail import Mail
from manyhands.engines.ray.office import NAMESPACE, Office
from manyhands.engines.ray.worker import MOST_COROUTINES, LoopHost, perform
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


_LOSSES = (WorkerCrashedError, NodeDiedError, ObjectLostError, RayActorError)


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
        self._perform: Any = None
        self._share: Any = None
        self._loop_host: Any = None

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
            return self._reserve(workers)
        except BaseException:
            self._give_back()
            connection.close()
            raise

    def _reserve(self, workers: int) -> int:
        """Have no more cpus than so many for the calls of the session, and those that they make; how many it has."""
        there = self._count_cpus()
        if not 0 < workers < there:
            return there
        self._share = placement_group([{"CPU": 1}] * workers)
        if not self._share.wait(CONNECT_SECONDS):
            raise WorkerStartError(
                f"workers={workers}: the Ray cluster at {self._address!r} has {there} cpus, and others use them"
            )
        place = PlacementGroupSchedulingStrategy(
            self._share, placement_group_capture_child_tasks=True
        )
        self._perform = self._perform.options(scheduling_strategy=place)
        return workers

    def _give_back(self) -> None:
        if self._share is not None:
            remove_placement_group(self._share)

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
            run = self._get_loop_host() if task.is_async else self._perform
            status, value = run.remote(self._settings.session, task, *values)
        except (ConnectionError, RayError) as cause:
            raise WorkerDiedError(
                f"no connection to the Ray cluster at {self._address!r} any more: {cause}"
            ) from cause
        return self._watch(Handle(value, status, task.id), on_end)

    def _get_loop_host(self) -> Any:
        """What performs a call on an event loop."""
        if self._loop_host is None:
            host = ray.remote(num_cpus=0, max_restarts=-1, max_concurrency=MOST_COROUTINES)(
                LoopHost
            )
            self._loop_host = host.remote()
        return self._loop_host.perform.options(num_returns=2)

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
        if isinstance(error, _LOSSES):
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
            self._give_back()
        except (ConnectionError, RayError):
            pass  # the cluster went meanwhile
        finally:
            connection.close()

    def _leave(self, natives: list[Handle]) -> None:
        self.drop(natives)
        if self._loop_host is not None:
            ray.kill(self._loop_host)
        self._office.close_topic.remote(self._topic)


def RayEngine(address: str) -> ClusterEngine:  # noqa: N802 - to whoever makes one it is a class
    """An engine on the Ray cluster at an address."""
    return ClusterEngine(RayCluster(address))
