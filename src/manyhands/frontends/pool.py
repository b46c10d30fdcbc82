"""The door for programs written for `multiprocessing.Pool`."""

from __future__ import annotations

import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures._base import LOGGER
from itertools import islice
from multiprocessing import TimeoutError as PoolTimeoutError
from multiprocessing.pool import (  # type: ignore[attr-defined]  # the stub lacks them
    MaybeEncodingError,
    RemoteTraceback,
)
from time import monotonic
from typing import Generic, TypeVar

from manyhands.core.exceptions import adapt_exception
from manyhands.core.functions import check_callable
from manyhands.core.future import Future
from manyhands.core.mapping import Failure, Source, is_sliceable
from manyhands.core.outstanding import Outstanding, run_when_dropped
from manyhands.core.unattended import Feed, UnattendedMap, freeze
from manyhands.errors import InvalidArgumentError, UnpicklableError
from manyhands.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, Self

R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)

_AHEAD = 100_000
"""How many items of an `imap` may have been read whose results nobody has taken, until the pool is closed."""


class Pool:
    """The interface of `multiprocessing.Pool` on a session.

    All of its methods, with their meaning: every item of a map is run even where one fails; ``imap`` goes on behind an
    item that failed; leaving a ``with`` block terminates. Beyond them, functions of ``__main__`` and lambdas travel,
    a chunk size is a wish that may be left out, and a worker that dies costs one attempt at the call that it was at,
    where a `multiprocessing.Pool` waits for ever.

    Parameters
    ----------
    processes
        How many workers; left out, as many as this process may use cores.
    initializer, initargs
        A function run once in each worker before its first call, and its arguments.
    maxtasksperchild
        Calls, or chunks of a map, after which a worker is replaced by a fresh one.
    session
        The session to use, which stays open; left out, one of its own, which ends with the pool.

    Examples
    --------
    >>> import manyhands as mh
    >>> with mh.Pool(2) as pool:
    ...     pool.map(abs, [-1, -2]), pool.apply_async(pow, (2, 5)).get(timeout=60)
    ([1, 2], 32)
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        session: Session | None = None,
    ) -> None:
        self._state = "INIT"
        if session is not None and (processes or initializer or maxtasksperchild):
            raise InvalidArgumentError(
                "the session that was given has its workers already; say processes, initializer and maxtasksperchild "
                "to mh.Session (workers, initializer, max_calls_per_worker)"
            )
        if isinstance(processes, int) and processes < 1:
            raise InvalidArgumentError(f"processes must be at least 1, not {processes}")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild < 1
        ):
            raise InvalidArgumentError(
                f"maxtasksperchild must be a positive int or None, not {maxtasksperchild!r}"
            )
        self._session = session or Session(
            workers=processes,
            initializer=initializer,
            initargs=initargs,
            max_calls_per_worker=maxtasksperchild,
        )
        self._counts_calls = maxtasksperchild is not None
        self._outstanding = Outstanding(self._session, is_own=session is None)
        self._feeders: list[_Feeder] = []
        self._lock = threading.RLock()  # of that list
        weakref.finalize(self, _retire, self._outstanding).atexit = False
        self._state = "RUN"

    # One call.

    def apply(
        self, func: Callable[..., R], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}
    ) -> R:
        """``func(*args, **kwds)`` in a worker; waits for its result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[R]:
        """Have ``func(*args, **kwds)`` run by a worker, and return at once.

        Parameters
        ----------
        func, args, kwds
        callback, error_callback
            Called with the result, or with what was raised, before `AsyncResult.get` gives it.
        """
        args, kwds = tuple(args), dict(kwds)
        outstanding = self._outstanding
        outstanding.tickets.append(None)
        try:
            if outstanding.is_shut:
                self._check_running()
            future: Future[R] = self._session.start_call(func, args, kwds, make=_PoolFuture)
            outstanding.note(future.key)
        finally:
            outstanding.leave()
        return _CallResult(self, future, callback, error_callback)

    # Maps that give a list.

    def map(
        self, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[R]:
        """``func`` of each item, as a list in the items' order.

        Where items fail, the error of the first of them is raised once all have been run.

        Parameters
        ----------
        func
        iterable
        chunksize
            How many items travel together; left out, that follows how long an item takes.
        """
        result: AsyncResult[list[R]] = self._start_list(func, iterable, chunksize)
        return result.get()

    def starmap(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[R]:
        """`map` of a function of several arguments: each item is an iterable of them."""
        result: AsyncResult[list[R]] = self._start_list(func, iterable, chunksize, star=True)
        return result.get()

    def map_async(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[R]]:
        """`map` that returns at once; callbacks as of `apply_async`."""
        return self._start_list(func, iterable, chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[R]]:
        """`starmap` that returns at once; callbacks as of `apply_async`."""
        return self._start_list(func, iterable, chunksize, callback, error_callback, star=True)

    # Maps that give an iterator.

    def imap(
        self, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int = 1
    ) -> ResultIterator[R]:
        """An iterator over the results, in the items' order; work begins at once.

        An item that fails raises in its place, and the iterator goes on behind it. What is no list or the like is read
        in a thread of its own, as it comes, and no further than 100,000 items ahead of the results that were taken.

        Parameters
        ----------
        func
        iterable
        chunksize
            How many items travel together; 1 lets that follow how long an item takes.
        """
        return self._start_iterator(func, iterable, chunksize, is_ordered=True)

    def imap_unordered(
        self, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int = 1
    ) -> ResultIterator[R]:
        """`imap` whose results come as they are there."""
        return self._start_iterator(func, iterable, chunksize, is_ordered=False)

    # The end.

    def close(self) -> None:
        """Accept nothing more; what was submitted goes on."""
        if self._state == "RUN":
            self._state = "CLOSE"  # before it is shut: who finds it shut says so
            self._outstanding.shut()
            with self._lock:
                for feeder in self._feeders:
                    feeder.lift()

    def terminate(self) -> None:
        """End at once: what has not ended is cancelled, and whoever waits for it gets a CancelledError."""
        self._state = "TERMINATE"
        with self._lock:
            for feeder in self._feeders:
                feeder.stop()
        self._outstanding.abort()

    def join(self) -> None:
        """Wait until all that was submitted has ended, and the workers with it; only after `close` or `terminate`."""
        if self._state == "RUN":
            raise InvalidArgumentError("Pool is still running: close() or terminate() it before")
        if self._state == "CLOSE":
            for feeder in self._feeders:
                feeder.join()
        self._outstanding.finish()

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.terminate()

    def __del__(self) -> None:
        if self._state == "RUN":
            warnings.warn(
                f"unclosed running multiprocessing pool {self!r}",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        size = self._session.workers if hasattr(self, "_session") else 0
        return f"<manyhands.Pool state={self._state} pool_size={size}>"

    # How work is handed to the session.

    def _check_running(self) -> None:
        if self._state != "RUN":
            raise InvalidArgumentError(f"Pool not running: its state is {self._state}")

    def _enter(self) -> None:
        self._outstanding.tickets.append(None)
        try:
            self._check_running()
        except BaseException:
            self._outstanding.leave()
            raise

    def _start(self, unattended: UnattendedMap) -> None:
        self._outstanding.add_map(unattended)
        try:
            unattended.advance()
        except BaseException:
            unattended.cancel()
            raise

    def _start_list(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        star: bool = False,
    ) -> AsyncResult[Any]:
        check_callable(func)
        self._check_running()
        source = Source((freeze(iterable),))
        if not chunksize and self._counts_calls:  # as multiprocessing chooses it
            chunksize = -(-(source.count_remaining() or 1) // (4 * self._session.workers))
        self._enter()
        try:
            result = _MapResult(self, callback, error_callback)
            result.unattended = UnattendedMap(
                self._session, func, source, star=star, batch=chunksize or None, on_end=result.end
            )
            self._start(result.unattended)
        finally:
            self._outstanding.leave()
        return result

    def _start_iterator(
        self, func: Callable[..., R], iterable: Iterable[Any], chunksize: int, *, is_ordered: bool
    ) -> ResultIterator[R]:
        check_callable(func)
        if chunksize < 1:
            raise InvalidArgumentError(f"Chunksize must be 1+, not {chunksize}")
        batch = chunksize if chunksize > 1 or self._counts_calls else None
        if is_sliceable(iterable):
            source = Source((freeze(iterable),))
            unattended = UnattendedMap(
                self._session, func, source, batch=batch, on_end=self._outstanding.drop_map
            )
            feeder = None
        else:
            feeder = _Feeder(iter(iterable), chunksize, self._outstanding)
            unattended = feeder.unattended = UnattendedMap(
                self._session, func, feeder.feed, batch=batch, on_end=feeder.end
            )
        self._enter()
        try:
            self._start(unattended)
            if feeder is not None:
                with self._lock:
                    self._feeders = [*filter(_Feeder.is_alive, self._feeders), feeder]
                    feeder.start()
        finally:
            self._outstanding.leave()
        return ResultIterator(self, unattended, feeder, is_ordered=is_ordered)


class _PoolFuture(Future[R]):
    """A `manyhands.Future` that fails as a pool's results do."""

    __slots__ = ()

    def settle(self, value: Any, error: BaseException | None, load: Any) -> None:
        super().settle(value, None if error is None else _translate(error), load)


# --- results -----------------------------------------------------------------------------


class AsyncResult(Generic[T_co]):
    """What the ``_async`` methods of a `Pool` return: a result, perhaps not there yet."""

    __slots__ = ("__weakref__", "_callback", "_error_callback", "_is_told", "_pool", "_session")

    def __init__(
        self,
        pool: Pool,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._pool: Pool | None = pool  # which lives as long as a result is to come
        self._session = pool._session
        self._callback = callback
        self._error_callback = error_callback
        self._is_told = callback is None and error_callback is None

    def ready(self) -> bool:
        """Whether it has ended, and its callback with it."""
        return self._has_ended() and self._is_told

    def successful(self) -> bool:
        """Whether it has ended well.

        Raises
        ------
        ValueError
            It has not ended.
        """
        if not self.ready():
            raise InvalidArgumentError(f"{self!r} not ready")
        try:
            self._read()
        except BaseException:
            return False
        return True

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for `timeout` seconds."""
        self._session.wait_until(self.ready, timeout)

    def get(self, timeout: float | None = None) -> T_co:
        """The result, or raise what was raised; waits for it.

        Raises
        ------
        multiprocessing.TimeoutError
            It is not there after `timeout` seconds.
        concurrent.futures.CancelledError
            The pool was terminated.
        """
        if not self.ready():
            self.wait(timeout)
            if not self.ready():
                raise PoolTimeoutError(f"no result after {timeout} s")
        return self._read()

    def _tell(self) -> None:
        try:
            result = self._read()
        except CancelledError:
            pass  # nobody is told of that
        except BaseException as error:
            if self._error_callback is not None:
                self._error_callback(error)
        else:
            if self._callback is not None:
                self._callback(result)
        finally:
            self._is_told = True

    def _has_ended(self) -> bool:
        raise NotImplementedError

    def _read(self) -> T_co:
        raise NotImplementedError


class _CallResult(AsyncResult[R]):
    """Of one call."""

    __slots__ = ("_future",)

    def __init__(
        self,
        pool: Pool,
        future: Future[R],
        callback: Callable[[R], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        super().__init__(pool, callback, error_callback)
        self._future = future
        if not self._is_told:
            future.add_done_callback(lambda _: self._tell())

    def _has_ended(self) -> bool:
        return self._future.done()

    def _read(self) -> R:
        self._pool = None
        return self._future.result()


class _MapResult(AsyncResult[list[R]]):
    """Of a map."""

    __slots__ = ("_outstanding", "_values", "unattended")

    unattended: UnattendedMap

    def __init__(
        self,
        pool: Pool,
        callback: Callable[[list[R]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        super().__init__(pool, callback, error_callback)
        self._outstanding = pool._outstanding
        self._values: list[Any] | None = None

    def end(self, unattended: UnattendedMap) -> None:
        """All items have ended."""
        try:
            if not self._is_told:
                self._tell()
        except Exception:
            LOGGER.exception("a callback of %r failed", self)
        finally:
            self._outstanding.drop_map(unattended)

    def _has_ended(self) -> bool:
        return self.unattended.is_over

    def _read(self) -> list[R]:
        self._pool = None
        if self._values is None:
            self._values = self.unattended.collect()
        if self.unattended.has_failed:
            raise _translate(next(value.error for value in self._values if type(value) is Failure))
        return self._values


class ResultIterator(Iterator[T_co]):
    """What `Pool.imap` and `Pool.imap_unordered` return."""

    def __init__(
        self,
        pool: Pool,
        unattended: UnattendedMap,
        feeder: _Feeder | None,
        *,
        is_ordered: bool,
    ) -> None:
        self._pool: Pool | None = pool  # which lives as long as results are to come
        self._session = pool._session
        self._unattended = unattended
        self._feeder = feeder
        self._is_ordered = is_ordered
        self._lock = threading.Lock()
        self._turn = 0
        self._values: deque[Any] = deque()

    def next(self, timeout: float | None = None) -> T_co:
        """The next result, or raise what its item has raised.

        Raises
        ------
        StopIteration
        multiprocessing.TimeoutError
            It is not there after `timeout` seconds.
        concurrent.futures.CancelledError
            The pool was terminated.
        """
        ends_at = None if timeout is None else monotonic() + timeout
        while True:
            if not self._values:
                self._fetch(ends_at)
            try:
                value = self._values.popleft()
            except IndexError:  # another thread was quicker
                continue
            if self._feeder is not None:
                self._feeder.note_taken()
            if type(value) is Failure:
                raise _translate(value.error)
            result: T_co = value
            return result

    def __next__(self) -> T_co:
        return self.next()

    def __iter__(self) -> Self:
        return self

    def _fetch(self, ends_at: float | None) -> None:
        """Wait for results, and take them."""
        left = None if ends_at is None else max(0.0, ends_at - monotonic())
        self._session.wait_until(self._has_more, left)
        if ends_at is not None and monotonic() >= ends_at and not self._has_more():
            raise PoolTimeoutError("the next result is not there yet")
        unattended = self._unattended
        with self._lock:  # of several threads that take
            is_over = unattended.is_over  # before the look
            part = unattended.take(self._turn if self._is_ordered else None)
            if part is not None:
                self._turn += len(part)
                self._values.extend(part)
            elif is_over and not self._values:
                self._pool = None
                unattended.check_whole()
                raise StopIteration

    def _has_more(self) -> bool:
        if self._values or self._unattended.is_over:
            return True
        done = self._unattended.done
        return self._turn in done if self._is_ordered else bool(done)


class _Feeder(threading.Thread):
    """Reads the items of an `imap` as they come: they may wait for anything, and nothing may wait for them."""

    unattended: UnattendedMap

    def __init__(self, items: Iterator[Any], chunksize: int, outstanding: Outstanding) -> None:
        super().__init__(name="manyhands-feeder", daemon=True)
        self._items = items
        self._chunksize = chunksize
        self._outstanding = outstanding
        self._room = _AHEAD
        self._is_stopped = False
        self._change = threading.Condition()
        self.feed = Feed()

    def run(self) -> None:
        """Read to the end."""
        error = None
        try:
            while self._await_room() and (chunk := list(islice(self._items, self._chunksize))):
                with self._change:
                    self._room -= len(chunk)
                self.feed.add(chunk)
                self.unattended.advance()
        except BaseException as failure:
            error = failure
        if error is not None:
            self.unattended.fail_at(self.feed.count(), error)
        self.feed.end()
        self.unattended.advance()

    def note_taken(self) -> None:
        """One result more was taken."""
        with self._change:
            self._room += 1
            if self._room == 1:
                self._change.notify_all()

    def lift(self) -> None:
        """Read on, however many results wait to be taken."""
        with self._change:
            self._room = sys.maxsize
            self._change.notify_all()

    def stop(self) -> None:
        """Read no further."""
        with self._change:
            self._is_stopped = True
            self._change.notify_all()

    def end(self, unattended: UnattendedMap) -> None:
        """The map is over."""
        self.stop()
        self._outstanding.drop_map(unattended)

    def _await_room(self) -> bool:
        if self._room <= 0:
            with self._change:
                self._change.wait_for(lambda: self._room > 0 or self._is_stopped)
        return not self._is_stopped


# --- errors and the end ------------------------------------------------------------------


class EncodingError(UnpicklableError, MaybeEncodingError):  # type: ignore[misc]
    """A result that cannot travel, as pools have it."""

    def __init__(self, error: UnpicklableError) -> None:
        MaybeEncodingError.__init__(self, error, None)
        self.args = error.args

    __str__ = Exception.__str__


def _translate(error: BaseException) -> BaseException:
    """The error as `multiprocessing` has it."""
    if type(error) is UnpicklableError and error.__cause__ is None:  # a result
        return EncodingError(error)
    return adapt_exception(error, RemoteTraceback)


def _retire(outstanding: Outstanding) -> None:
    """A pool was dropped: it ends as by `terminate`."""
    if not outstanding.is_shut:
        run_when_dropped(outstanding.abort)
