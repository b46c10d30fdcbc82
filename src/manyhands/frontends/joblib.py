"""joblib's door: a backend for `joblib.Parallel`, and so for all that is written for it, such as scikit-learn.

>>> import joblib, manyhands
>>> with joblib.parallel_config("manyhands", n_jobs=2):
...     joblib.Parallel()(joblib.delayed(abs)(i) for i in (-1, -2))
[1, 2]

joblib cuts the tasks into batches and asks a backend to run each; what it wants to know of the end of one it is told
by a callback. Where it only waits, our thread drives the workers meanwhile (`retrieval_context`), and the callbacks
run there.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future as StandardFuture
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from multiprocessing import current_process
from pickle import dumps, loads
from time import monotonic
from types import FunctionType
from typing import TYPE_CHECKING, Any
from weakref import ref as weak

from joblib import cpu_count, parallel_config
from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from manyhands.core import place
from manyhands.core.batch import Batch
from manyhands.core.functions import name_callable
from manyhands.core.parcels import packing
from manyhands.core.reductions import reduce_mapped, share_array
from manyhands.errors import InvalidArgumentError, WorkerStartError
from manyhands.frontends.preparation import Preparation
from manyhands.session import Session, get_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from manyhands.core.refs import Ref

_ARRAY_BYTES = 2**20
"""joblib's own limit above which arrays are shared."""

_FUNCTIONS = 16
"""Functions of a `Parallel` that are pickled once, and not with each batch."""

_DEFAULT_AHEAD = "2 * n_jobs"
"""joblib's default of ``pre_dispatch``, as no user would happen to write it."""

_AHEAD = 32
"""How many quick batches there may be for each worker where ``pre_dispatch`` was left open."""

_AHEAD_SECONDS = 0.02
"""How long they may take together."""

_FIRST = 32
"""How many batches for each worker are looked at whether they have ended."""

_LOOK_EVERY = 32
"""Submissions after which that is done while joblib has not begun to wait."""

_SLOW_SECONDS = 0.001
"""A task that takes longer to come is not asked for before it is needed."""

_ATOMS = frozenset({int, float, bool, str, bytes, type(None), complex})
"""Types of arguments that every process knows."""


class ManyhandsBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the batches of `joblib.Parallel` in the workers of a session.

    joblib makes it, by the name "manyhands"; the parameters are keywords of `joblib.parallel_config`, or of
    `joblib.Parallel`.

    Parameters
    ----------
    nesting_level, inner_max_num_threads
        As of joblib's own backends.
    session
        Whose workers to use. Left out, a session with `n_jobs` workers that is kept for the next call: see `shutdown`.
        Inside a call, the session that the call belongs to.
    initializer, initargs
        A function run once in each worker before its first call, and its arguments.

    Examples
    --------
    >>> import joblib
    >>> import manyhands as mh
    >>> with mh.Session(workers=2) as session, joblib.parallel_config("manyhands", session=session):
    ...     joblib.Parallel()(joblib.delayed(pow)(i, 2) for i in range(4))
    [0, 1, 4, 9]
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    # A batch costs a tenth of what it costs joblib's own backends, so it can be shorter, and the end more even.
    MIN_IDEAL_BATCH_DURATION = 0.05
    MAX_IDEAL_BATCH_DURATION = 0.5

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        *,
        session: Session | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        idle_worker_timeout: float | None = None,  # noqa: ARG002 - loky's; here workers stay
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._options: dict[str, Any] = {
            "session": session,
            "initializer": initializer,
            "initargs": tuple(initargs),
        }
        self._given = _check_session(session)
        if session is not None:
            self.default_n_jobs = -1
        self.parallel: Any = None
        self._workers: _Claim | None = (
            None  # joblib's tests look at it, as at that of its own backends
        )
        self._outstanding: dict[Any, Callable[[Any], object] | None] = {}
        self._rule: tuple[float, str | None] = (_ARRAY_BYTES, "r")
        self._arrays: _Arrays | None = None
        self._calls: dict[FunctionType | None, _Calls] = {}
        self._latest = 0.0  # seconds from the submission of a batch to its end
        self._goes_further = False
        self._submissions = count(1)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls run at the same time where `n_jobs` are asked for; negative ones count from all."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        session = self._given or _find_callers_session()
        if n_jobs is None:
            return 1 if session is None else session.workers
        if n_jobs < 0:
            n_jobs = max((cpu_count() if session is None else session.workers) + 1 + n_jobs, 1)
        return n_jobs if session is None else min(n_jobs, session.workers)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,  # noqa: ARG002 - joblib has chosen by it already
        require: str | None = None,  # noqa: ARG002 - as above
        *,
        session: Session | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        idle_worker_timeout: float | None = None,  # noqa: ARG002 - see `__init__`
        max_nbytes: int | None = _ARRAY_BYTES,
        mmap_mode: str | None = "r",
        temp_folder: str | None = None,  # noqa: ARG002 - what is shared lies in no folder
        verbose: int = 0,  # noqa: ARG002 - joblib prints
        context: object = None,  # noqa: ARG002 - of multiprocessing, which is not used
    ) -> int:
        """Get ready for the calls of `parallel`, and say how many run at the same time."""
        self._given = _check_session(session) or self._given
        if initializer is not None:
            self._options.update(initializer=initializer, initargs=tuple(initargs))
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        with _lock:
            is_taken, self._is_taken = self._is_taken, True
        if is_taken:  # by another `Parallel` of the same `parallel_config`, such as one that gives a generator
            raise FallbackToBackend(self._copy())
        try:
            self._workers = self._claim(n_jobs)
        except BaseException:
            self._is_taken = False
            raise
        if not self._workers.session.capabilities.concurrent:
            self.terminate()
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._drives = parallel.timeout is None and not parallel.return_generator
        self._n_jobs = n_jobs
        limit = float("inf") if max_nbytes is None or mmap_mode is None else max_nbytes
        self._rule = limit, mmap_mode
        return n_jobs

    _is_taken = False
    _drives = False
    _is_taking_in = False

    def _copy(self) -> ManyhandsBackend:
        return type(self)(self.nesting_level, self.inner_max_num_threads, **self._options)

    def _claim(self, n_jobs: int) -> _Claim:
        session = self._given or _find_callers_session()
        if session is not None:
            return _Claim(session)
        recipe = _Recipe(
            n_jobs,
            self.inner_max_num_threads,
            self._options["initializer"],
            self._options["initargs"],
            {name: os.environ.get(name) for name in self.MAX_NUM_THREADS_VARS},
        )
        return _borrow(recipe)

    def start_call(self) -> None:
        """A `Parallel` begins."""
        assert self._workers is not None
        self._arrays = _Arrays(self._workers.session, *self._rule)
        self._calls = {}
        # Where the user has said how far to go ahead, that holds; and of "auto" joblib makes longer batches.
        is_left_open = self.parallel.pre_dispatch == _DEFAULT_AHEAD
        self._goes_further = is_left_open and self.parallel.batch_size != "auto"

    def stop_call(self) -> None:
        """It has ended: let go of what it has stored."""
        if self._arrays is not None:
            self._arrays.clear()
        self._arrays = None
        self._calls = {}

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> Any:
        """Have a worker run a batch; `callback` is given the future when it is done."""
        future: Any
        try:
            future = self._start(func)
        except Exception as error:
            # joblib may be in a callback, where nobody would hear of it.
            future = StandardFuture()
            future.set_exception(error)
        self._outstanding[future] = callback
        if not self._drives:
            future.add_done_callback(partial(self._pass_on, self._outstanding))
        elif not next(self._submissions) % _LOOK_EVERY:
            self._take_in()
        return future

    apply_async = submit  # what joblib before 1.5 calls it

    def _start(self, batch: Any) -> Any:
        assert self._workers is not None
        items = batch.items
        function = items[0][0]
        is_plain = all(
            not kwargs and _ATOMS.issuperset(map(type, args)) for _, args, kwargs in items
        )
        content: Any
        if type(function) is not FunctionType or any(item[0] is not function for item in items):
            function, content = None, _Items(items, self._arrays)
        elif is_plain:  # what this pickles, the session has not to look into
            content = dumps([args for _, args, _ in items], 5)
        else:
            content = _Items([(args, kwargs) for _, args, kwargs in items], self._arrays)
        self._goes_further = self._goes_further and is_plain
        calls = self._calls.get(function)
        if calls is None:
            calls = self._calls[function] = self._make_calls(function, name_callable(items[0][0]))
        return self._workers.session.start_call(calls, (content,), {})

    def _make_calls(self, function: FunctionType | None, name: str) -> _Calls:
        if len(self._calls) >= _FUNCTIONS:
            self._calls.pop(next(iter(self._calls)))
        nested = self.get_nested_backend()
        if not isinstance(nested, tuple):  # of a subclass as old as joblib 0.12
            nested = nested, None
        return _Calls(function, name, nested)

    def _pass_on(self, outstanding: dict[Any, Any], future: Any) -> None:
        """Tell joblib of the end of a batch."""
        callback = outstanding.pop(future, None)
        if callback is not None:  # which submits the next one
            callback(future)
            if self._goes_further and self._latest < _AHEAD_SECONDS:
                self._go_further()

    def _has_news(self) -> bool:
        # A failure of the tasks' own iterator shows nowhere else.
        return bool(self._list_ended()) or getattr(self.parallel, "_aborting", False)

    def _list_ended(self) -> list[Any]:
        """Batches that have ended, of those that were submitted first: others have hardly begun."""
        first = islice(self._outstanding, _FIRST * self._n_jobs)
        return [future for future in first if future.done()]

    def _take_in(self) -> None:
        if self._is_taking_in:  # a callback has submitted
            return
        self._is_taking_in = True
        try:
            outstanding = self._outstanding
            for future in self._list_ended():
                self._pass_on(outstanding, future)
        finally:
            self._is_taking_in = False

    def _go_further(self) -> None:
        """Have joblib submit one batch more: of quick ones, its four for two workers leave them idle half of the time.

        So it goes on until there is a moment's work ahead, or the tasks turn out to come slowly themselves.
        """
        parallel = self.parallel
        if len(self._outstanding) >= _AHEAD * self._n_jobs:
            return
        begin = monotonic()
        with parallel._lock:
            if parallel._original_iterator is not None and not parallel._aborting:
                parallel.dispatch_next()
        self._goes_further = self._goes_further and monotonic() - begin < _SLOW_SECONDS

    def batch_completed(self, batch_size: int, duration: float) -> None:
        """A batch has ended `duration` seconds after its submission."""
        self._latest = duration
        super().batch_completed(batch_size, duration)

    def retrieve_result_callback(self, out: Any) -> Any:
        """The results of a batch, or its error raised."""
        try:
            return out.result()
        except WorkerStartError:
            if self._workers is not None:
                self._workers.spoil()
            raise

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Where joblib would look every hundredth of a second whether all has ended, wait for that."""
        if self._drives:
            assert self._workers is not None
            session = self._workers.session
            while self._outstanding and not getattr(self.parallel, "_aborting", False):
                session.wait_until(self._has_news, None)
                self._take_in()
        yield

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what has been submitted and not ended, also what runs."""
        workers = self._workers
        if workers is None:
            return
        outstanding, self._outstanding = self._outstanding, {}
        workers.session.cancel_calls(list(outstanding), running=True)
        if ensure_ready:
            workers.give_back()
            self._workers = self._claim(self._n_jobs)
        else:
            self.terminate()

    def terminate(self) -> None:
        """The workers are not needed any more, here."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.give_back()
            self._is_taken = False
        self.reset_batch_stats()


class _Calls(Batch):
    """Runs the items of a batch in a worker.

    Parameters
    ----------
    function
        Of all items; None where each has its own.
    name
        What errors call it.
    nested
        The backend of parallel calls inside, and its ``n_jobs``.
    """

    def __init__(
        self, function: FunctionType | None, name: str, nested: tuple[Any, int | None]
    ) -> None:
        self.function = function
        self.nested = nested
        self.__qualname__ = name

    def __call__(self, items: Any) -> list[Any]:  # type: ignore[override]
        """The items' results."""
        backend, n_jobs = self.nested
        with parallel_config(backend=backend, n_jobs=n_jobs):
            function = self.function
            if function is None:
                return [fn(*args, **kwargs) for fn, args, kwargs in items]
            if type(items) is bytes:
                return [function(*args) for args in loads(items)]
            return [function(*args, **kwargs) for args, kwargs in items]


class _Items(list[Any]):
    """The items of a batch; the arrays among their arguments travel as joblib's users know it."""

    def __init__(self, items: list[Any], arrays: _Arrays | None) -> None:
        super().__init__(items)
        self._reduce_array = arrays

    def __reduce__(self) -> Any:
        packing.reduce_array = self._reduce_array
        return list, (tuple(self),)


class _Arrays:
    """How the arrays among the arguments of one `Parallel` travel.

    Up to `limit` bytes they are copied, and calls may write to them. Larger ones are stored once, and known again by
    being the same object: their content is not looked at a second time. Those of files are mapped from there.

    Parameters
    ----------
    session
        Where they are stored.
    limit
        In bytes.
    mode
        As of `numpy.memmap`, of those that are stored.
    """

    def __init__(self, session: Session, limit: float, mode: str | None) -> None:
        self._session = session
        self._limit = limit
        self._access = {"copy": mode == "c", "writable": mode in ("r+", "w+")}
        self._known: dict[int, tuple[weak[Any], Ref[Any] | None]] = {}

    def __call__(self, array: Any) -> Any:
        """What pickle's ``__reduce__`` gives."""
        mapped = reduce_mapped(array, writable=True)
        if mapped is not None:
            return mapped
        if array.dtype.hasobject:
            return share_array(array)
        if array.nbytes <= self._limit:
            return _copy, (_Shared(array),)
        ref = self._store(array)
        return share_array(array) if ref is None else (_read, (ref,))

    def clear(self) -> None:
        """Let go of all, at once and not when a cycle of references is found."""
        self._known.clear()

    def _store(self, array: Any) -> Ref[Any] | None:
        known, key = self._known, id(array)
        entry = known.get(key)
        is_new = entry is None or entry[0]() is not array
        if not is_new and entry is not None and entry[1] is not None:
            return entry[1]
        # Parts of an array are often made anew for each call: the store knows them by address and content.
        is_part = type(array.base) is type(array) and not any(self._access.values())
        ref = None if is_new and is_part else self._session.put(array, **self._access)

        def forget(_: object) -> None:
            known.pop(key, None)

        known[key] = weak(array, forget), ref
        return ref


class _Shared:
    """Stands for an array that goes the usual way: a large one is sent once, as long as its content is the same."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __reduce__(self) -> Any:
        return share_array(self.array)


def _copy(array: Any) -> Any:
    """While the items are read in a worker: an array that the call may write to."""
    return array.copy("K")


def _read(ref: Ref[Any]) -> Any:
    """While the items are read in a worker: the array that was stored."""
    return ref.get()


def _check_session(session: object) -> Session | None:
    if session is not None and not isinstance(session, Session):
        raise InvalidArgumentError(
            f"session={session!r}: it is a manyhands.Session, or left out for one that is kept between calls"
        )
    return session


def _find_callers_session() -> Session | None:
    """In a call: the session that it belongs to, whose workers are to do it all."""
    return get_session() if place.in_worker or place.here.get() is not None else None


# The session that is kept.


class _Recipe:
    """What a kept session was asked for."""

    def __init__(
        self,
        n_jobs: int,
        threads: int | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        variables: dict[str, str | None],
    ) -> None:
        self.n_jobs = n_jobs
        self.threads = threads
        self.initializer = initializer
        self.initargs = initargs
        self.variables = variables

    def open(self) -> Session:
        is_limited = self.threads is not None
        limits = dict.fromkeys(self.variables, str(self.threads)) if is_limited else {}
        return Session(
            workers=self.n_jobs,
            initializer=Preparation(limits, bytes(current_process().authkey)),
            initargs=(self.initializer, *self.initargs),
        )

    def is_like(self, other: _Recipe) -> bool:
        return (
            (self.n_jobs, self.threads, self.variables)
            == (other.n_jobs, other.threads, other.variables)
            and self.initializer == other.initializer
            and len(self.initargs) == len(other.initargs)
            and all(map(_is_same, self.initargs, other.initargs))
        )


def _is_same(one: object, other: object) -> bool:
    if one is other:
        return True
    try:
        return bool(one == other)
    except Exception:  # arrays compare to arrays
        return False


class _Kept:
    """A session that is kept, and how many use it."""

    def __init__(self, recipe: _Recipe) -> None:
        self.recipe = recipe
        self.session = recipe.open()
        self.users = 0


class _Claim:
    """The use of a session by one `Parallel`."""

    def __init__(self, session: Session, kept: _Kept | None = None) -> None:
        self.session = session
        self._kept = kept

    def give_back(self) -> None:
        """Close the session if it was kept, is so no longer, and this was the last use."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        with _lock:
            kept.users -= 1
            is_over = kept is not _kept and not kept.users
        if is_over:
            kept.session.close()

    def spoil(self) -> None:
        """The session is broken, so it is not kept for others."""
        if self._kept is not None:
            _replace(self._kept)


_lock = threading.Lock()
_kept: _Kept | None = None


def _borrow(recipe: _Recipe) -> _Claim:
    """Use the kept session if it is like the one that is asked for; else keep another from now on."""
    global _kept
    with _lock:
        former = _kept
        if former is None or not former.recipe.is_like(recipe):
            _kept = _Kept(recipe)
        else:
            former = None
        assert _kept is not None
        _kept.users += 1
        claim = _Claim(_kept.session, _kept)
        is_over = former is not None and not former.users
    if is_over and former is not None:
        former.session.close()
    return claim


def _replace(kept: _Kept | None) -> None:
    """Keep `kept` no longer."""
    global _kept
    with _lock:
        if kept is None or kept is not _kept:
            return
        _kept = None
        is_over = not kept.users
    if is_over:
        kept.session.close()


def shutdown() -> None:
    """End the workers that are kept between calls; the next call starts others.

    At the end of the program that is done by itself.

    Examples
    --------
    >>> from manyhands.frontends.joblib import shutdown
    >>> shutdown()
    """
    _replace(_kept)


def _forget() -> None:
    """In a forked child: the workers are its parent's, and the lock may be held by a thread that it has not."""
    global _kept, _lock
    _kept, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
