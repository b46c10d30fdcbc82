"""The words that every layer shares: calls, how they are tried, what an engine can do.

Plain classes: importing :mod:`dataclasses` takes 10 ms, and every program that uses the package would pay.
"""

from __future__ import annotations

from enum import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any


class Call:
    """One invocation of a function, from its submission to its last attempt.

    Attributes
    ----------
    key : int
        Unique in the session.
    fn, args, kwargs
        What to run.
    has_inputs : bool
        Whether there are futures among the arguments; an engine gets their results in their place.
    """

    __slots__ = ("args", "fn", "has_inputs", "key", "kwargs")

    def __init__(
        self, key: int, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.key = key
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.has_inputs = False


class CallState(Enum):
    """Where a call is that needs an account. The normal path is WAITING, READY, and out of the account."""

    WAITING = "waiting"
    """Some of its inputs are not there yet."""
    READY = "ready"
    """With the engine: queued, running, or about to be tried again."""


class RetryPolicy:
    """How often a call is tried, and after which errors again.

    Attributes
    ----------
    retries
        Attempts after the first.
    retry_on
        Errors after which another attempt makes sense.
    """

    __slots__ = ("retries", "retry_on")

    def __init__(
        self, retries: int = 0, retry_on: tuple[type[BaseException], ...] = (Exception,)
    ) -> None:
        self.retries = retries
        self.retry_on = retry_on


NO_RETRIES = RetryPolicy()


class Capabilities:
    """What an engine can do; what it cannot raises `UnsupportedError`.

    Attributes
    ----------
    concurrent
        Calls run beside the caller: `submit` returns before they end.
    isolates
        A crash of native code in a call leaves the program whole.
    parallel
        Pure Python code runs on several cores at once.
    pickles
        Arguments and results are copied through pickle, so a call cannot change what its caller holds.
    stores
        Large values are kept in memory that workers share, under a limit, and go to disk past it.
    """

    __slots__ = ("concurrent", "isolates", "parallel", "pickles", "stores")

    def __init__(
        self,
        *,
        isolates: bool,
        parallel: bool,
        pickles: bool,
        concurrent: bool = True,
        stores: bool = False,
    ) -> None:
        self.concurrent = concurrent
        self.isolates = isolates
        self.parallel = parallel
        self.pickles = pickles
        self.stores = stores


class StoreConfig:
    """How much an engine may store.

    Attributes
    ----------
    memory, disk
        Bytes; None for a part of what there is.
    folder
        Where values go that do not fit into memory; None for the folder of temporary files.
    """

    __slots__ = ("disk", "folder", "memory")

    def __init__(
        self, memory: int | None = None, disk: int | None = None, folder: str | None = None
    ) -> None:
        self.memory = memory
        self.disk = disk
        self.folder = folder


class EngineConfig:
    """What a session tells its engine at the start.

    Attributes
    ----------
    workers
        How many.
    initializer, initargs
        Run once in every worker before its first call.
    start_method
        How the local engine makes a worker: "fork" or "spawn"; None for what the system does best.
    store
        Limits of what is stored.
    """

    __slots__ = ("initargs", "initializer", "start_method", "store", "workers")

    def __init__(
        self,
        workers: int,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        start_method: str | None = None,
        store: StoreConfig | None = None,
    ) -> None:
        self.workers = workers
        self.store = store if store is not None else StoreConfig()
        self.initializer = initializer
        self.initargs = initargs
        self.start_method = start_method


class EngineStats:
    """What an engine has measured since its start; seconds are summed over workers.

    Attributes
    ----------
    starting
        Seconds from the engine's start to its first worker's being ready.
    computing
        Seconds that calls ran.
    moving
        Seconds that workers spent unpickling arguments and functions and pickling results.
    deaths
        Workers that died.
    pids
        Process ids of the workers that live.
    """

    __slots__ = ("computing", "deaths", "moving", "pids", "starting")

    def __init__(self) -> None:
        self.starting = 0.0
        self.computing = 0.0
        self.moving = 0.0
        self.deaths = 0
        self.pids: list[int] = []


class ValueFact:
    """One stored value.

    Attributes
    ----------
    id : int
    kind : str
        What it is.
    nbytes : int
    place : {"memory", "disk"}
    holders : tuple of str
        Who needs it.
    """

    __slots__ = ("holders", "id", "kind", "nbytes", "place")

    def __init__(
        self,
        id: int,  # noqa: A002 - the field's name
        kind: str,
        nbytes: int,
        place: str,
        holders: Iterable[str],
    ) -> None:
        self.id = id
        self.kind = kind
        self.nbytes = nbytes
        self.place = place
        self.holders = tuple(holders)

    def __repr__(self) -> str:
        return f"<{self.kind}, {self.nbytes} bytes, {self.place}, {', '.join(self.holders)}>"


class MemoryFacts:
    """What an engine stores, in bytes.

    Attributes
    ----------
    limit, used
        Of memory: what may be taken, and what values take.
    disk_limit, disk_used
        The same of the disk.
    spilled
        What went to disk so far.
    values : list of ValueFact
    """

    __slots__ = ("disk_limit", "disk_used", "limit", "spilled", "used", "values")

    def __init__(
        self,
        *,
        limit: int = 0,
        used: int = 0,
        disk_limit: int = 0,
        disk_used: int = 0,
        spilled: int = 0,
        values: Sequence[ValueFact] = (),
    ) -> None:
        self.limit = limit
        self.used = used
        self.disk_limit = disk_limit
        self.disk_used = disk_used
        self.spilled = spilled
        self.values = list(values)
