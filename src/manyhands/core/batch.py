"""What runs a batch of a map's items in a worker."""

from __future__ import annotations

from itertools import starmap
from time import perf_counter

from manyhands.core.exceptions import pack_exception

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    BatchResult = tuple[list[Any], list[tuple[int, bytes]], float]

_SLICE_SECONDS = 0.0005
"""How often a batch looks at the clock."""

_SLICE_ITEMS = 64
"""Items between two looks at the clock at most; with 64 a look costs 8 ns an item."""


class Batch:
    """Runs a function over items, as many as fit its time.

    Parameters
    ----------
    fn
        The user's function.
    name
        What errors call it.
    star
        Whether each item is a tuple of arguments.
    keep_going
        Whether to go on after an item failed.
    budget
        Seconds after which the rest is left undone; None to run all. What one worker leaves undone another can
        do: a batch was sized by the items before it, and these may be slower.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        *,
        star: bool,
        keep_going: bool,
        budget: float | None,
    ) -> None:
        self.fn = fn
        self.star = star
        self.keep_going = keep_going
        self.budget = budget
        self.__qualname__ = name

    def __call__(self, *columns: Any) -> BatchResult:
        """Run the function over the items.

        Parameters
        ----------
        columns
            For each argument of the function, as many values as there are items.

        Returns
        -------
        values : list
            Of the items done, in order; None for one that failed.
        failures : list of (int, bytes)
            Position and packed exception of each item that failed.
        seconds : float
        """
        values: list[Any] = []
        failures: list[tuple[int, bytes]] = []
        total = min(len(column) for column in columns)
        begin = look = perf_counter()
        size = 1
        while len(values) < total:
            start = len(values)
            stop = min(total, start + size)
            try:
                self._extend(values, columns, start, stop)
            except Exception as error:
                # Two frames of ours stand above the user's.
                failures.append((len(values), pack_exception(error, skip=2)))
                values.append(None)
                if not self.keep_going:
                    break
            now = perf_counter()
            if self.budget is not None and now - begin > self.budget:
                break
            size = min(_SLICE_ITEMS, size * 2) if now - look < _SLICE_SECONDS else max(1, size // 2)
            look = now
        return values, failures, perf_counter() - begin

    def _extend(self, values: list[Any], columns: tuple[Any, ...], start: int, stop: int) -> None:
        """Append the values of the items from `start` to `stop`, as far as they go."""
        slices = [column[start:stop] for column in columns]
        if self.star:
            values.extend(starmap(self.fn, slices[0]))
        else:
            values.extend(map(self.fn, *slices))  # appends one by one, so what was done is kept
        if len(values) < stop:
            raise RuntimeError("the function raised StopIteration")
