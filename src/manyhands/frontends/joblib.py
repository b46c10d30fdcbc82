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
from itertools import chain, count, islice
from pickle import dumps, loads
from time import monotonic
from types import FunctionType
from typing import TYPE_CHECKING, Any

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
from manyhands.errors import InvalidArgumentError, WorkerStartError
from manyhands.frontends.arrays import Arrays, Items
from manyhands.frontends.keeping import Claim, Recipe, borrow, shutdown
from manyhands.session import Session, get_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


__all__ = ["ManyhandsBackend", "shutdown"]

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
"""Of how many batches for each worker those that have ended are taken in: of the first, as others have hardly begun."""

_FIRST_NEWS = 4
"""How many for each worker are looked at to see whether there is any."""

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
        # By the name that joblib's tests look for.
        self._workers: Claim | None = None
        self._outstanding: dict[Any, Callable[[Any], object] | None] = {}
        self._rule: tuple[float, str | None] = (_ARRAY_BYTES, "r")
        self._arrays: Arrays | None = None
        self._calls: dict[FunctionType | None, _Calls] = {}
        self._latest = 0.0  # seconds from the submission of a batch to its end
        self._goes_further = False
        self._submissions = count(1)
        self._taking = threading.Lock()

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
        with self._taking:
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

    def _claim(self, n_jobs: int) -> Claim:
        session = self._given or _find_callers_session()
        if session is not None:
            return Claim(session)
        recipe = Recipe(
            n_jobs,
            self.inner_max_num_threads,
            self._options["initializer"],
            self._options["initargs"],
            {name: os.environ.get(name) for name in self.MAX_NUM_THREADS_VARS},
        )
        return borrow(recipe)

    def start_call(self) -> None:
        """A `Parallel` begins."""
        assert self._workers is not None
        self._arrays = Arrays(self._workers.session, *self._rule)
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
        functions, arguments, keywords = zip(*items, strict=True)
        function = functions[0]
        is_shared = type(function) is FunctionType and functions.count(function) == len(functions)
        is_plain = not any(keywords) and _ATOMS.issuperset(
            map(type, chain.from_iterable(arguments))
        )
        content: Any
        if not is_shared:
            function, content = None, Items(items, self._arrays)
        elif is_plain:  # what this pickles, the session has not to look into
            content = dumps(arguments, 5)
        else:
            content = Items(list(zip(arguments, keywords, strict=True)), self._arrays)
        self._goes_further = self._goes_further and is_plain
        calls = self._calls.get(function)
        if calls is None:
            calls = self._calls[function] = self._make_calls(function, name_callable(functions[0]))
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
        """Whether a batch has ended, or there is no need to wait for one."""
        for future in islice(self._outstanding, _FIRST_NEWS * self._n_jobs):
            if future.done():
                return True
        # A failure of the tasks' own iterator shows nowhere else.
        return bool(getattr(self.parallel, "_aborting", False))

    def _take_in(self) -> None:
        if self._is_taking_in:  # a callback has submitted
            return
        self._is_taking_in = True
        try:
            outstanding = self._outstanding
            first = islice(outstanding, _FIRST * self._n_jobs)
            for future in [future for future in first if future.done()]:
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
        under_way = [future for future in outstanding if not future.done()]
        workers.session.cancel_calls(under_way, running=True)
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


def _check_session(session: object) -> Session | None:
    if session is not None and not isinstance(session, Session):
        raise InvalidArgumentError(
            f"session={session!r}: it is a manyhands.Session, or left out for one that is kept between calls"
        )
    return session


def _find_callers_session() -> Session | None:
    """In a call: the session that it belongs to, whose workers are to do it all."""
    return get_session() if place.in_worker or place.here.get() is not None else None
