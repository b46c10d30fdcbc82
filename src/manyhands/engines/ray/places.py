"""Pure: which calls of a session may compute now, where some have waited and others ran in their place meanwhile.

Ray lets a call that has waited go on at once, whoever has its cpu by then.
"""

from __future__ import annotations

from collections import deque


class Places:
    """Counts stays: the stretches of calls in which these compute.

    Examples
    --------
    >>> places = Places()
    >>> _ = places.set_total(1)
    >>> places.ask("a", "here", has_waited=False), places.ask("b", "here", has_waited=False)
    (True, False)
    >>> places.ask("c", "there", has_waited=True)
    False
    >>> places.leave("a"), places.leave("c")
    (['c'], ['b'])
    """

    def __init__(self) -> None:
        self._total = 1
        self._taken: dict[str, str] = {}
        self._returning: deque[tuple[str, str]] = deque()
        self._fresh: deque[tuple[str, str]] = deque()

    def set_total(self, total: int) -> list[str]:
        """There are so many places; the stays that get one now."""
        self._total = total
        return self._hand_out()

    def add(self, stay: str, station: str) -> None:
        """A stay has begun, whether there was a place or not."""
        self._taken[stay] = station

    def ask(self, stay: str, station: str, *, has_waited: bool) -> bool:
        """Whether a stay of a call may begin at once; else it waits for its turn."""
        if len(self._taken) < self._total:
            self._taken[stay] = station
            return True
        (self._returning if has_waited else self._fresh).append((stay, station))
        return False

    def count_waiting(self) -> int:
        """How many wait for a place."""
        return len(self._returning) + len(self._fresh)

    def list_stations(self) -> set[str]:
        """The processes that have places."""
        return set(self._taken.values())

    def leave(self, stay: str) -> list[str]:
        """A stay has ended, or is not wanted; those that begin now."""
        if self._taken.pop(stay, None) is None:
            self._returning = deque(entry for entry in self._returning if entry[0] != stay)
            self._fresh = deque(entry for entry in self._fresh if entry[0] != stay)
        return self._hand_out()

    def forget(self, station: str) -> list[str]:
        """A process is gone, as far as is known, and its stays with it; those that begin now.

        What it has asked for stays asked for: if it lives, somebody there waits.
        """
        for stay in [stay for stay, where in self._taken.items() if where == station]:
            del self._taken[stay]
        return self._hand_out()

    def _hand_out(self) -> list[str]:
        granted = []
        while len(self._taken) < self._total and (self._returning or self._fresh):
            stay, station = (self._returning or self._fresh).popleft()
            self._taken[stay] = station
            granted.append(stay)
        return granted
