"""A session: what a user opens. It owns one engine, and is the only door to it."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sized
from contextlib import nullcontext
from contextvars import ContextVar
from itertools import count
from time import monotonic
from weakref import WeakValueDictionary

from manyhands.core import place
from manyhands.core.forks import abandon_imports
from manyhands.core.functions import check_callable, name_callable
from manyhands.core.handles import convert_foreign, find_handles, foreign
from manyhands.core.model import (
    DEFAULT_OPTIONS,
    Call,
    CallOptions,
)
from manyhands.core.options import (
    MAP_OPTIONS,
    TASK_OPTIONS,
    check_on_error,
    check_seconds,
    make_options,
    reject_unknown,
)
from manyhands.core.refs import Ref
from manyhands.core.signatures import ListMap, ListStarMap, StreamMap, Submit, typed
from manyhands.engines.config import check_beginning, make_config
from manyhands.engines.registry import create_engine
from manyhands.errors import (
    InvalidArgumentError,
    SessionClosedError,
    WorkerDiedError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self, TypeVar, Unpack

    from manyhands.core.actors import ActorLife
    from manyhands.core.engine import Engine
    from manyhands.core.future import Future
    from manyhands.core.ledger import Ledger
    from manyhands.core.luggage import Luggage
    from manyhands.core.mapping import MapRun, Paces
    from manyhands.core.model import ActorPlace, Capabilities
    from manyhands.core.options import RunOptions
    from manyhands.core.stream import Stream
    from manyhands.observe.actors import ActorFact
    from manyhands.observe.memory import MemoryReport
    from manyhands.observe.report import Report

    T = TypeVar("T")


ENGINE_VARIABLE = "MANYHANDS_ENGINE"
"""The environment variable that names the engine of sessions that name none."""

_GRACE_SECONDS = 0.5
"""How long workers have, at the end of a session, for what they are at."""

_HINTS = 20
"""Different hints that a report gives; nobody reads more."""


class Session:
    """Workers, and all that is needed to use them; a context manager.

    Inside a ``with`` block the functions of this package use the session; its methods use it anywhere, from any
    thread. Leaving the block closes it: what has not ended by then is cancelled, so gather what you need inside.

    Parameters
    ----------
    engine
        "local" (processes of this machine), "threads", "inline" (the caller itself), "dask://HOST:PORT" or
        "dask://local" (a Dask cluster), or "auto": threads where Python has no global lock, else processes. Left out:
        what the environment variable ``MANYHANDS_ENGINE`` says, else "auto". Calls inside calls use the session that
        those belong to.
    workers
        How many; left out, as many as this process may use cores, and all that a cluster has.
    initializer, initargs
        A function run once in each worker before its first call, and its arguments.
    start_method
        How a local worker is made: "fork" (from a clean template process; the default) or "spawn".
    store
        How much memory large values may take (arguments, results, what was `put`), such as "8GB" or a number of
        bytes; left out, two fifths of the memory that this process may use. Past it, those not in use go to disk.
    spill
        How much of the disk they may take; left out, nine tenths of what is free. 0 turns it off.
    spill_folder
        The folder for that; left out, that of temporary files.
    min_workers
        How many of the workers stay when there is nothing to do for them; the others come when calls wait, and go
        after an idle second. Left out, all stay.
    max_calls_per_worker
        Calls after which a worker is replaced by a fresh one, for code that leaks.
    pin
        Whether each worker keeps to a core of its own.
    gpus
        Devices that calls may hold: how many, or their names; left out, those that are found.
    memory
        How much memory calls may hold together (``memory=`` of a task); left out, what this process may use.
    resources
        Whatever else calls may hold, such as ``{"licence": 2}``.
    ship
        Paths of modules, packages, wheels and folders of them (a project's folder) that the calls import, for
        workers of a cluster that do not have them; those of this machine find what this program finds. What begins
        with a dot, caches and virtual environments stay behind.
    files
        Paths of files and folders that the calls read, which find them by `manyhands.find_file`; or a mapping that
        names them. At most 512 MiB together with `ship`, as each worker of a cluster gets a copy.
    env
        Variables of the workers' environment, set before anything else of the session's is there.

    Raises
    ------
    InvalidArgumentError, UnknownEngineError, WorkerStartError
    UnsupportedError
        `store` or `spill` for an engine that has no store.

    Examples
    --------
    >>> import manyhands as mh
    >>> with mh.Session(workers=2) as session:
    ...     mh.map(abs, [-1, -2])
    ...     session.submit(pow, 2, 5).result()
    [1, 2]
    32
    """

    def __init__(
        self,
        engine: str | Engine | None = None,
        *,
        workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        start_method: str | None = None,
        store: str | int | None = None,
        spill: str | int | None = None,
        spill_folder: str | os.PathLike[str] | None = None,
        min_workers: int | None = None,
        max_calls_per_worker: int | None = None,
        pin: bool = False,
        gpus: int | Iterable[str | int] | None = None,
        memory: str | int | None = None,
        resources: Mapping[str, float] | None = None,
        ship: Iterable[str | os.PathLike[str]] = (),
        files: Iterable[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._is_closed = True  # until it is open
        check_beginning(initializer, start_method)
        name = engine if engine is not None else _choose_engine()
        if isinstance(name, str):
            self._engine: Engine = create_engine(name)
        elif hasattr(name, "capabilities"):
            self._engine = name
        else:
            raise InvalidArgumentError(
                f"engine={engine!r}: it is a name such as 'local', or left out"
            )
        config = make_config(
            self._engine,
            workers=workers,
            initializer=initializer,
            initargs=tuple(initargs),
            start_method=start_method,
            store=(store, spill, spill_folder),
            min_workers=min_workers,
            max_calls_per_worker=max_calls_per_worker,
            pin=pin,
            gpus=gpus,
            memory=memory,
            resources=resources,
            luggage=_make_luggage(ship, files, env) if ship or files or env else None,
        )
        self._opened = monotonic()
        self._closed_at: float | None = None
        self._pid = os.getpid()
        self._files = {} if config.luggage is None else config.luggage.files
        self._engine.start(config, self)
        self._workers = config.workers  # a cluster has those that it has
        self._keys = count(self._engine.first_key)
        self._futures: dict[int, Future[Any]] = {}
        self._streams: WeakValueDictionary[int, Stream[Any]] = WeakValueDictionary()
        self._children: dict[int, set[int]] = {}  # calls of calls, where those run in this process
        self._calls = 0
        self._failed = 0
        self._paces: Paces | None = None
        self._hints: dict[str, None] = {}
        self._lock = threading.Lock()  # of the counts
        self._init_accounts()
        self._is_closed = False
        _open_sessions.append(self)

    def _init_accounts(self) -> None:
        # Loaded after the engine's start, so that the template process comes up meanwhile.
        from manyhands.core.actors import Troupe
        from manyhands.core.future import Future
        from manyhands.core.ledger import Ledger

        self._make_future = Future
        self._troupe = Troupe()
        self._ledger: Ledger = Ledger(self._engine, self._futures, Future, self, self._end)

    # What users call.

    @property
    def workers(self) -> int:
        """How many there are at most for plain calls."""
        return self._workers

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self._engine.name

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return self._engine.capabilities

    @property
    def files(self) -> Mapping[str, str]:
        """Where the program's own copies of its files are, by their names."""
        return self._files

    @typed(Submit)
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have ``fn(*args, **kwargs)`` run by a worker, and return at once.

        A future among the arguments, also inside lists, tuples and dicts, stands for its result: the call waits
        for it, and fails with `DependencyError` where it failed.
        """
        return self.start_call(fn, args, kwargs)

    @typed(ListMap)
    def map(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Any],
        /,
        *more: Iterable[Any],
        **options: Unpack[RunOptions],
    ) -> list[Any]:
        """`manyhands.map` on this session."""
        return _collect(self.start_map(fn, (iterable, *more), **options))

    @typed(ListStarMap)
    def starmap(
        self,
        fn: Callable[..., Any],
        tuples: Iterable[tuple[Any, ...]],
        /,
        **options: Unpack[RunOptions],
    ) -> list[Any]:
        """`manyhands.starmap` on this session."""
        return _collect(self.start_map(fn, (tuples,), star=True, **options))

    @typed(StreamMap)
    def imap(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Any],
        /,
        *more: Iterable[Any],
        **options: Unpack[RunOptions],
    ) -> Iterator[Any]:
        """`manyhands.imap` on this session."""
        return _stream(self.start_map(fn, (iterable, *more), **options), ordered=True)

    @typed(StreamMap)
    def imap_unordered(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Any],
        /,
        *more: Iterable[Any],
        **options: Unpack[RunOptions],
    ) -> Iterator[Any]:
        """`manyhands.imap_unordered` on this session."""
        return _stream(self.start_map(fn, (iterable, *more), **options), ordered=False)

    def put(self, value: T, *, writable: bool = False, copy: bool = False) -> Ref[T]:
        """`manyhands.put` on this session."""
        self._check_open()
        return self._engine.put(value, writable=writable, copy=copy)

    def allocate(self, size: int) -> Any:
        """A writable buffer of `size` bytes that workers read without a copy; None where this engine needs none."""
        self._check_open()
        return self._engine.allocate(size)

    def memory(self) -> MemoryReport:
        """What the session stores: how large it is, where it is, and who needs it.

        After the session's end it names the values that could not be freed, because the program still has arrays
        over them.
        """
        from manyhands.observe.memory import MemoryReport

        return MemoryReport.make(self.engine, self._engine.describe_memory())

    def report(self) -> Report:
        """Where the time went so far."""
        from manyhands.observe.report import Report

        stats = self._engine.stats()
        wall = (self._closed_at or monotonic()) - self._opened
        worked = stats.computing + stats.moving
        return Report(
            engine=self.engine,
            workers=self._workers,
            calls=self._calls,
            failed=self._failed,
            retried=self._ledger.retried,
            deaths=stats.deaths,
            wall_seconds=wall,
            starting_seconds=stats.starting,
            computing_seconds=stats.computing,
            moving_seconds=stats.moving,
            waiting_seconds=max(0.0, (wall - stats.starting) * self._workers - worked),
            hints=tuple(self._hints),
        )

    def restart_workers(self) -> None:
        """Have fresh workers for calls to come; those that are at a call end after it."""
        self._check_open()
        self._engine.restart_workers()

    def close(self, grace: float = _GRACE_SECONDS) -> None:
        """Cancel what has not ended, stop the workers and leave nothing behind; again does nothing.

        Parameters
        ----------
        grace
            Seconds that workers have for what they are at, before they are killed.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self in _open_sessions:
            _open_sessions.remove(self)
        if self._pid != os.getpid():  # a forked child: the workers are its parent's
            return
        try:
            self._engine.close(grace)
        finally:
            self._closed_at = monotonic()
            for future in list(self._futures.values()):
                future.withdraw()
            self._futures.clear()
            self._ledger.clear()

    def __enter__(self) -> Self:
        self._check_open()
        _entered.set((*_entered.get(), self))
        _blocks.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _entered.set(tuple(session for session in _entered.get() if session is not self))
        if self in _blocks:
            _blocks.remove(self)
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._futures)} calls outstanding"
        return f"<Session on {self.engine}, {self._workers} workers, {state}>"

    # What maps, tasks and futures call.

    @property
    def paces(self) -> Paces:
        """How quick functions were in the maps of this session."""
        if self._paces is None:
            from manyhands.core.mapping import Paces

            self._paces = Paces()
        return self._paces

    def hint(self, words: str) -> None:
        """Have reports say so: a sentence on what the program could do better, once for all times that it is given."""
        if len(self._hints) < _HINTS:
            self._hints[words] = None

    def answer(self, question: str, *args: Any) -> Any:
        """Answer what is asked of the session, here or by a call in another process."""
        return getattr(self, f"_answer_{question}")(*args)

    def _answer_restart_workers(self) -> None:
        self.restart_workers()

    def _answer_stop_actor(self, number: int, kill: bool) -> None:
        self.stop_actor(number, kill=kill)

    def start_call(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions = DEFAULT_OPTIONS,
        make: type[Future[Any]] | None = None,
    ) -> Future[Any]:
        """Submit one call; its future is of the class `make` where that is given."""
        if self._is_closed or self._pid != os.getpid():
            self._check_open()
        if not callable(fn):
            check_callable(fn)
        if foreign:
            args, kwargs = convert_foreign(args, kwargs)
        key = next(self._keys)
        name = options.name or getattr(fn, "__qualname__", None) or name_callable(fn)
        future = self._futures[key] = (make or self._make_future)(self, key, name)
        parent = self._engine.get_running()
        if parent:
            self._children.setdefault(parent, set()).add(key)
        call = Call(key, fn, args, kwargs, options)
        handles = find_handles(args, kwargs)
        if handles:
            self._submit_with(handles, call)
        else:
            self._ledger.hand_over(call)
        return future

    def _submit_with(self, handles: list[Any], call: Call) -> None:
        """Submit a call that has futures or refs among its arguments."""
        call.has_inputs = True
        inputs = [handle for handle in handles if type(handle) is not Ref]
        if inputs:
            self._ledger.admit(call, inputs)
        else:
            self._ledger.hand_over(call)

    def start_stream(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Stream[Any]:
        """Submit one call whose items are wanted as it yields them; `fn` is a `StreamCall`."""
        from manyhands.core.stream import Stream

        self._check_open()
        args, kwargs = convert_foreign(args, kwargs)
        key = next(self._keys)
        name = options.name or name_callable(fn)
        future = self._futures[key] = self._make_future(self, key, name)
        stream = self._streams[key] = Stream(self, future, options.window)
        parent = self._engine.get_running()
        if parent:
            self._children.setdefault(parent, set()).add(key)
        self._submit_with(find_handles(args, kwargs), Call(key, fn, args, kwargs, options))
        return stream

    # Actors.

    def start_actor(
        self,
        cls: type[Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        where: ActorPlace,
        *,
        methods: dict[str, str],
        restarts: int,
        every: int,
        name: str | None,
    ) -> ActorLife:
        """Have an actor made in a worker."""
        from manyhands.core.acting import ActorMaker
        from manyhands.core.actors import ActorLife

        self._check_open()
        args, kwargs = convert_foreign(args, kwargs)
        number = int.from_bytes(os.urandom(7), "big") | 1
        life = ActorLife(number, cls.__qualname__, name, methods, restarts)
        inputs = [handle for handle in find_handles(args, kwargs) if type(handle) is not Ref]
        for future in inputs:
            future.result()
        where.life = life
        key = self.adopt(life)
        call = Call(key, ActorMaker(number, cls, every), args, kwargs)
        call.has_inputs = bool(find_handles(args, kwargs))
        try:
            self._engine.start_actor(number, self._ledger.fill_in(call), where)
        except BaseException:
            life.stop()  # its name is free
            raise
        return life

    def adopt(self, life: ActorLife) -> int:
        """Enter an actor into the account; the key of the call that makes it."""
        if life.name is not None and self._troupe.find(life.name) is not None:
            raise InvalidArgumentError(
                f"name={life.name!r}: there is an actor of that name; mh.find_actor({life.name!r}) gives it"
            )
        key = next(self._keys)
        self._troupe.add(life, key)
        return key

    def find_actor(self, name: str) -> tuple[int, str, str | None, dict[str, str]]:
        """Number, class, name and methods of the actor of this name."""
        self._check_open()
        found: tuple[int, str, str | None, dict[str, str]] = self._engine.ask("find_actor", name)
        return found

    def _answer_find_actor(self, name: str) -> tuple[int, str, str | None, dict[str, str]]:
        life = self._troupe.find(name)
        if life is None:
            known = ", ".join(repr(other.name) for other in self._troupe if other.name) or "none"
            raise InvalidArgumentError(
                f"no actor of this session is named {name!r}; there are {known}"
            )
        return life.number, life.class_name, life.name, life.methods

    def stop_actor(self, number: int, *, kill: bool) -> None:
        """End an actor, at once or after its calls."""
        self._check_open()
        life = self._troupe.get(number)
        if life is not None:
            life.stop()
        self._engine.stop_actor(number, kill=kill)

    def actors(self) -> list[ActorFact]:
        """The actors of this session and what is known of each, in the order of their start."""
        self._check_open()
        facts: list[ActorFact] = self._engine.ask("actors")
        return facts

    def _answer_actors(self) -> list[ActorFact]:
        from manyhands.observe.actors import ActorFact

        return [
            ActorFact(life.class_name, life.name, life.state.value, life.restarts)
            for life in self._troupe
        ]

    def take_actor_end(self, actor: int, error: BaseException) -> None:
        """The worker of an actor has ended; see `manyhands.core.engine.Sink`."""
        life = self._troupe.get(actor)
        if life is None:
            return
        if life.end(error, is_final=False):
            self._engine.restart_actor(actor)
        elif life.error is not None:
            self._engine.bury_actor(actor, life.error)

    def take_actor_return(self, actor: int) -> None:
        """An actor was made again; see `manyhands.core.engine.Sink`."""
        life = self._troupe.get(actor)
        if life is not None:
            life.note_made()

    def _take_making_failure(self, life: ActorLife, error: BaseException, key: int) -> None:
        """An actor could not be made."""
        if isinstance(error, WorkerDiedError) and error.key in (None, key):
            return  # `take_actor_end` says the same
        life.end(error, is_final=True)
        if life.error is not None:
            self._engine.bury_actor(life.number, life.error)

    def start_map(
        self,
        fn: Callable[..., Any],
        inputs: tuple[Iterable[Any], ...],
        *,
        star: bool = False,
        on_error: str = "raise",
        **options: Any,
    ) -> MapRun:
        """A map that has checked its arguments and not begun."""
        from manyhands.core.mapping import MapRun

        self._check_open()
        reject_unknown(options, MAP_OPTIONS, "a map")
        check_callable(fn)
        for value in inputs:
            if not hasattr(value, "__iter__") and not hasattr(value, "__getitem__"):
                raise InvalidArgumentError(
                    f"expected something to iterate over, got {value!r} ({type(value).__name__})"
                )
        keep_going = check_on_error(on_error)
        call_options = make_options(
            {name: value for name, value in options.items() if name in TASK_OPTIONS}
        )
        deadline = check_seconds(options.get("deadline"), "deadline")
        watcher = None
        if options.get("progress"):
            from manyhands.observe.progress import ProgressBar

            lengths = [len(value) for value in inputs if isinstance(value, Sized)]
            watcher = ProgressBar(name_callable(fn), min(lengths, default=None))
        return MapRun(
            self,
            fn,
            inputs,
            star=star,
            batch=options.get("batch"),
            keep_going=keep_going,
            options=call_options,
            deadline=deadline,
            watcher=watcher,
        )

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        """Wait until `is_done`, lending this thread to the engine; False where `timeout` seconds passed first."""
        if self._pid != os.getpid():
            self._check_open()
        return self._engine.wait_until(is_done, timeout, key)

    def look(self) -> None:
        """Somebody asks whether a future is done, and does not wait."""
        self._engine.look()

    def attend(self) -> None:
        """Somebody waits by other means than `wait_until`."""
        if not self._is_closed and self._pid == os.getpid():
            self._engine.attend()

    def cancel_call(self, future: Future[Any], *, running: bool) -> bool:
        """Withdraw the call of `future` if it has not started, with `running` also if it has."""
        self.cancel_calls([future], running=running)
        return future.cancelled()

    def cancel_calls(self, futures: Iterable[Future[Any]], *, running: bool = False) -> None:
        """Withdraw the calls of `futures` that have not started; with `running` also those that run.

        What waits for them is cancelled with them, and so are the calls that those that ran have made.
        """
        self.cancel_keys((future.key for future in futures), running=running)

    def cancel_keys(self, keys: Iterable[int], *, running: bool = False) -> None:
        """`cancel_calls` of calls that are named by their keys."""
        if self._is_closed or self._pid != os.getpid():
            return
        keys = {key for key in keys if key in self._futures}
        if not keys:
            return
        unsent = self._ledger.withdraw_unsent(keys)
        withdrawn = unsent | self._engine.cancel(keys - unsent, running=running)
        for key in withdrawn:
            self._end(key, None)
            self._ledger.cancel(key)
            self.cancel_children(key)
        if withdrawn:
            self._engine.rouse()

    def is_outstanding(self, key: int) -> bool:
        """Whether a call has been submitted and has not ended."""
        return key in self._futures

    def rouse(self) -> None:
        """What somebody may wait for has come about without a call's end: have all that wait look again."""
        if not self._is_closed and self._pid == os.getpid():
            self._engine.rouse()

    def cancel_children(self, key: int) -> None:
        """A call that ran in this process came to nothing: so do the calls that it made."""
        children = self._children.pop(key, None)
        if children:
            futures = [self._futures[child] for child in children if child in self._futures]
            self.cancel_calls(futures, running=True)

    def grant(self, future: Future[Any], items: int) -> None:
        """So many items of a stream were taken."""
        if not self._is_closed and self._pid == os.getpid():
            self._engine.grant(future.key, items)

    def load_item(self, item: Any) -> tuple[Any, BaseException | None]:
        """An item of a stream."""
        return self._engine.load(item)

    def is_call_running(self, future: Future[Any]) -> bool:
        """Whether a worker is at the call of `future` right now."""
        is_ours = not self._is_closed and self._pid == os.getpid()
        return is_ours and self._engine.is_running(future.key)

    def discount_batch(self, *, failed: bool) -> None:
        """A call that ended was a batch of a map, and no call of the user's."""
        with self._lock:
            self._calls -= 1
            self._failed -= failed

    def count_retry(self) -> None:
        """An item of a map is tried again."""
        with self._lock:
            self._ledger.retried += 1

    def count_items(self, items: int, failed: int) -> None:
        """Items of a map have ended."""
        with self._lock:
            self._calls += items
            self._failed += failed

    # What the engine calls.

    def take_results(self, results: Sequence[tuple[int, Any]]) -> None:
        """Calls ended well; see `manyhands.core.engine.Sink`."""
        with self._lock:
            self._calls += len(results)
        self._make_future.settle_all(self._futures, results, self._engine.load)
        if self._ledger.is_used:
            self._ledger.succeed([key for key, _ in results])
        if self._children:
            for key, _ in results:
                self._children.pop(key, None)
        if self._troupe:
            for key, _ in results:
                life = self._troupe.find_made_by(key)
                if life is not None:
                    life.note_made()

    def take_failure(self, key: int, error: BaseException, attempt: Any) -> None:
        """An attempt failed; see `manyhands.core.engine.Sink`."""
        self.cancel_children(key)
        life = self._troupe.find_made_by(key)
        if life is not None:
            self._take_making_failure(life, error, key)
            return
        stream = self._streams.get(key)
        # What has been yielded cannot be taken back, and another attempt would yield it again.
        has_begun = stream is not None and stream.has_begun
        self._ledger.fail(key, error, None if has_begun else attempt)

    def take_item(self, key: int, item: Any) -> None:
        """A stream goes on; see `manyhands.core.engine.Sink`."""
        stream = self._streams.get(key)
        if stream is not None:
            stream.add(item)

    def take_breakdown(self, error: BaseException) -> None:
        """The engine can run nothing any more; see `manyhands.core.engine.Sink`."""

    def _end(self, key: int, error: BaseException | None) -> None:
        """End a call with an error, or as cancelled where there is none."""
        future = self._futures.pop(key, None)
        if future is None:
            return
        if error is None:
            future.withdraw()
        else:
            with self._lock:
                self._calls += 1
                self._failed += 1
            future.settle(None, error, None)

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise SessionClosedError(
                f"this session belongs to process {self._pid}, from which this one ({os.getpid()}) was forked; "
                f"open one here"
            )
        if self._is_closed:
            raise SessionClosedError(
                "this session is closed; open another, or use the functions of the package"
            )


_entered: ContextVar[tuple[Session, ...]] = ContextVar("manyhands_sessions", default=())
"""The sessions whose ``with`` blocks this context is in, the innermost last."""

_blocks: list[Session] = []
"""The sessions whose blocks any thread is in."""

_open_sessions: list[Session] = []
_default: Session | None = None
_default_lock = threading.Lock()


def _make_luggage(*options: Any) -> Luggage:
    from manyhands.core.luggage import make_luggage  # few need it

    return make_luggage(*options)


def get_session() -> Session:
    """The session that the package's functions use: of the innermost ``with`` block, else the default one.

    A call uses the session that it belongs to. Else, first counts the block that this thread, or asyncio task, is in;
    a thread that is in none, such as one that the block started, uses the session whose block was entered last.
    """
    return _find_entered() or _get_default()


def is_inside() -> bool:
    """Whether `get_session` gives the session of a block, or of a call."""
    return _find_entered() is not None


def _find_entered() -> Session | None:
    here = place.here.get()
    own = here.open_session(Session) if here is not None else None
    if own is not None and not own._is_closed:
        return own  # type: ignore[no-any-return]
    for session in (*reversed(_entered.get()), *reversed(_blocks)):
        if not session._is_closed and session._pid == os.getpid():
            return session
    return None


def _get_default() -> Session:
    global _default
    # A call in a worker that is interrupted here must not leave one behind that nobody knows.
    with nullcontext() if place.link is None else place.link.waits.guard(), _default_lock:
        if _default is None or _default._is_closed or _default._pid != os.getpid():
            _default = Session()
        return _default


def shutdown() -> None:
    """Close the default session; the next use opens another. Again, or without one, it does nothing.

    Examples
    --------
    >>> import manyhands as mh
    >>> mh.shutdown()
    """
    global _default
    with _default_lock:
        session, _default = _default, None
    if session is not None:
        session.close()


def _close_all() -> None:
    for session in _open_sessions.copy():  # closing takes a session off the list
        session.close()


def _forget_all() -> None:
    """In a forked child: the sessions are its parent's, and the locks may be held by threads that it has not."""
    global _default, _default_lock
    abandon_imports()
    _default = None
    _default_lock = threading.Lock()
    _open_sessions.clear()
    _blocks.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)


def _choose_engine() -> str:
    """The engine of a session that names none.

    A call that uses the package inside a worker uses the workers that there are: the cores are taken.
    """
    if place.in_worker:
        # One at a time speaks to the program; a session that a call opens beside it has no workers of its own.
        return "inline" if place.link is None or place.link.nested is not None else "nested"
    return os.environ.get(ENGINE_VARIABLE) or "auto"


def _collect(run: MapRun) -> list[Any]:
    results: list[Any] = []
    for part in run.iterate_parts(ordered=True):
        results += part
    return results


def _stream(run: MapRun, *, ordered: bool) -> Iterator[Any]:
    parts = run.iterate_parts(ordered=ordered, in_place=ordered)
    try:
        for part in parts:
            yield from part
    finally:
        parts.close()
