"""A session on a Dask cluster, seen from the program."""

from __future__ import annotations

from concurrent.futures import CancelledError
from pickle import loads

from distributed import Client
from distributed.scheduler import KilledWorker, NoWorkerError

from manyhands.core.model import Capabilities
from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.engines.cluster.flights import LostWorkerError
from manyhands.engines.cluster.versions import explain_difference, tell_versions
from manyhands.engines.dask.handle import Handle, hold
from manyhands.engines.dask.local import LocalDask
from manyhands.engines.dask.scheduler import OneLife
from manyhands.engines.dask.worker import Sites, ask_station, perform
from manyhands.errors import WorkerDiedError, WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from distributed import Future

    from manyhands.core.model import CallOptions
    from manyhands.engines.cluster.packed import Packed
    from manyhands.engines.cluster.task import Settings, Task

CONNECT_SECONDS = 10
"""How long a scheduler has to answer."""

PATIENCE_SECONDS = 60.0
"""How long calls wait in a cluster that has lost its last worker."""


class DaskCluster:
    """See `manyhands.engines.cluster.cluster.Cluster`.

    Parameters
    ----------
    address
        Of the scheduler, such as ``"host:8786"``; ``"local"`` for a cluster of this machine, begun for the session.
    """

    name = "dask"
    capabilities = Capabilities(
        isolates=True,
        parallel=True,
        pickles=True,
        actors=False,
        chains=True,
        keeps=False,
        orders=False,
        resources=False,
        shares=False,
        staffs=False,
        witnesses=False,
    )

    waits = False

    def __init__(self, address: str) -> None:
        self._address = address
        self.is_near = address == "local"
        self._local: LocalDask | None = None
        self._client: Any = None

    def connect(
        self, workers: int, settings: Settings, topic: str, take: Callable[..., None]
    ) -> int:
        if self._address == "local":
            self._local = LocalDask(workers)
        try:
            self._client = self._open_client(self._local.address if self._local else self._address)
            self._check_versions()
        except BaseException:
            self._leave()
            raise
        self._settings = settings
        self._topic = topic
        self._client.subscribe_topic(topic, lambda event: take(*loads(event[1])))
        self._client.register_plugin(OneLife(PATIENCE_SECONDS))
        self._client.register_plugin(Sites(settings))
        return self._count_threads()

    def _open_client(self, address: str) -> Client:
        try:
            return Client(
                address,
                set_as_default=False,
                asynchronous=False,
                timeout=CONNECT_SECONDS,
                name="manyhands",
            )
        except (OSError, ValueError) as cause:
            raise WorkerStartError(
                f"no Dask scheduler answers at {self._address!r}: {type(cause).__name__}: {cause}. Start one with "
                f"`dask scheduler`, or use 'dask://local'"
            ) from cause

    def _check_versions(self) -> None:
        """See that what we send can be read there."""
        try:
            self._client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise WorkerStartError(
                f"the Dask cluster at {self._address!r} has no workers; start some with `dask worker ADDRESS`"
            ) from None
        found = self._client.run(tell_versions, on_error="return")
        for address, answer in found.items():
            difference = explain_difference(answer)
            if difference is not None:
                raise WorkerStartError(f"the Dask worker {address}: {difference}")

    def _count_threads(self) -> int:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return sum(worker["nthreads"] for worker in workers.values())

    def launch(
        self, task: Task, inputs: list[Any], options: CallOptions, on_end: Callable[[Any], None]
    ) -> Handle:
        if self._client.status != "running":
            raise WorkerDiedError(
                f"no connection to the Dask scheduler at {self._address!r} any more; once it is back, open another "
                f"session"
            )
        future = self._client.submit(
            perform,
            task,
            *(value.future if isinstance(value, Handle) else value for value in inputs),
            key=task.id,
            pure=False,
            priority=options.priority,
        )
        return self._watch(future, on_end)

    def follow(self, native: Handle, on_end: Callable[[Any], None]) -> Handle:
        return self._watch(hold(self._client, native.key), on_end)

    def _watch(self, future: Future[Any], on_end: Callable[[Any], None]) -> Handle:
        handle = Handle(future.key, future)
        future.add_done_callback(lambda _: on_end(handle))
        return handle

    def explain_end(self, native: Handle) -> BaseException | None:
        future = native.future
        assert future is not None
        if future.status == "finished":
            return None
        if future.status == "error":
            return _explain(future.exception())
        return WorkerDiedError(
            f"the Dask scheduler at {self._address!r} does not know the call any more ({future.status}): it was "
            f"restarted or lost, or somebody cancelled the call there"
        )

    def fetch(self, native: Handle) -> Packed:
        future = self._hold_future(native)
        try:
            packed: Packed = future.result()
        except KilledWorker as lost:
            raise _explain(lost) from None
        return packed

    def hold(self, native: Handle) -> Handle:
        self._hold_future(native)
        return native

    def _hold_future(self, native: Handle) -> Future[Any]:
        if native.future is None:
            native.future = hold(self._client, native.key)
            native.key = native.future.key  # others will ask for what is kept here
        return native.future

    def store(self, packed: Packed) -> Handle:
        (future,) = self._client.scatter([packed], hash=False)
        return Handle(future.key, future)

    def ask(self, method: str, *args: Any, **options: Any) -> list[Any]:
        answers = self._client.run(
            ask_station, self._settings.session, method, args, options, on_error="ignore"
        )
        return [answer for answer in answers.values() if answer is not None]

    def drop(self, natives: list[Handle]) -> None:
        self._client.cancel([native.future for native in natives], force=False)

    def release(self, native: Handle) -> None:
        if native.future is not None:
            native.future.release()

    def wait_for_any(self, natives: list[Handle], seconds: float) -> None:
        """Calls leave their threads to others however they wait."""

    def report(self, *message: Any) -> None:
        """The program's session counts for itself."""

    def close(self, natives: list[Handle]) -> None:
        try:
            if self._client.status == "running":
                self._client.unsubscribe_topic(self._topic)
                self._client.cancel([native.future for native in natives])
                self._client.unregister_worker_plugin(Sites.make_name(self._settings.session))
        except OSError:
            pass  # the scheduler went meanwhile
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._client is not None:
            self._client.close()
        if self._local is not None:
            self._local.close()


def DaskEngine(address: str) -> ClusterEngine:  # noqa: N802 - to whoever makes one it is a class
    """An engine on the Dask cluster at an address."""
    return ClusterEngine(DaskCluster(address))


def _explain(error: BaseException | None) -> BaseException:
    if isinstance(error, KilledWorker):
        worker = error.last_worker
        return LostWorkerError(
            f"the worker of the Dask cluster that had it has ended: {worker.address}",
            worker.server_id,
            str(error.task),
        )
    if isinstance(error, NoWorkerError):
        return WorkerStartError(
            f"the Dask cluster has had no worker for {error.timeout:g} s: the last one has ended, and no other came"
        )
    if error is None or isinstance(error, CancelledError):
        return WorkerDiedError("the call was cancelled in the Dask cluster, by somebody else")
    return error
