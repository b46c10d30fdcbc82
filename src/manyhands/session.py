"""A session: what a user opens. It owns one engine, and is the only door to it."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sized
from contextvars import ContextVar
from functools import partial
from itertools import count
from time import monotonic

from manyhands.core import place
from manyhands.core.functions import check_callable, name_callable
from manyhands.core.handles import (
    find_handles,
    get_failure,
    has_succeeded,
    peek_error,
    replace_handles,
)
from manyhands.core.model import NO_RETRIES, Call, EngineConfig, RetryPolicy, StoreConfig
from manyhands.core.refs import Ref
from manyhands.core.signatures import ListMap, ListStarMap, StreamMap, Submit, typed
from manyhands.engines.registry import create_engine
from manyhands.errors import (
    DependencyError,
    InvalidArgumentError,
    SessionClosedError,
    UnsupportedError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future as StandardFuture
    from types import TracebackType
    from typing import Any, Self, TypeVar, Unpack

    from manyhands.core.engine import Engine
    from manyhands.core.future import Future
    from manyhands.core.lifecycle import Effect, Lifecycle
    from manyhands.core.mapping import MapRun
    from manyhands.core.model import Capabilities
    from manyhands.core.options import RunOptions
    from manyhands.observe.memory import MemoryReport
    from manyhands.observe.report import Report

    T = TypeVar("T")


ENGINE_VARIABLE = "MANYHANDS_ENGINE"
"""The environment variable that names the engine of sessions that name none."""

_GRACE_SECONDS = 0.5
"""How long workers have, at the end of a session, for what they are at."""

_START_METHODS = ("fork", "spawn")


class Session:
    """Workers, and all that is needed to use them; a context manager.

    Inside a ``with`` block the functions of this package use the session; its methods use it anywhere, from any
    thread. Leaving the block closes it: what has not ended by then is cancelled, so gather what you need inside.

    Parameters
    ----------
    engine
        "local" (processes of this machine), "threads" or "inline" (the caller itself). Left out: what the
        environment variable ``MANYHANDS_ENGINE`` says, else "local", and in a worker "inline".
    workers
        How many; left out, as many as this process may use cores.
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
        engine: str | None = None,
        *,
        workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        start_method: str | None = None,
        store: str | int | None = None,
        spill: str | int | None = None,
        spill_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self._is_closed = True  # until it is open
        if initializer is not None:
            check_callable(initializer)
        if start_method is not None and start_method not in _START_METHODS:
            raise InvalidArgumentError(
                f"start_method={start_method!r}: it is 'fork' or 'spawn', or left out"
            )
        name = engine if engine is not None else _choose_engine()
        if not isinstance(name, str):
            raise InvalidArgumentError(
                f"engine={engine!r}: it is a name such as 'local', or left out"
            )
        self._engine: Engine = create_engine(name)
        config = EngineConfig(
            _check_workers(workers, name), initializer, tuple(initargs), start_method
        )
        if (store, spill, spill_folder) != (None, None, None):
            config.store = self._check_store(store, spill, spill_folder)
        self._workers = config.workers
        self._opened = monotonic()
        self._closed_at: float | None = None
        self._pid = os.getpid()
        self._engine.start(config, self)
        self._keys = count(1)
        self._foreign_keys = count(-1, -1)
        self._futures: dict[int, Future[Any]] = {}
        self._init_accounts()
        self._is_closed = False
        _open_sessions.append(self)

    def _init_accounts(self) -> None:
        # Loaded after the engine's start, so that the template process comes up meanwhile.
        from manyhands.core.future import Future

        self._make_future = Future
        self._lifecycle: Lifecycle | None = None  # until a call has inputs or retries
        self._lock = threading.RLock()  # of the life cycle and of what belongs to it
        self._kept: dict[int, Call] = {}  # calls that wait for inputs or may be tried again
        self._inputs: dict[int, StandardFuture[Any]] = {}  # what calls wait for
        self._calls = 0
        self._failed = 0
        self._retried = 0

    # What users call.

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return self._workers

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self._engine.name

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return self._engine.capabilities

    @typed(Submit)
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have ``fn(*args, **kwargs)`` run by a worker, and return at once.

        A future among the arguments, also inside lists, tuples and dicts, stands for its result: the call waits
        for it, and fails with `DependencyError` where it failed.
        """
        return self.start_call(fn, args, kwargs, NO_RETRIES)

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
            retried=self._retried,
            deaths=stats.deaths,
            wall_seconds=wall,
            starting_seconds=stats.starting,
            computing_seconds=stats.computing,
            moving_seconds=stats.moving,
            waiting_seconds=max(0.0, (wall - stats.starting) * self._workers - worked),
        )

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
            self._kept.clear()

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

    def start_call(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        policy: RetryPolicy,
    ) -> Future[Any]:
        """Submit one call under a retry policy."""
        if self._is_closed or self._pid != os.getpid():
            self._check_open()
        if not callable(fn):
            check_callable(fn)
        key = next(self._keys)
        name = getattr(fn, "__qualname__", None) or name_callable(fn)
        future = self._futures[key] = self._make_future(self, key, name)
        call = Call(key, fn, args, kwargs)
        inputs = find_handles(args, kwargs)
        if inputs:
            call.has_inputs = True
            inputs = [handle for handle in inputs if type(handle) is not Ref]
        if inputs or policy.retries:
            self._admit(call, inputs, policy)
        else:
            self._hand_over(call)
        return future

    def start_map(
        self,
        fn: Callable[..., Any],
        inputs: tuple[Iterable[Any], ...],
        *,
        star: bool = False,
        batch: int | None = None,
        progress: bool = False,
        on_error: str = "raise",
        retries: int = 0,
        retry_on: tuple[type[BaseException], ...] | type[BaseException] = Exception,
        **unknown: object,
    ) -> MapRun:
        """A map that has checked its arguments and not begun."""
        from manyhands.core.mapping import MapRun

        self._check_open()
        if unknown:
            raise TypeError(
                f"a map has no option {', '.join(unknown)}; it has batch, progress, on_error, retries and retry_on. "
                f"The number of workers is the session's: Session(workers=...)"
            )
        check_callable(fn)
        for value in inputs:
            if not hasattr(value, "__iter__") and not hasattr(value, "__getitem__"):
                raise InvalidArgumentError(
                    f"expected something to iterate over, got {value!r} ({type(value).__name__})"
                )
        policy = make_policy(retries, retry_on)
        watcher = None
        if progress:
            from manyhands.observe.progress import ProgressBar

            lengths = [len(value) for value in inputs if isinstance(value, Sized)]
            watcher = ProgressBar(name_callable(fn), min(lengths, default=None))
        return MapRun(
            self,
            fn,
            inputs,
            star=star,
            batch=batch,
            keep_going=check_on_error(on_error),
            policy=policy,
            watcher=watcher,
        )

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `is_done`, lending this thread to the engine; False where `timeout` seconds passed first."""
        if self._pid != os.getpid():
            self._check_open()
        return self._engine.wait_until(is_done, timeout)

    def attend(self) -> None:
        """Somebody waits by other means than `wait_until`."""
        if not self._is_closed and self._pid == os.getpid():
            self._engine.attend()

    def cancel_call(self, future: Future[Any]) -> bool:
        """Withdraw the call of `future` if it has not started."""
        self.cancel_calls([future])
        return future.cancelled()

    def cancel_calls(self, futures: Iterable[Future[Any]], *, kill: bool = False) -> None:
        """Withdraw the calls of `futures` that have not started; with `kill` also those that run."""
        if self._is_closed or self._pid != os.getpid():
            return
        keys = {future.key for future in futures if future.key in self._futures}
        if not keys:
            return
        with self._lock:
            life = self._lifecycle
            waiting = {key for key in keys if life is not None and life.is_waiting(key)}
        withdrawn = waiting | self._engine.cancel(keys - waiting, kill=kill)
        for key in withdrawn:
            self._end(key, None, None, None)
            if self._inputs or self._lifecycle:
                self._carry_out(self._get_lifecycle().cancel, key)
        if withdrawn:
            self._engine.rouse()

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
            self._retried += 1

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
        if self._inputs or self._lifecycle:
            for key, _ in results:
                self._kept.pop(key, None)
                self._carry_out(self._get_lifecycle().succeed, key)

    def take_error(self, key: int, error: BaseException) -> None:
        """A call failed; see `manyhands.core.engine.Sink`."""
        with self._lock:
            effects = self._get_lifecycle().fail(key, error)
        self._perform(effects, {key: error})
        self._inputs.pop(key, None)

    def take_breakdown(self, error: BaseException) -> None:
        """The engine can run nothing any more; see `manyhands.core.engine.Sink`."""

    # Calls with inputs or retries.

    def _get_lifecycle(self) -> Lifecycle:
        """The account of calls with inputs or retries, begun when the first one needs it."""
        with self._lock:
            if self._lifecycle is None:
                from manyhands.core.lifecycle import Lifecycle

                self._lifecycle = Lifecycle()
            return self._lifecycle

    def _admit(self, call: Call, inputs: list[StandardFuture[Any]], policy: RetryPolicy) -> None:
        with self._lock:
            awaited = {
                self._name_input(future): future for future in inputs if not has_succeeded(future)
            }
            self._inputs.update(awaited)
            self._kept[call.key] = call
            effects = self._get_lifecycle().admit(call.key, awaited, policy)
        self._perform(effects, {})
        for key, future in awaited.items():
            # Ours tell us when they end; but one that ended before the account was made has told nobody.
            if key < 0:
                future.add_done_callback(partial(self._take_input, key))
            elif future.done():
                self._take_input(key, future)

    def _name_input(self, future: StandardFuture[Any]) -> int:
        """A key for a future that a call waits for: its own, or one for a future that is not this session's."""
        if isinstance(future, self._make_future) and future.owner is self:
            return future.key
        return next(self._foreign_keys)

    def _take_input(self, key: int, future: StandardFuture[Any]) -> None:
        """An input has ended."""
        if future.cancelled():
            self._carry_out(self._get_lifecycle().cancel, key)
        elif (error := peek_error(future)) is None:
            self._carry_out(self._get_lifecycle().succeed, key)
        else:
            self._carry_out(partial(self._get_lifecycle().fail, error=error), key)

    def _carry_out(self, event: Callable[[int], list[Effect]], key: int) -> None:
        with self._lock:
            effects = event(key)
        self._perform(effects, {})
        self._inputs.pop(key, None)

    def _perform(self, effects: list[Effect], errors: dict[int, BaseException]) -> None:
        from manyhands.core.lifecycle import Fail, Submit

        for effect in effects:
            if isinstance(effect, Submit):
                call = self._kept.get(effect.key)
                if call is None:  # the session was closed meanwhile
                    continue
                if self._get_lifecycle().get_state(effect.key) is None:
                    del self._kept[effect.key]
                if effect.key in errors:
                    self._retried += 1
                self._hand_over(call)
            else:
                error = (
                    errors.get(effect.key)
                    if effect.cause is None
                    else self._blame(effect.key, effect.cause)
                )
                if error is not None:
                    self._end(effect.key, None, error, None)
        failed = [effect.key for effect in effects if isinstance(effect, Fail)]
        for key in failed:
            self._inputs.pop(key, None)
        if failed:
            self._engine.rouse()

    def _blame(self, key: int, cause: int) -> DependencyError:
        """The error of a call whose input failed."""
        source = self._inputs.get(cause)
        name = self._futures[key].name if key in self._futures else str(key)
        what = repr(source) if source is not None else f"call {cause}"
        error = DependencyError(
            f"call {key}, {name}, was not run, because its input failed: {what}"
        )
        if source is not None and source.done():
            error.__cause__ = get_failure(source)
        return error

    def _hand_over(self, call: Call) -> None:
        """Give a call to the engine; what keeps it from travelling becomes its error."""
        try:
            self._engine.submit(self._fill_in(call) if call.has_inputs else call)
        except Exception as error:
            self._perform(self._fail_at_once(call.key), {call.key: error})

    def _fill_in(self, call: Call) -> Call:
        """The call with results and stored values in the place of futures and refs, or what stands for them."""
        args = tuple(replace_handles(arg, self._hand_on) for arg in call.args)
        kwargs = {name: replace_handles(arg, self._hand_on) for name, arg in call.kwargs.items()}
        return Call(call.key, call.fn, args, kwargs)

    def _hand_on(self, handle: Any) -> Any:
        if type(handle) is Ref:
            return self._engine.forward(handle.record)
        if isinstance(handle, self._make_future) and handle.owner is self:
            return handle.hand_on(self._engine.forward)
        return handle.result()

    def _fail_at_once(self, key: int) -> list[Effect]:
        from manyhands.core.lifecycle import Fail

        with self._lock:
            effects = self._get_lifecycle().cancel(key)  # another attempt would end the same way
        return [Fail(key, None), *effects]

    def _end(self, key: int, value: Any, error: BaseException | None, load: Any) -> None:
        self._kept.pop(key, None)
        future = self._futures.pop(key, None)
        if future is None:
            return
        if error is None:
            future.withdraw()
        else:
            self._calls += 1
            self._failed += 1
            future.settle(value, error, load)

    def _check_store(
        self,
        store: str | int | None,
        spill: str | int | None,
        folder: str | os.PathLike[str] | None,
    ) -> StoreConfig:
        from manyhands.core.sizes import parse_size

        if not self._engine.capabilities.stores:
            raise UnsupportedError(
                f"the engine {self._engine.name!r} has no store to limit, since it copies nothing; store=, spill= and "
                f"spill_folder= are for the engine 'local'"
            )
        if folder is not None and not os.path.isdir(folder):  # noqa: PTH112 - see pyproject.toml on pathlib
            raise InvalidArgumentError(f"spill_folder={folder!r}: there is no such folder")
        return StoreConfig(
            None if store is None else max(1, parse_size(store, "store")),
            None if spill is None else parse_size(spill, "spill"),
            None if folder is None else os.path.abspath(folder),  # noqa: PTH100
        )

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


def get_session() -> Session:
    """The session that the package's functions use: of the innermost ``with`` block, else the default one.

    First counts the block that this thread, or asyncio task, is in; a thread that is in none, such as one that
    the block started, uses the session whose block was entered last.
    """
    for session in (*reversed(_entered.get()), *reversed(_blocks)):
        if not session._is_closed:
            return session
    return _get_default()


def _get_default() -> Session:
    global _default
    with _default_lock:
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
    _default = None
    _default_lock = threading.Lock()
    _open_sessions.clear()
    _blocks.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)


def make_policy(
    retries: int, retry_on: tuple[type[BaseException], ...] | type[BaseException]
) -> RetryPolicy:
    """A checked retry policy."""
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise InvalidArgumentError(
            f"retries={retries!r}: it is the number of attempts after the first, 0 or more"
        )
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise InvalidArgumentError(f"retry_on={retry_on!r}: it is a tuple of exception classes")
    return RetryPolicy(retries, kinds) if retries else NO_RETRIES


def check_on_error(on_error: str) -> bool:
    """Whether errors become results."""
    if on_error not in ("raise", "return"):
        raise InvalidArgumentError(f"on_error={on_error!r}: it is 'raise' or 'return'")
    return on_error == "return"


def _check_workers(workers: int | None, engine: str) -> int:
    from manyhands.engines.local.cpus import count_cpus

    if workers is None:
        return 1 if engine == "inline" else count_cpus()
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise InvalidArgumentError(
            f"workers={workers!r}: it is a number of workers, 1 or more; leave it out for one per core ({count_cpus()})"
        )
    return workers


def _choose_engine() -> str:
    """The engine of a session that names none.

    A call that uses the package inside a worker must not start workers of its own: the cores are taken.
    """
    return "inline" if place.in_worker else os.environ.get(ENGINE_VARIABLE) or "local"


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
