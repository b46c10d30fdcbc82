"""Bags of elements that the program has: in how many partitions is measured."""

from __future__ import annotations

from pickle import dumps, loads
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from manyhands.errors import DoorNotInstalledError, InvalidArgumentError
from manyhands.frontends.dask.arrival import dask_scheduler

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dask.bag import Bag

T = TypeVar("T")

_LEAST = 4
"""Partitions for each worker: with as many, one that is left at the end keeps the others waiting for an eighth of the
time at most, if partitions take equally long."""

_MOST = 16
"""Partitions for each worker, beyond which nothing is gained but by smaller memory."""

_COST_SECONDS = 0.0015
"""What one partition costs: its nodes in Dask's graph, its call and its result."""

_WORTH = 10
"""How many times as long it should take to move a partition, where elements are quick to work on."""

_BYTES = 1 << 26
"""A partition should have no more: some are in memory at a time, as they are and as what becomes of them."""

_SAMPLES = (1, 16, 256)
"""Elements that are moved to see how long it takes: more of them where that was quick."""

_SAMPLE_SECONDS = 0.001
"""What is not quick."""


def bag(xs: Iterable[Any], *, partitions: int | None = None) -> Bag:
    """A bag of Dask's with the elements of an iterable, in sensible partitions.

    Parameters
    ----------
    xs
        Its elements are taken at once, so it must end. Those of a `range` are made where they are used.
    partitions
        In how many parts, of about equal length, the elements travel and are worked on. Left out, it is four to sixteen
        for each worker, the more the longer it takes to move the elements, which is measured with some of them; more
        where a part would have over 64 MiB; never more than elements.

    Returns
    -------
    dask.bag.Bag
        Its order is that of `xs`. Without elements it has one partition.

    Raises
    ------
    DoorNotInstalledError
        Without Dask.
    InvalidArgumentError
        For `partitions` below one, and for `xs` that cannot be iterated over.

    Examples
    --------
    >>> import manyhands as mh
    >>> words = "many hands make light work".split()
    >>> with mh.Session(workers=2):
    ...     dict(mh.bag(words).groupby(len).compute())
    {5: ['hands', 'light'], 4: ['many', 'make', 'work']}
    """
    try:
        from dask._task_spec import DataNode
        from dask.bag import Bag
    except ModuleNotFoundError as missing:
        raise DoorNotInstalledError(
            "mh.bag needs Dask, which is not installed here: pip install 'manyhands[dask]'"
        ) from missing
    elements = _take(xs)
    if partitions is None:
        partitions = choose_partitions(len(elements), *_find_workers(elements))
    elif type(partitions) is not int or partitions < 1:
        raise InvalidArgumentError(
            f"partitions={partitions!r}: it is a whole number from 1 on, or left out for one that is measured"
        )
    count = max(min(partitions, len(elements)), 1)
    name = f"bag-{uuid4().hex}"
    bounds = [len(elements) * place // count for place in range(count + 1)]
    # As data, and so not searched for other keys by Dask, element by element.
    graph = {
        (name, place): DataNode((name, place), elements[bounds[place] : bounds[place + 1]])
        for place in range(count)
    }
    return Bag(graph, name, count)


def choose_partitions(elements: int, workers: int, seconds: float, size: float) -> int:
    """In how many partitions elements are moved and worked on.

    Parameters
    ----------
    elements
        How many there are.
    workers
        That work on them.
    seconds
        In which all elements are pickled and unpickled once.
    size
        In bytes, of all of them as pickles.
    """
    worth = int(seconds / (_WORTH * _COST_SECONDS))
    count = min(max(worth, _LEAST * workers), _MOST * workers)
    return max(min(max(count, int(-(-size // _BYTES))), elements), 1)


def _take(xs: Iterable[T]) -> Sequence[T]:
    if type(xs) in (list, tuple, range):
        return xs  # type: ignore[return-value]
    try:
        return list(xs)
    except TypeError:
        if hasattr(type(xs), "__iter__") or hasattr(type(xs), "__getitem__"):
            raise  # by its iterator
        raise InvalidArgumentError(
            f"mh.bag takes an iterable of elements, not {type(xs).__name__}: put a single element in a list"
        ) from None


def _find_workers(elements: Sequence[Any]) -> tuple[int, float, float]:
    """How many workers there will be, and what it takes to move the elements to them: seconds and bytes."""
    if not dask_scheduler:  # then Dask computes the bag
        from dask.system import CPU_COUNT

        return CPU_COUNT, *measure(elements)
    from manyhands.session import get_session

    session = get_session()
    moving = measure(elements) if session.capabilities.pickles else (0.0, 0.0)
    return session.workers, *moving


def measure(elements: Sequence[Any]) -> tuple[float, float]:
    """Seconds for pickling and unpickling all elements, and bytes of them, by a sample of them."""
    if not elements or type(elements) is range:
        return 0.0, 0.0
    seconds = size = 0.0
    for count in _SAMPLES:
        step = max(len(elements) // count, 1)
        sample = [elements[place] for place in range(0, len(elements), step)[:count]]
        buffers: list[Any] = []
        begin = perf_counter()
        try:
            pickle = dumps(sample, 5, buffer_callback=buffers.append)
            loads(pickle, buffers=buffers)
        except Exception:  # by value, or not at all: then the call says what is wrong
            return 0.0, 0.0
        spent = perf_counter() - begin
        seconds = spent / len(sample) * len(elements)
        size = (len(pickle) + sum(buffer.raw().nbytes for buffer in buffers)) / len(sample)
        if spent > _SAMPLE_SECONDS:
            break
    return seconds, size * len(elements)
