"""A session on a Ray cluster, seen from the program."""

from __future__ import annotations

import atexit
import threading
from contextlib import suppress
from functools import partial

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
from manyhands.engines.ray.handle import Handle, Recipe
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

CONNECT_SECONDS = 60
"""How long workers have to start, and to answer."""


_MOST_LETTERS = 100_000
"""Of those who wait for something at the office, at a time."""

LARGE_BYTES = 50 * 1024
"""Results of this size, and half as much again, Ray keeps with whoever made the call: no node takes them with it."""

_MOST_LOSSES = 20
"""How often a call's inputs, or its result, may be lost with nodes before it fails."""

_TURN_SECONDS = 0.5
"""How soon who waits for the cluster hears that it is gone."""

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
        self._mail: Any = None
        self._loss = ""
        self._is_closed = False
        self._ending = threading.RLock()
        self._under_way: dict[int, tuple[Handle, Callable[[Any], None]]] = {}

    def connect(
        self, workers: int, settings: Settings, topic: str, take: Callable[..., None]
    ) -> int:
        self._line = connection.open(self._address, workers)
        try:
            self._check_versions()
            office = ray.remote(num_cpus=0)(Office)
            here = ray.get_runtime_context().get_node_id()
            self._office = office.options(
                name=settings.session,
                namespace=NAMESPACE,
                max_concurrency=_MOST_LETTERS,
                # It lives as long as the program can reach the cluster.
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
            ).remote(settings)
            self._join(settings, topic, take)
            self._line.listen(self._lose_all)
            places = self._reserve(workers)
            self._office.set_places.remote(places)
        except BaseException:
            if self._mail is not None:
                self._mail.close()
            self._give_back()
            connection.close()
            raise
        atexit.register(self.close, [])  # before Ray itself ends, which was imported earlier
        return places

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
        self._mail = Mail(self._office, topic, take, self._lose_all)

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
        self._check()
        handle = Handle(None, None, task.id)
        # What is large is kept by the cluster, and once for all attempts.
        is_large = task.arguments.nbytes > LARGE_BYTES
        handle.recipe = Recipe(ray.put(task) if is_large else task, inputs, task.is_async)
        self._start(handle)
        return self._watch(handle, on_end)

    def _start(self, handle: Handle) -> None:
        """Have the call of a handle run, for the first time or again."""
        recipe = handle.recipe
        assert recipe is not None
        self._check()
        values = (value.value if isinstance(value, Handle) else value for value in recipe.inputs)
        try:
            run = self._get_loop_host() if recipe.is_async else self._perform
            handle.status, handle.value = run.remote(self._settings.session, recipe.task, *values)
        except (ConnectionError, RayError) as cause:
            raise WorkerDiedError(self._tell_cut(cause)) from cause

    def _tell_cut(self, cause: BaseException) -> str:
        return f"no connection to the Ray cluster at {self._address!r} any more: {cause}"

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
        """Have `on_end` called when the call of a handle has ended, or is lost."""
        with self._ending:
            self._under_way[id(handle)] = handle, on_end
        self._take_status_of(handle)
        if self._loss:  # just now
            self._lose_all(self._loss)
        return handle

    def _take_status_of(self, handle: Handle) -> None:
        def tell(future: Future[Status]) -> None:
            self._mail.call(lambda: self._take_status(handle, future))

        assert handle.status is not None
        handle.status.future().add_done_callback(tell)

    def _take_status(self, handle: Handle, future: Future[Status]) -> None:
        error = future.exception()
        if error is not None:
            if isinstance(error, _LOSSES) and not self._loss:
                with suppress(Exception):  # it goes just now
                    self._office.lose.remote()
            if not self._begin_again(handle, error):
                self._end(handle, error)
            return
        status = future.result()
        if status.joined is not None:
            error = CallJoinedError(status.joined, status.call)
        elif status.failure is not None:
            error = CallFailedError(status.failure, status.call)
        if error is not None or status.nbytes <= LARGE_BYTES:  # Ray keeps that here
            handle.recipe = None

        def end() -> None:
            if status.end is not None:
                self._take("end", *status.end)
            self._end(handle, error)

        self._mail.after(status.sender, status.sent, end)

    def _end(self, handle: Handle, error: BaseException | None) -> None:
        with self._ending:
            _, on_end = self._under_way.pop(id(handle), (handle, None))
        if on_end is not None:
            handle.error = error
            on_end(handle)

    def _lose_all(self, loss: str) -> None:
        """The cluster is gone, or what passes messages between it and the session."""
        self._loss = loss
        with self._ending:
            lost = [handle for handle, _ in self._under_way.values()]
        self._mail.stop()
        for handle in lost:
            self._mail.call(partial(self._end, handle, WorkerDiedError(loss)))

    def _check(self) -> None:
        """Raise where the cluster is gone."""
        if self._loss:
            raise WorkerDiedError(self._loss)

    # Values that were lost with the nodes that they were on.

    def _begin_again(self, handle: Handle, error: BaseException) -> bool:
        """Have a call run that could not begin, as its inputs were lost; False where that is not so, or of no use."""
        lost, recipe = _find_lost(error), handle.recipe
        if lost is None or recipe is None or recipe.losses >= _MOST_LOSSES:
            return False
        recipe.losses += 1
        inputs = [value for value in recipe.inputs if isinstance(value, Handle)]
        try:
            if not all(self._renew(value, lost) for value in inputs):
                return False
            self._start(handle)
        except WorkerDiedError:
            return False
        self._take_status_of(handle)
        return True

    def _renew(self, handle: Handle, lost: str) -> bool:
        """Have a value made again, where it is the lost one; False where nobody knows how."""
        with self._ending:
            recipe = handle.recipe
            if handle.value is None or handle.value.hex() != lost:
                return True  # another one, or made again already
            if recipe is None or recipe.losses >= _MOST_LOSSES:
                return False
            recipe.losses += 1
            self._start(handle)
        self._take_status_of(handle)
        return True

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
        if isinstance(error, (CallFailedError, CallJoinedError, WorkerDiedError)):
            return error
        if isinstance(error, ConnectionError):
            return WorkerDiedError(self._loss or self._tell_cut(error))
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
        while True:
            try:
                packed: Packed | None = self._read(native.value)
            except (ConnectionError, RayError) as error:
                lost = _find_lost(error)
                if lost is None or not self._renew(native, lost):
                    raise self._explain(error, native.call) from None
            else:
                if packed is None:  # it was made again, and failed
                    raise WorkerDiedError(
                        "a result was lost with the node that it was on, and its call failed when it ran again"
                    )
                return packed

    def _read(self, ref: Any) -> Any:
        """The value of a reference of Ray's."""
        self._check()
        return self._line.read(ref)

    def hold(self, native: Handle) -> Handle:
        return native

    def store(self, packed: Packed) -> Handle:
        self._check()
        return Handle(ray.put(packed))

    def ask(self, method: str, *args: Any, **options: Any) -> list[Any]:
        try:
            self._check()
            answers: list[Any] = self._read(self._office.ask.remote(method, args, options))
        except (ConnectionError, RayError, WorkerDiedError):
            return []  # the cluster is gone, and so are the calls
        return answers

    # Never by `ray.cancel`: where that meets a task's end, Ray 2.60 finds itself inconsistent, and ends the program.

    def drop(self, natives: list[Handle]) -> None:
        """Stations know which calls are not to begin; their tasks end as soon as they have."""

    def release(self, native: Handle) -> None:
        if native.call and not self._loss:
            self._office.ask.remote("withdraw", ([native.call],), {})

    def wait_for_any(self, natives: list[Handle], seconds: float) -> None:
        """In a call: wait until one of these has ended, and let another call run meanwhile."""
        refs = [native.status for native in natives if native.status is not None]
        if refs:
            ray.wait(refs, num_returns=1, timeout=seconds, fetch_local=False)

    def report(self, *message: Any) -> None:
        """The program's session counts for itself."""

    def close(self, natives: list[Handle]) -> None:  # noqa: ARG002 - they end where the session is not any more
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        # In a thread, as the cluster may go meanwhile.
        leaving = threading.Thread(target=self._part, daemon=True)
        leaving.start()
        while leaving.is_alive() and not self._loss:
            leaving.join(_TURN_SECONDS)
        self._mail.close()
        connection.close()

    def _part(self) -> None:
        with suppress(Exception):  # it went meanwhile
            self._check()
            self._leave()
            self._read(self._office.close.remote())
            ray.kill(self._office)
            self._give_back()

    def _leave(self) -> None:
        if self._loop_host is not None:
            ray.kill(self._loop_host)
        self._office.close_topic.remote(self._topic)


def _find_lost(error: BaseException) -> str | None:
    """The name of the value that was lost, where an error of Ray's says that one was."""
    while isinstance(error, RayTaskError):
        error = error.cause
    return str(error.object_ref_hex) if isinstance(error, ObjectLostError) else None


def RayEngine(address: str) -> ClusterEngine:  # noqa: N802 - to whoever makes one it is a class
    """An engine on the Ray cluster at an address."""
    return ClusterEngine(RayCluster(address))
