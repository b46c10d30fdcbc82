"""The words that every layer shares: calls, how they are tried, what an engine can do.

Plain classes: importing :mod:`dataclasses` takes 10 ms, and every program that uses the package would pay.
"""

from __future__ import annotations

from enum import Enum

from manyhands.core.resources import ONE_CPU

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from manyhands.core.actors import ActorLife
    from manyhands.core.luggage import Luggage
    from manyhands.core.resources import Need


class CallState(Enum):
    """Where a call is that needs an account. The normal path is WAITING, READY, and out of the account."""

    WAITING = "waiting"
    """Some of its inputs are not there yet."""
    READY = "ready"
    """With the engine: queued or running."""
    DELAYED = "delayed"
    """An attempt failed, and the next one is due in a while."""


class RetryPolicy:
    """How often a call is tried, and after which errors again.

    Attributes
    ----------
    retries
        Attempts after the first that failed by itself.
    retry_on
        Errors after which another attempt makes sense: classes, or a function that is given the error.
    worker_retries
        Attempts after the first whose worker died: that is not the call's fault, so far as is known.
    backoff
        Seconds before the second attempt; they double with each further one.
    backoff_cap
        The most of them.
    """

    __slots__ = ("backoff", "backoff_cap", "retries", "retry_on", "worker_retries")

    def __init__(
        self,
        retries: int = 0,
        retry_on: tuple[type[BaseException], ...] | Callable[[BaseException], object] = (
            Exception,
        ),
        worker_retries: int = 1,
        backoff: float = 0.1,
        backoff_cap: float = 30.0,
    ) -> None:
        self.retries = retries
        self.retry_on = retry_on
        self.worker_retries = worker_retries
        self.backoff = backoff
        self.backoff_cap = backoff_cap

    def covers(self, error: BaseException) -> bool:
        """Whether another attempt makes sense after `error`; a `retry_on` that fails says no."""
        if isinstance(self.retry_on, tuple):
            return isinstance(error, self.retry_on)
        try:
            return bool(self.retry_on(error))
        except Exception as failure:
            error.add_note(f"retry_on={self.retry_on!r} failed on this error: {failure!r}")
            return False


NO_RETRIES = RetryPolicy()
"""What holds where nothing was said; a policy that is this one needs no account."""


class CallOptions:
    """How a call is run, beside what is run.

    Attributes
    ----------
    policy
        When it is tried again.
    timeout
        Seconds that it may run in a worker; None for no limit.
    priority
        Of two calls that wait, the one with more goes first.
    need
        What it holds while it runs.
    actor
        The number of the actor that it is a call of; 0 for none.
    window
        Of a generator, how many items may be there that nobody has taken; 0 for an ordinary call.
    name
        What errors and reports call it; None for the function's own name.
    is_plain
        Whether it is like nearly all others to a scheduler: of one cpu and no priority.
    """

    __slots__ = ("actor", "is_plain", "name", "need", "policy", "priority", "timeout", "window")

    def __init__(
        self,
        policy: RetryPolicy = NO_RETRIES,
        *,
        timeout: float | None = None,
        priority: int = 0,
        need: Need = ONE_CPU,
        actor: int = 0,
        window: int = 0,
        name: str | None = None,
    ) -> None:
        self.policy = policy
        self.timeout = timeout
        self.priority = priority
        self.need = need
        self.actor = actor
        self.window = window
        self.name = name
        self.is_plain = need is ONE_CPU and not priority and not actor


DEFAULT_OPTIONS = CallOptions()


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
    options : CallOptions
        How.
    """

    __slots__ = ("args", "fn", "has_inputs", "key", "kwargs", "options")

    def __init__(
        self,
        key: int,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.key = key
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.has_inputs = False
        self.options = options


class ActorPlace:
    """Where an actor lives and how its calls run.

    Attributes
    ----------
    need
        What it holds as long as it lives.
    is_light
        Whether it shares a process with others of its kind.
    concurrency
        Calls that run at a time, in threads or, of ``async`` methods, on an event loop.
    is_async
        Whether it has ``async`` methods.
    life
        Its session's account of it, for an engine that hands the actor on to another session.
    """

    __slots__ = ("concurrency", "is_async", "is_light", "life", "need")

    def __init__(
        self,
        need: Need,
        *,
        is_light: bool = False,
        concurrency: int = 1,
        is_async: bool = False,
        life: ActorLife | None = None,
    ) -> None:
        self.need = need
        self.life = life
        self.is_light = is_light
        self.concurrency = concurrency
        self.is_async = is_async


class Capabilities:
    """What an engine can do; what it cannot raises `UnsupportedError`.

    Attributes
    ----------
    actors
        Objects can live in workers, and calls to them.
    chains
        A call goes to the cluster before its inputs have ended, and gets them from worker to worker.
    concurrent
        Calls run beside the caller: `submit` returns before they end.
    interrupts
        A call that waits in native code, or swallows every interrupt, is ended all the same.
    isolates
        A crash of native code in a call leaves the program whole.
    keeps
        Results outlive the workers that made them; else a call may run again to make a result that was lost.
    orders
        Of the calls that wait the most urgent one begins next, and equals in the order of their submission.
    parallel
        Pure Python code runs on several cores at once.
    pickles
        Arguments and results are copied through pickle, so a call cannot change what its caller holds.
    resources
        Calls may hold other amounts than one cpu, memory, devices and what else the session has.
    shares
        What is put to be written to is seen by all, as it is written.
    staffs
        The workers are the session's own: it makes them as it is told, and can replace them.
    stores
        Large values are kept in memory that workers share, under a limit, and go to disk past it.
    witnesses
        How a worker ended is known: its exit code or signal, and what it wrote last to its standard error.
    """

    __slots__ = (
        "actors",
        "chains",
        "concurrent",
        "interrupts",
        "isolates",
        "keeps",
        "orders",
        "parallel",
        "pickles",
        "resources",
        "shares",
        "staffs",
        "stores",
        "witnesses",
    )

    def __init__(
        self,
        *,
        isolates: bool,
        parallel: bool,
        pickles: bool,
        concurrent: bool = True,
        interrupts: bool = False,
        stores: bool = False,
        actors: bool = True,
        chains: bool = False,
        keeps: bool = True,
        orders: bool = True,
        resources: bool = True,
        shares: bool = True,
        staffs: bool = True,
        witnesses: bool = True,
    ) -> None:
        self.actors = actors
        self.chains = chains
        self.keeps = keeps
        self.orders = orders
        self.resources = resources
        self.shares = shares
        self.staffs = staffs
        self.concurrent = concurrent
        self.interrupts = interrupts
        self.isolates = isolates
        self.parallel = parallel
        self.pickles = pickles
        self.stores = stores
        self.witnesses = witnesses


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
        How many at most run plain calls.
    initializer, initargs
        Run once in every worker before its first call.
    start_method
        How the local engine makes a worker: "fork" or "spawn"; None for what the system does best.
    store
        Limits of what is stored.
    min_workers
        How many are kept where there is nothing to do; None for all.
    max_calls_per_worker
        Calls after which a worker is replaced; None for no limit.
    pin
        Whether each worker keeps to a core of its own.
    gpus
        Devices that calls may hold; None for those that are found.
    resources
        Amounts of what else the session has, by name.
    memory
        Bytes that calls may hold together; None for what this process may use.
    luggage
        What calls need beside their functions.
    """

    __slots__ = (
        "gpus",
        "initargs",
        "initializer",
        "luggage",
        "max_calls_per_worker",
        "memory",
        "min_workers",
        "pin",
        "resources",
        "start_method",
        "store",
        "workers",
    )

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
        self.min_workers: int | None = None
        self.max_calls_per_worker: int | None = None
        self.pin = False
        self.gpus: tuple[str, ...] | None = None
        self.resources: dict[str, float] = {}
        self.memory: int | None = None
        self.luggage: Luggage | None = None


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
