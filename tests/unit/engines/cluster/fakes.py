"""A cluster in this process: its workers are stations, whose calls run in threads."""

import pickle
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from manyhands.core.model import CallOptions, Capabilities
from manyhands.core.serialize import Serializer
from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.engines.cluster.flights import LostWorkerError
from manyhands.engines.cluster.packed import LOOSE, Packed
from manyhands.engines.cluster.station import Station
from manyhands.engines.cluster.task import Settings, Task
from tests.unit.engines.sinks import LONG

SERIALIZER = Serializer(lambda _: False, lambda: LOOSE)


def pack(value: object, *, is_private: bool = False) -> Packed:
    """A value as a program sends it."""
    return Packed.of(SERIALIZER.dump(value, "the value"), is_private=is_private)


class Near:
    """A function that calls get as the test has it, with all that it closes over."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.__qualname__ = getattr(fn, "__qualname__", type(fn).__name__)
        _near[id(self)] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def __reduce__(self) -> Any:
        return find_near, (id(self),)


_near: dict[int, Near] = {}


def find_near(number: int) -> Near:
    return _near[number]


class Unloadable:
    """Can be pickled, and not be unpickled."""

    def __reduce__(self) -> Any:
        return refuse, ()


def refuse() -> None:
    raise ValueError("not here")


class FakeLink:
    """Keeps what a station sends, and has the values that it asks for."""

    waits = False

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[Any, ...]]] = []
        self.values: dict[Any, Packed] = {}
        self.moves: list[str] = []
        self.has_died = threading.Event()
        self.engines: list[Any] = []
        self.engine: Any = SimpleNamespace()

    def send(self, topic: str, message: tuple[Any, ...]) -> None:
        self.sent.append((topic, pickle.loads(pickle.dumps(message, 5))))

    def fetch(self, native: Any) -> Packed:
        return self.values[native]

    def hold(self, native: Any) -> Any:
        return native

    def publish(self, native: Any) -> None:
        """Who sees it can follow it."""

    def doze(self) -> None:
        raise AssertionError("nobody asks for it")

    def leave(self) -> None:
        self.moves.append("leave")

    def enter(self) -> None:
        self.moves.append("enter")

    def make_engine(self, settings: Settings) -> Any:
        self.engines.append(settings)
        return self.engine

    def die(self) -> None:
        self.has_died.set()

    def list_sent(self, kind: str) -> list[tuple[Any, ...]]:
        """The fields of the messages of a kind."""
        return [message[1:] for _, message in list(self.sent) if message[0] == kind]


class Handle:
    """Names a value of the cluster."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return Handle, (self.number,)


class Job:
    """A task that the cluster has, or a value that was stored."""

    def __init__(
        self, handle: Handle, task: Task | None = None, inputs: Sequence[Any] = ()
    ) -> None:
        self.handle = handle
        self.task = task
        self.inputs = inputs
        self.packed: Packed | None = None
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self.on_end: list[Callable[[Any], None]] = []


class Worker:
    """One process of the cluster."""

    waits = False

    def __init__(self, net: "Net", name: str, settings: Settings) -> None:
        self.net = net
        self.name = name
        self.is_alive = True
        self.jobs: list[Job] = []
        self.held: list[Job] = []
        self.station = Station(settings, self, name)

    def send(self, topic: str, message: tuple[Any, ...]) -> None:
        if self.is_alive:
            self.net.deliver(topic, message)

    def fetch(self, native: Handle) -> Packed:
        return self.net.read(native)

    def hold(self, native: Any) -> Any:
        return native

    def publish(self, native: Any) -> None:
        """Who sees it can follow it."""

    def doze(self) -> None:
        raise AssertionError("nobody asks for it")

    def leave(self) -> None:
        self.net.moves.append("leave")

    def enter(self) -> None:
        self.net.moves.append("enter")

    def make_engine(self, settings: Settings) -> Any:
        return ClusterEngine(NestedCluster(self.net), settings)

    def die(self) -> None:
        self.net.kill(self)


class Net:
    """What the sessions of a cluster share."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.workers: list[Worker] = []
        self.moves: list[str] = []
        self.asked: list[str] = []
        self.launched: list[Task] = []
        self.priorities: list[int] = []
        self.is_holding = False
        self.is_closed = False
        self.trouble: Exception | None = None
        self.settings: Settings | None = None
        self.takes: dict[str, Callable[..., None]] = {}
        self._jobs: dict[int, Job] = {}
        self._lock = threading.RLock()

    def hire(self, settings: Settings) -> None:
        """Have workers, each with a station."""
        self.settings = settings
        while len(self.list_alive()) < self.size:
            self.workers.append(Worker(self, f"tcp://here:{len(self.workers)}", settings))

    def list_alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.is_alive]

    def deliver(self, topic: str, message: tuple[Any, ...]) -> None:
        take = self.takes.get(topic)
        if take is not None:
            take(*pickle.loads(pickle.dumps(message, 5)))

    def read(self, native: Any) -> Packed:
        if isinstance(native, Packed):
            return native
        job = self.find(native)
        assert job.ended.wait(LONG)
        if job.error is not None:
            raise job.error
        assert job.packed is not None
        return job.packed

    def find(self, native: Handle) -> Job:
        return self._jobs[native.number]

    def enter_job(self, *args: Any) -> Job:
        with self._lock:
            handle = Handle(len(self._jobs) + 1)
            job = self._jobs[handle.number] = Job(handle, *args)
            return job

    def start(self, job: Job) -> None:
        worker = min(self.list_alive(), key=lambda worker: len(worker.jobs))
        worker.jobs.append(job)
        if self.is_holding:
            worker.held.append(job)
        else:
            self._run(worker, job)

    def release(self) -> None:
        """Have what was held back begin."""
        self.is_holding = False
        for worker in self.list_alive():
            held, worker.held = worker.held, []
            for job in held:
                self._run(worker, job)

    def _run(self, worker: Worker, job: Job) -> None:
        threading.Thread(target=self._work, args=(worker, job), daemon=True).start()

    def _work(self, worker: Worker, job: Job) -> None:
        try:
            task = pickle.loads(pickle.dumps(job.task, 5))
            packed = worker.station.perform(task, [self.read(native) for native in job.inputs])
        except LostWorkerError as error:  # an input's; the cluster knows of it by itself
            self.end(job, error=error)
        except BaseException as error:
            self.end(job, error=pickle.loads(pickle.dumps(error)))
        else:
            self.end(job, pickle.loads(pickle.dumps(packed, 5)))
        worker.jobs.remove(job)

    def end(
        self, job: Job, packed: Packed | None = None, error: BaseException | None = None
    ) -> None:
        with self._lock:
            if job.ended.is_set():
                return
            job.packed, job.error = packed, error
            job.ended.set()
            tells, job.on_end = job.on_end, []
        for tell in tells:
            tell(job.handle)

    def kill(self, worker: Worker) -> None:
        """End a worker with all that it is at; another one takes its place."""
        with self._lock:
            if not worker.is_alive:
                return
            worker.is_alive = False
        # What is gone writes nothing more.
        worker.station._marks.write = lambda ids: None  # type: ignore[method-assign]
        assert self.settings is not None
        self.hire(self.settings)
        for job in list(worker.jobs):
            self.end(
                job, error=LostWorkerError(f"{worker.name} has ended", worker.name, job.task.id)
            )
        for run in list(worker.station._runs.values()):
            run.interrupt()

    def close(self) -> None:
        self.is_closed = True
        for worker in self.workers:
            worker.station.close()


class FakeCluster:
    """See `manyhands.engines.cluster.cluster.Cluster`."""

    name = "fake"
    capabilities = Capabilities(isolates=True, parallel=True, pickles=True, chains=True)
    is_near = True
    waits = False

    def __init__(self, net: Net) -> None:
        self.net = net
        self.dropped: list[Any] = []
        self.closed: list[Any] | None = None

    def connect(
        self, workers: int, settings: Settings, topic: str, take: Callable[..., None]
    ) -> int:
        self.net.takes[topic] = take
        self.net.hire(settings)
        return self.net.size

    def launch(
        self, task: Task, inputs: list[Any], options: CallOptions, on_end: Callable[[Any], None]
    ) -> Handle:
        if self.net.trouble is not None:
            raise self.net.trouble
        job = self.net.enter_job(task, inputs)
        job.on_end.append(on_end)
        self.net.launched.append(task)
        self.net.priorities.append(options.priority)
        self.net.start(job)
        return job.handle

    def explain_end(self, native: Handle) -> BaseException | None:
        return self.net.find(native).error

    def fetch(self, native: Handle) -> Packed:
        return self.net.read(native)

    def hold(self, native: Handle) -> Handle:
        return native

    def store(self, packed: Packed) -> Handle:
        job = self.net.enter_job()
        self.net.end(job, packed)
        return job.handle

    def ask(self, method: str, *args: Any, **options: Any) -> list[Any]:
        assert not self.net.is_closed
        self.net.asked.append(method)
        stations = [worker.station for worker in self.net.list_alive()]
        answers = [getattr(station, method)(*args, **options) for station in stations]
        return [answer for answer in answers if answer is not None]

    def follow(self, native: Handle, on_end: Callable[[Any], None]) -> Handle:
        job, followed = self.net.enter_job(), self.net.find(native)
        job.on_end.append(on_end)

        def pass_on(_: Any) -> None:
            self.net.end(job, followed.packed, followed.error)

        with self.net._lock:
            is_ended = followed.ended.is_set()
            if not is_ended:
                followed.on_end.append(pass_on)
        if is_ended:
            pass_on(native)
        return job.handle

    def drop(self, natives: list[Any]) -> None:
        self.dropped += natives
        for native in natives:
            job = self.net.find(native)
            for worker in self.net.workers:
                if job in worker.held:
                    worker.held.remove(job)
                    worker.jobs.remove(job)
                    self.net.end(job, error=RuntimeError("dropped"))

    def release(self, native: Any) -> None:
        self.drop([native])

    def wait_for_any(self, natives: list[Any], seconds: float) -> None:
        raise AssertionError("nobody asks for it")

    def report(self, *message: Any) -> None:
        assert self.net.settings is not None
        self.net.deliver(self.net.settings.session, message)

    def close(self, natives: list[Any]) -> None:
        self.closed = natives
        self.net.close()


class NestedCluster(FakeCluster):
    """The cluster, seen from one of its workers."""

    def close(self, natives: list[Any]) -> None:
        self.closed = natives
