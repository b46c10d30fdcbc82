"""The door for programs written for `concurrent.futures`."""

from __future__ import annotations

import multiprocessing  # noqa: F401 - with it loaded, workers learn the key of its managers
import threading
import weakref
from concurrent.futures import BrokenExecutor
from concurrent.futures import Executor as _StandardExecutor
from functools import cache
from itertools import islice
from time import monotonic

from manyhands.core.exceptions import adapt_exception
from manyhands.core.functions import check_callable
from manyhands.core.future import Future
from manyhands.core.mapping import Failure, Source
from manyhands.core.outstanding import Outstanding, run_when_dropped
from manyhands.core.unattended import Feed, UnattendedMap, freeze
from manyhands.errors import InvalidArgumentError, WorkerStartError
from manyhands.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, NoReturn, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")


class ExecutorFuture(Future["R"]):
    """A `manyhands.Future` that fails as those of `concurrent.futures` do."""

    __slots__ = ()

    def settle(self, value: Any, error: BaseException | None, load: Any) -> None:
        """End the future; see `manyhands.Future`."""
        super().settle(value, None if error is None else _translate(error), load)


class Executor(_StandardExecutor):
    """A `concurrent.futures.Executor` on a session: in place of a ProcessPoolExecutor, or of a ThreadPoolExecutor.

    It keeps that contract: `submit`, `map` and `shutdown`, in a ``with`` block or not, from any thread. A call that
    fails raises its own exception, whose ``__cause__`` holds the remote traceback. Beyond the contract,
    functions of ``__main__`` and lambdas travel, no guard of ``__main__`` is needed, and a worker that dies costs one
    attempt at the call that it was at: the executor goes on.

    Parameters
    ----------
    max_workers
        How many; left out, as many as this process may use cores.
    initializer, initargs
        A function run once in each worker before its first call, and its arguments. Where it fails, what was
        submitted and what will be fails with a `concurrent.futures.BrokenExecutor`, which is a `WorkerStartError` too.
    max_tasks_per_child
        Calls after which a worker is replaced by a fresh one.
    session
        The session to use, which stays open; left out, one of its own, which ends with `shutdown`.

    Examples
    --------
    >>> import manyhands as mh
    >>> with mh.Executor(max_workers=2) as executor:
    ...     future = executor.submit(pow, 2, 10)
    ...     future.result(), list(executor.map(abs, [-1, -2]))
    (1024, [1, 2])
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        max_tasks_per_child: int | None = None,
        session: Session | None = None,
    ) -> None:
        given = {
            "max_workers": max_workers,
            "initializer": initializer,
            "initargs": initargs or None,
            "max_tasks_per_child": max_tasks_per_child,
        }
        if session is not None and any(value is not None for value in given.values()):
            names = ", ".join(name for name, value in given.items() if value is not None)
            raise InvalidArgumentError(
                f"{names}: the session that was given has its workers already; say it to mh.Session"
            )
        if isinstance(max_workers, int) and max_workers <= 0:
            raise InvalidArgumentError(f"max_workers must be greater than 0, not {max_workers}")
        if session is None:
            self._session = Session(
                workers=max_workers,
                initializer=initializer,
                initargs=initargs,
                max_calls_per_worker=max_tasks_per_child,
            )
        else:
            self._session = session
        self._counts_calls = max_tasks_per_child is not None
        self._outstanding = Outstanding(self._session, is_own=session is None)
        self._max_workers = self._session.workers  # Dask reads it of any executor that it is given
        with _live_lock:
            _live.add(self._outstanding)
        weakref.finalize(self, _retire, self._outstanding).atexit = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have ``fn(*args, **kwargs)`` run by a worker, and return at once.

        Raises
        ------
        RuntimeError
            After `shutdown`, or while the interpreter ends.
        BrokenExecutor
            The workers' initializer has failed.
        """
        outstanding = self._outstanding
        outstanding.tickets.append(None)
        try:
            if outstanding.is_shut or _is_exiting:
                self._refuse()
            future: Future[R] = self._session.start_call(fn, args, kwargs, make=ExecutorFuture)
            outstanding.note(future.key)
        finally:
            outstanding.leave()
        if future._error is not None and isinstance(future._error, BrokenExecutor):
            raise future._error  # so soon: it had broken before
        return future

    def map(
        self,
        fn: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """An iterator over the results of ``fn`` on the items, in their order; the items are run at once.

        An item that fails raises in its place, and what has not started by then is cancelled.

        Parameters
        ----------
        fn
        iterables
            For each argument of `fn`, its values, all read at once; the shortest ends the map.
        timeout
            Seconds from this call, after which the iterator raises TimeoutError and cancels what has not started.
        chunksize
            How many items travel together; 1 lets that follow how long an item takes.
        buffersize
            How many items may be submitted whose results have not been taken yet; the iterables are then read as
            results are taken, and may be endless. Left out, there is no limit.
        """
        ends_at = None if timeout is None else monotonic() + timeout
        _check_map(fn, chunksize, buffersize)
        star = len(iterables) != 1
        items = zip(*iterables) if star else iterables[0]  # noqa: B905 - the shortest ends it
        batch = chunksize if chunksize > 1 or self._counts_calls else None
        window = None if buffersize is None else _Window(items, buffersize)
        source = Source((freeze(items),)) if window is None else window.feed
        outstanding = self._outstanding
        outstanding.tickets.append(None)
        try:
            if outstanding.is_shut or _is_exiting:
                self._refuse()
            unattended = UnattendedMap(
                self._session, fn, source, star=star, batch=batch, on_end=outstanding.drop_map
            )
            outstanding.add_map(unattended, None if window is None else window.feed)
            try:
                if window is not None:
                    window.refill(0)
                unattended.advance()
            except BaseException:
                unattended.cancel()
                raise
        finally:
            outstanding.leave()
        results = _iterate(unattended, window, ends_at)
        if window is not None:
            weakref.finalize(results, _end_input, unattended, window.feed).atexit = False
        return results

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more, and free the workers once what was submitted has ended.

        Parameters
        ----------
        wait
            Whether to return only then.
        cancel_futures
            Whether what has not started is cancelled.
        """
        outstanding = self._outstanding
        is_first = outstanding.shut()
        if cancel_futures:
            # The oldest have begun, or are about to.
            outstanding.cancel(running=False, but=self._max_workers)
        if wait:
            outstanding.finish()
        elif is_first:
            run_when_dropped(outstanding.finish)

    def __repr__(self) -> str:
        state = "shut down" if self._outstanding.is_shut else "open"
        return (
            f"<manyhands.Executor on {self._session.engine}, {self._max_workers} workers, {state}>"
        )

    def _refuse(self) -> NoReturn:
        what = "interpreter shutdown" if _is_exiting else "shutdown"
        raise RuntimeError(f"cannot schedule new futures after {what}")


def _check_map(fn: object, chunksize: int, buffersize: int | None) -> None:
    if not callable(fn):
        check_callable(fn)
    if chunksize < 1:
        raise InvalidArgumentError(f"chunksize must be >= 1, not {chunksize}")
    if buffersize is not None and (not isinstance(buffersize, int) or isinstance(buffersize, bool)):
        raise TypeError(f"buffersize must be an integer or None, not {buffersize!r}")
    if buffersize is not None and buffersize < 1:
        raise InvalidArgumentError(f"buffersize must be None or > 0, not {buffersize}")


class _Window:
    """Reads the items of a map as its results are taken: so many are under way at most."""

    def __init__(self, items: Iterable[Any], size: int) -> None:
        self._items = iter(items)
        self._room = size
        self._is_read = False  # whether there are no more items
        self.feed = Feed()

    def refill(self, taken: int) -> None:
        """So many results were taken.

        Raises
        ------
        RuntimeError
            There are more items, and they are not accepted any more.
        """
        if self._is_read:
            return
        self._room += taken
        items = list(islice(self._items, self._room))
        self._is_read = len(items) < self._room
        if items and self.feed.is_ended:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.feed.add(items)
        if self._is_read:
            self.feed.end()
        self._room -= len(items)


def _iterate(
    unattended: UnattendedMap, window: _Window | None, ends_at: float | None
) -> Generator[Any, None, None]:
    turn = 0
    try:
        while True:
            left = None if ends_at is None else ends_at - monotonic()
            values = unattended.await_part(turn, left)
            if values is None:
                return
            turn += len(values)
            values.reverse()
            while values:  # nothing here keeps a result that was handed out
                if type(values[-1]) is Failure:
                    raise _translate(values.pop().error)
                if window is not None:
                    window.refill(1)
                    unattended.advance()
                yield values.pop()
    except GeneratorExit:
        # Perhaps by the garbage collector, which may come amid anything: nothing is waited for here.
        if not unattended.is_over:
            run_when_dropped(unattended.cancel)
        raise
    except BaseException:
        unattended.cancel()
        raise


def _end_input(unattended: UnattendedMap, feed: Feed) -> None:
    """The iterator of a map with a window was dropped, perhaps before it began: nobody will ask for more."""
    if not unattended.is_over:
        feed.end()
        run_when_dropped(unattended.advance)


# --- errors ------------------------------------------------------------------------------


def _translate(error: BaseException) -> BaseException:
    """The error as `concurrent.futures` has it."""
    if isinstance(error, WorkerStartError):
        broken = _get_broken_class()(*error.args)
        broken.__cause__ = error.__cause__
        return broken
    return adapt_exception(error, _make_cause)


def _make_cause(text: str) -> BaseException:
    from concurrent.futures.process import _RemoteTraceback  # it loads much of multiprocessing

    return _RemoteTraceback(text)  # type: ignore[arg-type]  # the stub is wrong


@cache
def _get_broken_class() -> type[BaseException]:
    from concurrent.futures.process import BrokenProcessPool

    class BrokenWorkersError(WorkerStartError, BrokenProcessPool):
        """The workers cannot be started, or their initializer failed: nothing will run any more."""

    return BrokenWorkersError


# --- the end -----------------------------------------------------------------------------

_live: weakref.WeakSet[Outstanding] = weakref.WeakSet()
_live_lock = threading.Lock()
_is_exiting = False


def _retire(outstanding: Outstanding) -> None:
    """An executor was dropped: what it has submitted goes on, and its session ends after that."""
    if not _is_exiting and not outstanding.is_shut:
        run_when_dropped(outstanding.retire)


def _finish_all() -> None:
    """The interpreter ends, which waits for what executors have submitted."""
    global _is_exiting
    _is_exiting = True
    with _live_lock:
        left = list(_live)
    for outstanding in left:
        outstanding.shut()
        outstanding.wait()


# As the standard executors do: before the interpreter waits for its threads, which nothing public offers.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
