"""Pure: which worker is given which call."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class _Worker:
    """A worker that takes calls.

    Attributes
    ----------
    seated
        The call that runs there; None where there is room for one.
    calls
        All that have begun there: that one, and those that wait for something.
    entering
        Those that have waited, and go on as soon as there is room.
    """

    __slots__ = ("calls", "entering", "seated")

    def __init__(self) -> None:
        self.seated: str | None = None
        self.calls: dict[str, None] = {}
        self.entering: deque[str] = deque()


class Board:
    """One call runs in a worker at a time; of those that wait for a worker the most urgent one goes first.

    Examples
    --------
    >>> board = Board()
    >>> board.add("a", 0), board.add("b", 5), board.come("w")
    (None, None, None)
    >>> board.deal()
    [('b', 'w', True)]
    >>> board.leave("b")
    >>> board.deal()
    [('a', 'w', True)]
    >>> board.enter("b")
    >>> board.deal()
    []
    >>> board.end("a")
    >>> board.deal()
    [('b', 'w', False)]
    """

    def __init__(self) -> None:
        self._queue: list[tuple[int, int, str]] = []
        self._waiting: set[str] = set()
        self._order = count()
        self._workers: dict[str, _Worker] = {}
        self._places: dict[str, str] = {}

    # Calls.

    def add(self, call: str, priority: int) -> None:
        """A call wants a worker."""
        self._waiting.add(call)
        heappush(self._queue, (-priority, next(self._order), call))

    def withdraw(self, calls: Iterable[str]) -> set[str]:
        """Those of these calls that no worker was given; none will be."""
        withdrawn = self._waiting.intersection(calls)
        self._waiting -= withdrawn
        return withdrawn

    def leave(self, call: str) -> None:
        """A call waits for something; another one may run in its place."""
        worker = self._workers.get(self._places.get(call, ""))
        if worker is not None and worker.seated == call:
            worker.seated = None

    def enter(self, call: str) -> None:
        """A call has waited, and wants to go on where it was."""
        worker = self._workers.get(self._places.get(call, ""))
        if worker is not None:
            worker.entering.append(call)

    def end(self, call: str) -> None:
        """A call has ended."""
        worker = self._workers.get(self._places.pop(call, ""))
        if worker is not None:
            worker.calls.pop(call, None)
            if worker.seated == call:
                worker.seated = None
            if call in worker.entering:
                worker.entering.remove(call)

    def find_workers(self, calls: Iterable[str]) -> set[str]:
        """The workers that these calls have begun at."""
        return {self._places[call] for call in calls if call in self._places}

    def list_waiting(self) -> list[str]:
        """The calls that no worker was given yet."""
        return list(self._waiting)

    # Workers.

    def come(self, worker: str) -> None:
        """A worker takes calls from now on."""
        self._workers[worker] = _Worker()

    def go(self, worker: str) -> list[str]:
        """It takes none any more; those that it was at."""
        gone = self._workers.pop(worker, None)
        if gone is None:
            return []
        for call in gone.calls:
            self._places.pop(call, None)
        return list(gone.calls)

    def is_idle(self, worker: str) -> bool:
        """Whether it is at no call."""
        there = self._workers.get(worker)
        return there is not None and not there.calls

    def count_waiting(self) -> int:
        """Calls that no worker was given yet."""
        return len(self._waiting)

    def deal(self, *, is_patient: bool = False) -> list[tuple[str, str, bool]]:
        """Calls that go to a worker now, that worker, and whether they begin there or go on.

        With `is_patient` none begins beside calls that wait for something: its worker's death would be theirs.
        """
        dealt = []
        free = [(name, worker) for name, worker in self._workers.items() if worker.seated is None]
        # Those first that have the fewest calls which will want to go on.
        for name, worker in sorted(free, key=lambda entry: len(entry[1].calls)):
            if worker.entering:
                worker.seated = worker.entering.popleft()
                dealt.append((worker.seated, name, False))
                continue
            call = None if is_patient and worker.calls else self._pop()
            if call is not None:
                worker.seated = call
                worker.calls[call] = None
                self._places[call] = name
                dealt.append((call, name, True))
        return dealt

    def _pop(self) -> str | None:
        while self._queue:
            call = heappop(self._queue)[2]
            if call in self._waiting:
                self._waiting.discard(call)
                return call
        return None
