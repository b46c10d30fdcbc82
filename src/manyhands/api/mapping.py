"""Maps on the current session: a function over many items, in batches that size themselves."""

from __future__ import annotations

from manyhands.core.signatures import ListMap, ListStarMap, StreamMap, typed
from manyhands.session import get_session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Unpack

    from manyhands.core.options import MapOptions


@typed(ListMap)
def map(
    fn: Callable[..., Any],
    iterable: Iterable[Any],
    /,
    *more: Iterable[Any],
    on_error: str = "raise",
    **options: Unpack[MapOptions],
) -> Any:
    """Call ``fn`` on every item in parallel and return the results in the input's order.

    Items travel in batches whose size follows the measured duration of an item: thousands of trivial ones
    together, long ones one by one.

    Parameters
    ----------
    fn
        Any callable: a function of a script, a notebook or the REPL, a lambda, a closure.
    iterable, *more
        As with the built-in `map`, `fn` gets one item of each, and the shortest ends the map. Lists, ranges and
        arrays travel as slices.
    on_error : {"raise", "return"}
        Whether the first error ends the map, or errors stand among the results.
    batch : int, optional
        Items per batch; left out, it follows the work.
    progress : bool
        Show a progress bar with rate, failures and time left.
    deadline : float, optional
        Seconds for the whole map. Past them all that is not done is cancelled, also where it runs, and
        `DeadlineError` is raised.
    timeout : float, optional
        Seconds for one item, from its start in a worker; see `manyhands.task`.
    **options
        The others of `manyhands.task`: retries and what belongs to them count for each item; cpus, gpus, memory,
        resources and priority hold for the batches that items travel in.

    Raises
    ------
    Exception
        Whatever `fn` raised, with its remote traceback and the item's index as notes. All that is not done is
        cancelled, also where it runs.
    WorkerDiedError
        An item has ended its workers more often than `worker_retries` allow. Where a worker dies, the other items of
        its batch run again, so an item that had ended in the same batch runs twice.

    Examples
    --------
    >>> import manyhands as mh
    >>> mh.map(lambda x: x * x, range(5))
    [0, 1, 4, 9, 16]
    >>> mh.map(pow, [2, 3], [5, 2])
    [32, 9]
    >>> mh.map(int, ["1", "x"], on_error="return")
    [1, ValueError("invalid literal for int() with base 10: 'x'")]
    """
    run: Any = get_session().map
    return run(fn, iterable, *more, on_error=on_error, **options)


@typed(ListStarMap)
def starmap(
    fn: Callable[..., Any],
    tuples: Iterable[tuple[Any, ...]],
    /,
    *,
    on_error: str = "raise",
    **options: Unpack[MapOptions],
) -> Any:
    """Call ``fn(*item)`` for every tuple in parallel and return the results in the input's order.

    Parameters and errors as in `map`.

    Examples
    --------
    >>> import manyhands as mh
    >>> mh.starmap(pow, [(2, 5), (3, 2)])
    [32, 9]
    """
    run: Any = get_session().starmap
    return run(fn, tuples, on_error=on_error, **options)


@typed(StreamMap)
def imap(
    fn: Callable[..., Any],
    iterable: Iterable[Any],
    /,
    *more: Iterable[Any],
    on_error: str = "raise",
    **options: Unpack[MapOptions],
) -> Any:
    """Call ``fn`` on every item in parallel and yield the results in the input's order, as they come.

    Parameters and errors as in `map`.

    Parameters
    ----------
    iterable, *more
        May be endless: at most a few batches per worker are read ahead, by the thread that consumes.

    Examples
    --------
    >>> import itertools
    >>> import manyhands as mh
    >>> squares = mh.imap(lambda x: x * x, itertools.count())
    >>> [next(squares) for _ in range(4)]
    [0, 1, 4, 9]
    >>> squares.close()
    """
    run: Any = get_session().imap
    return run(fn, iterable, *more, on_error=on_error, **options)


@typed(StreamMap)
def imap_unordered(
    fn: Callable[..., Any],
    iterable: Iterable[Any],
    /,
    *more: Iterable[Any],
    on_error: str = "raise",
    **options: Unpack[MapOptions],
) -> Any:
    """Call ``fn`` on every item in parallel and yield the results in the order in which they end.

    Parameters and errors as in `map` and `imap`.

    Examples
    --------
    >>> import manyhands as mh
    >>> sorted(mh.imap_unordered(abs, [-3, 1, -2]))
    [1, 2, 3]
    """
    run: Any = get_session().imap_unordered
    return run(fn, iterable, *more, on_error=on_error, **options)
