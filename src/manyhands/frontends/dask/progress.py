"""How far the run of a graph has come: what is next, and which values nobody needs any more."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any


class Progress:
    """Of the keys of one graph; pure, and not safe to use from two threads at once.

    Parameters
    ----------
    dependencies
        Of each key that is to be computed, the keys whose values it needs; all of them are keys here.
    wanted
        Keys whose values are needed in the end.
    rank
        Of keys that are ready, the one with the least goes first.

    Attributes
    ----------
    waiting : dict
        Keys that need others first, and how many.
    ready : list
        A heap of ranks and keys.
    running, finished : set
    released : set
        Keys whose values nobody needs any more.
    dependents : dict
        The keys that need the value of a key.
    """

    def __init__(
        self,
        dependencies: dict[Any, frozenset[Any]],
        wanted: Collection[Any],
        rank: Callable[[Any], Any],
    ) -> None:
        self.dependencies = dependencies
        self.dependents: dict[Any, list[Any]] = {key: [] for key in dependencies}
        self.waiting: dict[Any, int] = {}
        self.running: set[Any] = set()
        self.finished: set[Any] = set()
        self.released: set[Any] = set()
        self._wanted = wanted
        self._rank = rank
        self.ready: list[tuple[Any, int, Any]] = []
        for number, (key, needed) in enumerate(dependencies.items()):
            for other in needed:
                self.dependents[other].append(key)
            if needed:
                self.waiting[key] = len(needed)
            else:
                self.ready.append((rank(key), number, key))
        heapify(self.ready)
        self._count = len(self.ready) + len(self.waiting)
        self._users = {key: len(users) for key, users in self.dependents.items()}

    @property
    def is_done(self) -> bool:
        """Whether all has been computed."""
        return len(self.finished) == len(self.dependencies)

    def take(self) -> Any:
        """The key that is next, which runs from now on; raises IndexError where none is ready."""
        key = heappop(self.ready)[-1]
        self.running.add(key)
        return key

    def finish(self, key: Any) -> list[Any]:
        """The value of a key is there; keys whose values nobody needs from now on."""
        self.running.discard(key)
        self.finished.add(key)
        waiting = self.waiting
        for dependent in self.dependents[key]:
            left = waiting[dependent] - 1
            if left:
                waiting[dependent] = left
            else:
                del waiting[dependent]
                self._count += 1
                heappush(self.ready, (self._rank(dependent), self._count, dependent))
        released = []
        users = self._users
        for other in self.dependencies[key]:
            users[other] -= 1
            if not users[other] and other not in self._wanted:
                released.append(other)
        if not users[key] and key not in self._wanted:
            released.append(key)
        self.released.update(released)
        return released

    def bypass(self, key: Any) -> list[Any]:
        """The value of a key cannot be had: those that need it, which are returned, need what it needs instead."""
        needed = self.dependencies[key]
        dependents = self.dependents[key]
        for dependent in dependents:
            had = self.dependencies[dependent]
            for other in needed - had:
                self._users[other] += 1
                self.dependents[other].append(dependent)
            self.dependencies[dependent] = (had - {key}) | needed
        self.finish(key)
        return dependents
