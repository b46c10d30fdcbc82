"""Pure: which calls go to the cluster now, where a session uses fewer workers than there are."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Gate:
    """Lets so many calls through at a time; those of a higher priority first, else in their order.

    Parameters
    ----------
    limit
        None for no limit.

    Examples
    --------
    >>> gate = Gate(1)
    >>> gate.admit(1, 0), gate.admit(2, 0), gate.admit(3, 5)
    (True, False, False)
    >>> gate.leave(1), gate.leave(3)
    ([3], [2])
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._inside: set[int] = set()
        self._waiting: list[tuple[int, int, int]] = []
        self._outside: set[int] = set()
        self._order = count()

    @property
    def is_limited(self) -> bool:
        """Whether any call may have to wait."""
        return self._limit is not None

    def admit(self, key: int, priority: int) -> bool:
        """Whether a call goes at once; else it waits for its turn."""
        if self._limit is None:
            return True
        if len(self._inside) < self._limit:
            self._inside.add(key)
            return True
        heappush(self._waiting, (-priority, next(self._order), key))
        self._outside.add(key)
        return False

    def leave(self, key: int) -> list[int]:
        """A call has ended, or needs no worker any more; those that go now."""
        self._outside.discard(key)
        if key not in self._inside:
            return []
        self._inside.discard(key)
        while self._waiting:
            _, _, other = heappop(self._waiting)
            if other in self._outside:
                self._outside.discard(other)
                self._inside.add(other)
                return [other]
        return []

    def withdraw(self, keys: Iterable[int]) -> None:
        """These do not wait any more."""
        self._outside.difference_update(keys)
