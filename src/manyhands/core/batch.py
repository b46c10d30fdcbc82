"""What runs a batch of a map's items in a worker."""

from __future__ import annotations

import sys
from itertools import islice, starmap
from time import perf_counter

from manyhands.core.exceptions import pack_exception

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    BatchResult = tuple[list[Any], list[tuple[int, bytes]], float]

_SLICE_SECONDS = 0.0005
"""How often a batch looks at the clock."""

_SLICE_ITEMS = 128
"""Items between two looks at the clock at most; a look costs 0.5 µs, so 4 ns an item."""


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
        total = min(map(len, columns))
        results = starmap(self.fn, columns[0]) if self.star else map(self.fn, *columns)
        extend, deadline = values.extend, self.budget or float("inf")
        size = 1
        begin = look = perf_counter()
        deadline += begin
        while (start := len(values)) < total:
            stop = min(start + size, total)
            try:
                extend(
                    islice(results, stop - start)
                )  # one by one: what was done before an error is kept
                if len(values) < stop:
                    raise RuntimeError("the function raised StopIteration")
            except Exception as error:
                failures.append((len(values), pack_exception(error, skip=1)))
                values.append(None)
                if not self.keep_going:
                    break
            now = perf_counter()
            if now > deadline:
                break
            size = min(_SLICE_ITEMS, size * 2) if now - look < _SLICE_SECONDS else max(1, size // 2)
            look = now
        _await_futures(values, failures)
        return values, failures, perf_counter() - begin


def _await_futures(values: list[Any], failures: list[tuple[int, bytes]]) -> None:
    """Where items have returned futures, as calls may, put the futures' results in their places."""
    module = sys.modules.get("manyhands.core.future")
    if module is None or not any(
        issubclass(kind, module.Future) for kind in set(map(type, values))
    ):
        return
    for place, value in enumerate(values):
        if isinstance(value, module.Future):
            try:
                values[place] = value.result()
            except Exception as error:
                failures.append((place, pack_exception(error, skip=1)))
                values[place] = None
    failures.sort(key=lambda failure: failure[0])


class CoroutineBatch(Batch):
    """The same for a function that is ``async``: the items run together, on the event loop of the worker."""

    async def __call__(self, *columns: Any) -> BatchResult:  # type: ignore[override]
        """Run the function over the items; see `Batch`."""
        import asyncio

        items = columns[0] if self.star else zip(*columns, strict=False)
        begin = perf_counter()
        outcomes = await asyncio.gather(*(self.fn(*item) for item in items), return_exceptions=True)
        values: list[Any] = []
        failures: list[tuple[int, bytes]] = []
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                failures.append((place, pack_exception(outcome, skip=1)))
                values.append(None)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                values.append(outcome)
        return values, failures, perf_counter() - begin
