"""Pure: how many items the next batch of a map takes."""

from __future__ import annotations

Pace = tuple[float, float, int]
"""Items and seconds that count, and the size of the largest batch."""

TARGET_SECONDS = 0.004
"""Work in a batch. A batch costs about 0.1 ms of overhead, so 4 ms keep it under 3 %; and nobody waits at the
end of a map for longer than a batch takes."""

GROWTH = 16
"""By which factor a batch may exceed the largest one measured: an estimate from few items may be far off."""

MEMORY = 0.5
"""Weight that older batches keep with every new one: a slow first call is forgotten after a few."""

_LEAST_SHARE = 1 / 8
"""Of that, the work in a batch at the end of an input, below which it would cost more than evening out is worth."""

_SPLIT = 4
"""Batches that the rest of the input is cut into for each worker, so that uneven ones even out."""


class BatchSizer:
    """Follows the measured duration of items and sizes batches by it.

    Parameters
    ----------
    workers
        Those that share the work.
    fixed
        The size that the user asked for; None to let it follow the measurements.
    pace
        What an earlier sizer for the same function had measured.
    target
        Work in a batch, in seconds: more where a batch costs more by itself.

    Examples
    --------
    >>> sizer = BatchSizer(workers=2)
    >>> sizer.choose()
    1
    >>> sizer.observe(items=1, seconds=1e-6)
    >>> sizer.choose()
    16
    """

    def __init__(
        self,
        workers: int,
        fixed: int | None = None,
        pace: Pace | None = None,
        target: float = TARGET_SECONDS,
    ) -> None:
        self._workers = workers
        self._fixed = fixed
        self._target = target
        self._items, self._seconds, self._largest = pace or (0.0, 0.0, 0)

    @property
    def pace(self) -> Pace | None:
        """What it has measured, for a later one; None where it was not to follow that, or has measured nothing."""
        if self._fixed is not None or not self._items:
            return None
        return self._items, self._seconds, self._largest

    @property
    def seconds_per_item(self) -> float | None:
        """The estimate in force; None before the first measurement."""
        return self._seconds / self._items if self._items else None

    def observe(self, items: int, seconds: float) -> None:
        """Take in a finished batch of `items` items that ran for `seconds` in its worker."""
        if items <= 0:
            return
        self._items = self._items * MEMORY + items
        self._seconds = self._seconds * MEMORY + seconds
        self._largest = max(self._largest, items)

    def choose(self, remaining: int | None = None) -> int:
        """The size of the next batch, at least 1.

        Parameters
        ----------
        remaining
            Items left of the input, where that is known.
        """
        if self._fixed is not None:
            return self._fixed
        if self.seconds_per_item is None:
            return 1
        size = min(self._largest * GROWTH, self._count_items(self._target))
        if remaining is not None:
            share = remaining // (self._workers * _SPLIT)
            size = min(size, max(share, self._count_items(self._target * _LEAST_SHARE)))
        return max(1, int(size))

    def _count_items(self, seconds: float) -> float:
        """Items that take so long by the estimate."""
        each = self.seconds_per_item
        return seconds / each if each else float("inf")
