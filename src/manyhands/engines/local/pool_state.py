"""Pure: which worker gets which calls, and what becomes of them when it ends. No clock, no process, no I/O.

A call is queued, then in flight with one worker, then out of here. In flight means sent: the worker has begun
it, or holds it in its message, or has not even read it; the last two can come back.
"""

from __future__ import annotations

from collections import deque

from manyhands.core.parcels import measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from manyhands.core.functions import Function
    from manyhands.core.parcels import Payload

AHEAD_SECONDS = 0.012
"""Work that is sent ahead to a worker, so that it does not idle while the parent is at something else."""

AHEAD_CALLS = 2
"""Calls sent to a worker however long they take: one that runs, and one that follows."""

MESSAGE_SECONDS = 0.0005
"""Work in one message; longer calls travel one by one, so that each can be taken back by itself."""

MESSAGE_CALLS = 128
"""Calls in one message at most."""

MESSAGE_BYTES = 96 * 1024
"""Bytes of arguments in one message at most, but for a call that has more by itself."""

OVERHEAD_SECONDS = 4e-6
"""What a worker spends on a call beside running it."""


class Entry:
    """A call on its way: what a message is made of."""

    __slots__ = ("function", "key", "payload", "size")

    def __init__(self, key: int, function: Function, payload: Payload) -> None:
        self.key = key
        self.function = function
        self.payload = payload
        self.size = measure(payload)


class WorkerState:
    """What one worker has been sent.

    Attributes
    ----------
    inflight
        Calls without an outcome, by key, in the order in which they were sent.
    known
        Keys of the functions that it was sent.
    is_closing
        Whether it gets no more calls.
    is_grouped
        Whether any of what is in flight was sent in one message with others.
    current, since
        The call that it was at when it was last looked at, and since when, in seconds of any clock; None where it
        was asked for the rest.
    """

    __slots__ = ("current", "inflight", "is_closing", "is_grouped", "known", "number", "since")

    def __init__(self, number: int) -> None:
        self.number = number
        self.inflight: dict[int, Entry] = {}
        self.known: set[int] = set()
        self.is_closing = False
        self.is_grouped = False
        self.current = 0
        self.since: float | None = None


class PoolState:
    """The queue, and what is in flight where."""

    def __init__(self) -> None:
        self.queue: deque[Entry] = deque()
        self.workers: dict[int, WorkerState] = {}
        self._queued: dict[int, Entry] = {}  # what is in the queue, withdrawn calls aside

    def is_busy(self) -> bool:
        """Whether any call has no outcome yet."""
        return bool(self._queued) or any(worker.inflight for worker in list(self.workers.values()))

    def has_idle(self) -> bool:
        """Whether a worker has nothing to do."""
        return any(not worker.inflight for worker in list(self.workers.values()))

    def count_busy(self) -> int:
        """Workers that have something to do."""
        return sum(1 for worker in self.workers.values() if worker.inflight)

    def estimate_backlog(self) -> float:
        """Seconds of work, as far as is known, that the worker with the least of it still has before it."""
        least = float("inf")
        for worker in self.workers.values():
            ahead = len(worker.inflight) - 1  # the first may be about to end
            if ahead < 1:
                return 0.0
            entry = next(iter(worker.inflight.values()))
            least = min(least, ahead * (entry.function.seconds or 0.0))
        return least

    def add_worker(self, number: int) -> WorkerState:
        worker = self.workers[number] = WorkerState(number)
        return worker

    def enqueue(self, entry: Entry) -> None:
        """Queue a call; safe beside the leading thread."""
        self._queued[entry.key] = entry
        self.queue.append(entry)

    def plan(self) -> Iterator[tuple[WorkerState, list[Entry]]]:
        """Take calls off the queue and yield messages of them, until every worker has enough or none is left.

        The consumer gives the calls of a message back where it cannot be sent, and stops.
        """
        open_workers = [worker for worker in self.workers.values() if not worker.is_closing]
        workers = sorted(open_workers, key=lambda worker: len(worker.inflight))
        share = -(-len(self._queued) // len(workers)) if workers else 0
        for worker in workers:
            left = share
            while left > 0 and (message := self._choose(worker, left)):
                left -= len(message)
                yield worker, message

    def _choose(self, worker: WorkerState, limit: int) -> list[Entry]:
        """The next message's calls for `worker`, at most `limit`; nothing where it has enough."""
        head = self._peek()
        if head is None:
            return []
        function = head.function
        room = min(self._count_room(worker, head), MESSAGE_CALLS, limit)
        each = _estimate(head)
        queue, queued, inflight = self.queue, self._queued, worker.inflight
        chosen: list[Entry] = []
        seconds = 0.0
        size = 0
        while len(chosen) < room and queue:
            entry = queue[0]
            if entry.function is not function:
                function = entry.function
                each = _estimate(entry)
            size += entry.size
            if chosen and (seconds + each > MESSAGE_SECONDS or size > MESSAGE_BYTES):
                break
            queue.popleft()
            key = entry.key
            if key in queued:
                del queued[key]
                inflight[key] = entry
                chosen.append(entry)
                seconds += each
        worker.is_grouped = len(chosen) > 1 or (worker.is_grouped and len(inflight) > len(chosen))
        return chosen

    def finish(
        self, worker: WorkerState, keys: Sequence[int], seconds: Sequence[float]
    ) -> list[Entry | None]:
        """Outcomes came, each after so many seconds; their calls, None for one that is known to have ended."""
        inflight = worker.inflight
        entries = [inflight.pop(key, None) for key in keys]
        # Functions learn how long they take, a run of calls of one function at once.
        start = 0
        while start < len(entries):
            entry = entries[start]
            function = entry.function if entry is not None else None
            end = start + 1
            while (
                end < len(entries)
                and (other := entries[end]) is not None
                and other.function is function
            ):
                end += 1
            if function is not None:
                function.observe(sum(seconds[start:end]) / (end - start), end - start)
            start = end
        return entries

    def give_back(self, worker: WorkerState, keys: Iterable[int]) -> None:
        """Queue calls that `worker` has not begun, ahead of all others."""
        entries = [worker.inflight.pop(key) for key in keys if key in worker.inflight]
        self._queued.update((entry.key, entry) for entry in entries)
        self.queue.extendleft(reversed(entries))

    def lose(self, worker: WorkerState, current: int) -> Entry | None:
        """A worker ended; the call that it was at, or None. All others that it was sent are queued again."""
        del self.workers[worker.number]
        blamed = worker.inflight.pop(current, None)
        self.give_back(worker, list(worker.inflight))
        return blamed

    def find_hoarder(self) -> WorkerState | None:
        """The worker that holds the most calls while others idle and nothing is queued; None for no such thing."""
        if self._peek() is not None or not self.has_idle():
            return None
        worker = max(self.workers.values(), key=lambda w: len(w.inflight))
        return worker if len(worker.inflight) > 1 else None

    def find(self, key: int) -> WorkerState | None:
        """The worker that a call is in flight with."""
        return next((w for w in self.workers.values() if key in w.inflight), None)

    def withdraw(self, key: int) -> bool:
        """Drop a call if it is queued; whether it was."""
        entry = self._queued.pop(key, None)
        if entry is None:
            return False
        entry.payload = (
            b""  # it stays in the queue until its turn, and what it was sent with need not
        )
        return True

    def drain(self) -> list[Entry]:
        """Take everything: the calls that have no outcome yet."""
        entries = [entry for worker in self.workers.values() for entry in worker.inflight.values()]
        entries += [entry for entry in list(self.queue) if entry.key in self._queued]
        for worker in self.workers.values():
            worker.inflight.clear()
        self.queue.clear()
        self._queued.clear()
        return entries

    def validate(self) -> None:
        """Raise AssertionError unless every call is in one place; for tests."""
        keys = [entry.key for entry in self.queue if entry.key in self._queued]
        assert set(keys) == set(self._queued)
        for worker in self.workers.values():
            keys += worker.inflight
            assert all(key == entry.key for key, entry in worker.inflight.items())
        assert len(keys) == len(set(keys)), keys

    def _peek(self) -> Entry | None:
        """The queue's first call that nobody has withdrawn."""
        queue = self.queue
        while queue:
            head = queue[0]
            if head.key in self._queued:
                return head
            queue.popleft()
        return None

    def _count_room(self, worker: WorkerState, head: Entry) -> int:
        if head.function.seconds is None:
            return AHEAD_CALLS - len(worker.inflight)
        capacity = max(AHEAD_CALLS, int(AHEAD_SECONDS / _estimate(head)))
        # A worker that has more than half of it is left alone: a few messages cost less than many.
        return capacity - len(worker.inflight) if len(worker.inflight) <= capacity // 2 else 0


def _estimate(entry: Entry) -> float:
    """Seconds that a call is expected to take; an unknown one travels alone."""
    seconds = entry.function.seconds
    return MESSAGE_SECONDS if seconds is None else seconds + OVERHEAD_SECONDS
