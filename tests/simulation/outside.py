"""The world outside of the modules under test: time, chance, pickles, the system. All of it is simulated.

One world at a time; `here` says which, and whose turn it is.
"""

from __future__ import annotations

import os
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from manyhands.core.functions import Function, check_callable, name_callable
from manyhands.core.parcels import PlainInput
from manyhands.engines.local.deaths import describe_death
from manyhands.engines.local.memory_watch import (
    Verdict,
    WorkerMemory,
    describe_out_of_memory,
)
from tests.simulation.violations import violate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.simulation.world import World


class _Here:
    """Where the code that runs now belongs.

    Attributes
    ----------
    world
    worker
        The worker whose turn it is; None where it is the program's.
    key
        Of the call that runs, in a worker that has several.
    """

    world: World
    worker: Any = None
    key: int = 0

    def forget(self) -> None:
        """The world is over."""
        self.__dict__.pop("world", None)


here = _Here()


def read_clock() -> float:
    """Seconds."""
    return here.world.now


# Pickles: short bytes that say which script, value or error is meant.


def load(content: Any) -> Any:
    """Stands for `pickle.loads`."""
    return content.decode() if type(content) is bytes else content


def dump(value: Any, _protocol: int = 0) -> Any:
    """Stands for `pickle.dumps`."""
    return value.encode() if type(value) is str else value


def pack_error(error: BaseException, *, skip: int = 0) -> bytes:
    """Stands for `core.exceptions.pack_exception`."""
    errors = here.world.errors
    errors.append(error)
    return b"e%d" % (len(errors) - 1)


def unpack_error(payload: Any) -> BaseException:
    """Stands for `core.exceptions.unpack_exception`."""
    assert type(payload) is bytes, f"not the bytes of an error: {payload!r}"
    return here.world.errors[int(payload[1:])]


def rebuild_error(loaded: Any) -> BaseException:
    """Stands for `core.exceptions.rebuild_exception`."""
    assert type(loaded) is str, f"not an error that was loaded: {loaded!r}"
    return here.world.errors[int(loaded[1:])]


class SimulatedSerializer:
    """Stands for `core.serialize.Serializer`."""

    version = 0

    def __init__(self, *_: object) -> None:
        """Of no account."""

    def dump_arguments(self, args: tuple[Any, ...], _kwargs: object) -> bytes:
        """The number of a script, and the values of its inputs."""
        return b" ".join([_dump_argument(arg) for arg in args])


def _dump_argument(arg: Any) -> bytes:
    if type(arg) is int:
        return b"%d" % arg
    if type(arg) is PlainInput:
        return arg.payload
    assert type(arg) is str, arg
    return arg.encode()


class SimulatedFunctions:
    """Stands for `core.functions.FunctionTable`: functions have numbers for pickles."""

    def __init__(self, *_: object) -> None:
        self.departed: deque[int] = deque()
        self._numbers = 0
        self._known: dict[int, Function] = {}

    def register(self, fn: Any) -> Function:
        """The travelling form of a function."""
        function = self._known.get(id(fn))
        if function is None or here.world.forgets():
            payload = b"%d" % here.world.number_function(fn)
            function = self._known[id(fn)] = self._make(
                fn.__qualname__, payload, is_async=is_async(fn)
            )
        return function

    def adopt(self, name: str, payload: bytes, *, is_async: bool) -> Function:
        """The travelling form of a function that a worker has sent."""
        number = -1 - int(payload)
        function = self._known.get(number)
        if function is None:
            function = self._known[number] = self._make(name, payload, is_async=is_async)
        return function

    def _make(self, name: str, payload: bytes, *, is_async: bool) -> Function:
        self._numbers += 1
        table: Any = self
        function = Function(self._numbers, name, payload, table, is_async=is_async)
        function.seconds = here.world.guess_seconds(payload)
        return function

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    rest = clear


def is_async(fn: object) -> bool:
    """Whether a function is a coroutine function here."""
    return bool(getattr(fn, "is_async", False))


class SimulatedTimers:
    """Stands for `core.timers.timers`: what is due in a while, for whoever sets it."""

    def call_later(self, seconds: float, fn: Callable[[], object]) -> None:
        """Call `fn` after so many seconds."""
        here.world.call_later(seconds, fn)


_NEAR_SECONDS, _FAR_SECONDS = 0.25, 2.0
"""Between looks at memory, where a call has a limit, and where none has."""


class SimulatedMemoryWatch:
    """Stands for `memory_watch.MemoryWatch`: greedy calls are past their limits at the second look."""

    pause = _FAR_SECONDS

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def begin(self, number: int, pid: int, key: int) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Nothing to close."""

    def look(self, workers: Sequence[WorkerMemory], now: float) -> Verdict | None:
        """The greediest call."""
        self.pause = _FAR_SECONDS
        for worker in workers:
            if worker.limit:
                self.pause = _NEAR_SECONDS
            if not worker.key or not here.world.is_greedy(worker.key):
                continue
            looks = self._seen[worker.key] = self._seen.get(worker.key, 0) + 1
            if looks == 2:
                worker.own, worker.limit = 2, 1
                here.world.account.note_greed(worker.key)
                return Verdict(worker, None, [], now)
        return None


class _Load:
    """Stands for `store.Load`: nothing of what is sent is shared."""

    missing: tuple[int, ...] = ()
    uses: tuple[int, ...] = ()

    def __init__(self, _worker: int) -> None:
        """Of no account."""


class _Thread:
    """Stands for the context variable that says which call a thread is at."""

    @staticmethod
    def get() -> Any:
        return SimpleNamespace(key=here.key, session=None) if here.key else None


class _System:
    """Stands for `os`, of which nothing else may be used here: descriptors and process ids are made up."""

    environ: dict[str, str] = {}
    path = os.path

    @staticmethod
    def close(fd: int) -> None:
        """Give a descriptor back."""
        if fd in here.world.driver.handlers:
            violate(None, f"the descriptor {fd} is closed, and the driver watches it")
        here.world.sources.pop(fd, None)

    @staticmethod
    def urandom(size: int) -> bytes:
        return here.world.make_number().to_bytes(size, "big")

    @staticmethod
    def getpid() -> int:
        return 1

    @staticmethod
    def pidfd_open(pid: int) -> int:
        return here.world.open_pid(pid)

    @staticmethod
    def sched_getaffinity(_pid: int) -> set[int]:
        return {0, 1}

    @staticmethod
    def register_at_fork(**_: object) -> None:
        """Nobody forks here."""


class _Place:
    """Stands for `core.place`: in the program there is no link to one."""

    here = _Thread()
    in_worker = False
    Place = SimpleNamespace

    @property
    def link(self) -> Any:
        return here.worker


def _draw() -> float:
    """Stands for `random.random`."""
    return here.world.random()


def make_outside() -> dict[str, object]:
    """What stands in for modules of the system, and for those that would pickle, by their names."""
    return {
        "time": SimpleNamespace(monotonic=read_clock, perf_counter=read_clock, sleep=None),
        "os": _System(),
        "atexit": SimpleNamespace(register=lambda _: None),
        "random": SimpleNamespace(random=_draw),
        "_pickle": SimpleNamespace(loads=load, dumps=dump),
        "manyhands.core.place": _Place(),
        "manyhands.core.timers": SimpleNamespace(timers=SimulatedTimers()),
        "manyhands.core.modules": SimpleNamespace(
            ModuleSurvey=lambda: SimpleNamespace(travels_by_value=None)
        ),
        "manyhands.core.exceptions": SimpleNamespace(
            pack_exception=pack_error,
            unpack_exception=unpack_error,
            rebuild_exception=rebuild_error,
        ),
        "manyhands.core.serialize": SimpleNamespace(Serializer=SimulatedSerializer),
        "manyhands.core.functions": SimpleNamespace(
            FunctionTable=SimulatedFunctions,
            check_callable=check_callable,
            name_callable=name_callable,
        ),
        "manyhands.engines.local.store": SimpleNamespace(Load=_Load),
        "manyhands.engines.local.deaths": SimpleNamespace(
            count_oom_kills=lambda: 0, describe_death=describe_death
        ),
        "manyhands.engines.local.cpus": SimpleNamespace(count_cpus=lambda: 2),
        "manyhands.engines.local.memory_watch": SimpleNamespace(
            MemoryWatch=SimulatedMemoryWatch,
            WorkerMemory=WorkerMemory,
            describe_out_of_memory=describe_out_of_memory,
        ),
    }
