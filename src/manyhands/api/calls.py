"""Single calls on the current session, and waiting for several: `submit`, `gather`, `wait`, `as_completed`."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, ParamSpec, TypeVar, overload

from manyhands.core.options import check_on_error, check_seconds
from manyhands.core.signatures import Submit, typed
from manyhands.errors import DeadlineError, InvalidArgumentError
from manyhands.session import get_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from manyhands.core.future import Future

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

_SLICE_SECONDS = 0.01
"""How long to wait with one of several sessions before looking at what the others brought."""

_RETURN_WHEN = ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION")


class Waited(NamedTuple, Generic[R]):
    """What `wait` found: futures that are done, and the others."""

    done: set[Future[R]]
    not_done: set[Future[R]]


@typed(Submit)
def submit(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
    """Have ``fn(*args, **kwargs)`` run by a worker, and return at once.

    Parameters
    ----------
    fn
        Any callable.
    *args, **kwargs
        Its arguments, as they are now; those of a call that waits for inputs, as they are when the inputs are
        there. A future among them, also inside lists, tuples and dicts, stands for its result: the call waits for
        it, and fails with `DependencyError` where it failed.

    Returns
    -------
    Future
        What does not travel (an argument that cannot be pickled) is the future's error.

    Raises
    ------
    NotCallableError, SessionClosedError

    Examples
    --------
    >>> import manyhands as mh
    >>> two = mh.submit(abs, -2)
    >>> mh.submit(pow, two, 10).result()
    1024
    """
    return get_session().submit(fn, *args, **kwargs)


@overload
def gather(
    futures: Iterable[Future[R]],
    *,
    on_error: Literal["raise"] = ...,
    timeout: float | None = ...,
    deadline: float | None = ...,
) -> list[R]: ...


@overload
def gather(
    futures: Iterable[Future[R]],
    *,
    on_error: Literal["return"],
    timeout: float | None = ...,
    deadline: float | None = ...,
) -> list[R | BaseException]: ...


def gather(
    futures: Iterable[Future[Any]],
    *,
    on_error: str = "raise",
    timeout: float | None = None,
    deadline: float | None = None,
) -> list[Any]:
    """Wait for all futures; their results in the same order.

    Parameters
    ----------
    futures
        Of any sessions.
    on_error : {"raise", "return"}
        Whether an error is raised, the first in the order of `futures`, or stands among the results.
    timeout
        Seconds for all together; what is not done then goes on.
    deadline
        The same, and what is not done then is cancelled, also where it runs.

    Raises
    ------
    TimeoutError
        The `timeout` is over.
    DeadlineError
        The `deadline` is.
    Exception
        What a call raised.

    Examples
    --------
    >>> import manyhands as mh
    >>> mh.gather([mh.submit(abs, x) for x in (-1, -2)])
    [1, 2]
    """
    keeps = check_on_error(on_error)
    if check_seconds(deadline, "deadline") is None:
        return _gather(futures, timeout, keeps=keeps)
    waiting = list(futures)
    limit = deadline if timeout is None else min(timeout, deadline or timeout)
    ends_at = monotonic() + (limit or 0.0)
    try:
        return _gather(waiting, limit, keeps=keeps)
    except TimeoutError:
        late = [future for future in waiting if not future.done()]
        if not late or limit != deadline or monotonic() < ends_at:  # it may be a call's own
            raise
        # All at once: else the next one would begin when the first is interrupted.
        for owner in {id(future.owner): future.owner for future in late}.values():
            owner.cancel_calls([one for one in late if one.owner is owner], running=True)
        raise DeadlineError(
            f"{len(late)} of {len(waiting)} calls were not done after {deadline} s, and are cancelled: {late[0]!r}"
            + (" and others" if len(late) > 1 else "")
        ) from None


def _gather(futures: Iterable[Future[Any]], timeout: float | None, *, keeps: bool) -> list[Any]:
    end = None if timeout is None else monotonic() + timeout
    results = []
    for future in futures:
        left = None if end is None else max(0.0, end - monotonic())
        error = future.exception(left)
        if error is not None and keeps:
            results.append(error)
        else:
            results.append(future.result(left))
    return results


def wait(
    futures: Iterable[Future[R]],
    timeout: float | None = None,
    return_when: Literal["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"] = "ALL_COMPLETED",
) -> Waited[R]:
    """Wait until futures are done, without raising what they raised.

    Parameters
    ----------
    futures
        Of any sessions.
    timeout
        Seconds; when they are over, what is done by then is returned.
    return_when : {"ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"}
        As in `concurrent.futures.wait`.

    Returns
    -------
    Waited
        Two sets, ``done`` and ``not_done``.

    Examples
    --------
    >>> import manyhands as mh
    >>> done, not_done = mh.wait([mh.submit(abs, -1), mh.submit(abs, -2)])
    >>> len(done), len(not_done)
    (2, 0)
    """
    if return_when not in _RETURN_WHEN:
        raise InvalidArgumentError(
            f"return_when={return_when!r}: it is one of {', '.join(_RETURN_WHEN)}"
        )
    waiting = set(futures)
    done: set[Future[R]] = set()
    if return_when == "FIRST_COMPLETED":
        done = {future for future in waiting if future.done()}
        if done:
            return Waited(done, waiting - done)
    for future in _iterate_done(waiting, timeout):
        done.add(future)
        failed = (
            not future.cancelled()
            and return_when == "FIRST_EXCEPTION"
            and future.peek_error() is not None
        )
        if return_when == "FIRST_COMPLETED" or failed:
            break
    done |= {future for future in waiting if future.done()}
    return Waited(done, waiting - done)


def as_completed(futures: Iterable[Future[R]], timeout: float | None = None) -> Iterator[Future[R]]:
    """Yield each future once it is done, in the order in which they end.

    Parameters
    ----------
    futures
        Of any sessions; one that stands in it twice is yielded once.
    timeout
        Seconds for all together.

    Raises
    ------
    TimeoutError
        The time is over and some are not done.

    Examples
    --------
    >>> import manyhands as mh
    >>> sorted(future.result() for future in mh.as_completed([mh.submit(abs, x) for x in (-1, -2)]))
    [1, 2]
    """
    waiting = set(futures)
    missing = len(waiting)
    for future in _iterate_done(waiting, timeout):
        missing -= 1
        yield future
    if missing:
        raise TimeoutError(f"{missing} of {len(waiting)} futures are not done after {timeout} s")


def _iterate_done(futures: set[Future[R]], timeout: float | None) -> Iterator[Future[R]]:
    """Each future once it is done; ends early when `timeout` seconds are over."""
    deadline = None if timeout is None else monotonic() + timeout
    done: deque[Future[R]] = deque()
    note = done.append
    for future in futures:
        future.notify(note)
    waiting = set(futures)
    slices = _SLICE_SECONDS if len({future.owner for future in futures}) > 1 else None
    if slices is not None:
        for future in futures:
            future.owner.attend()
    try:
        while waiting:
            while done:
                future = done.popleft()
                waiting.discard(future)
                yield future
            if not waiting:
                return
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return
            limit = left if slices is None else min(slices, slices if left is None else left)
            next(iter(waiting)).owner.wait_until(lambda: bool(done), limit)
    finally:
        for future in waiting:  # who asks again and again must not leave something behind each time
            future.unnotify(note)
