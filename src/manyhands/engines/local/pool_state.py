"""Pure: which worker gets which calls, and what becomes of them when it ends. No clock, no process, no I/O.

A call is queued, then in flight with one worker, then out of here. In flight means sent: the worker has begun
it, or holds it in its message, or has not even read it; the last two can come back.

Workers of the *crew* run any call, one at a time. What they hold of the session's capacity they hold as long as
anything is in flight with them; while the call that one of them is at waits for others, it gives its cpus up. A
*stage* is where the calls of an actor go: to one worker, in their order.
"""

from __future__ import annotations

from collections import deque

from manyhands.core.resources import ONE_CPU, make_need
from manyhands.engines.local.pool_parts import Entry, Lane, StageState, WorkerState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from manyhands.core.resources import Capacity, Need

AHEAD_SECONDS = 0.012
"""Work that is sent ahead to a worker, so that it does not idle while the parent is at something else."""

AHEAD_CALLS = 2
"""Calls sent to a worker however long they take: one that runs, and one that follows."""

AHEAD_ON_STAGE = 256
"""Calls sent ahead to the worker of an actor that runs them one by one: no other worker could have them."""

MESSAGE_SECONDS = 0.0005
"""Work in one message; longer calls travel one by one, so that each can be taken back by itself."""

MESSAGE_CALLS = 128
"""Calls in one message at most."""

MESSAGE_BYTES = 96 * 1024
"""Bytes of arguments in one message at most, but for a call that has more by itself."""

OVERHEAD_SECONDS = 4e-6
"""What a worker spends on a call beside running it."""

NO_NEED = make_need(cpus=0)
"""Of an actor that has no worker, or is at no call."""

MOST_WORKERS = 1000
"""Workers at most: calls that need no cpu, or that wait, take one each."""


class PoolState:
    """The queue, and what is in flight where.

    Parameters
    ----------
    capacity
        What calls hold while they run.

    Attributes
    ----------
    most_calls
        That one worker of the crew runs.
    most_workers
        That there may be.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.most_calls = float("inf")
        self.most_workers = MOST_WORKERS
        self.workers: dict[int, WorkerState] = {}
        self.crew: dict[int, WorkerState] = {}
        self.stages: dict[int, StageState] = {}
        self.queue: deque[Entry] = deque()  # plain calls, which nearly all are
        self._queued: dict[int, Entry] = {}  # what waits, withdrawn calls aside
        self._arrivals: deque[Entry] = deque()  # calls that are not plain, to be sorted
        self._has_urgent_arrivals = False  # may also be said of some that were just sorted
        self._lanes: dict[tuple[int, int, Need], Lane] = {}
        self._plain = Lane(0, 0, ONE_CPU, self.queue)
        self._order: list[Lane] | None = None  # of the lanes; None where it is to be found anew
        self._busy_stages: dict[int, StageState] = {}  # those with calls that wait
        self._orphans: deque[Entry] = deque()  # calls to actors that are gone
        self._resuming: deque[WorkerState] = deque()
        self._urgent: set[int] = set()  # those of them that go on though their cpus are taken
        self._is_short_of_workers = False

    # What there is.

    def is_busy(self) -> bool:
        """Whether any call has no outcome yet."""
        return bool(self._queued) or any(
            worker.inflight or worker.joined for worker in list(self.workers.values())
        )

    def has_queued(self) -> bool:
        """Whether any call waits."""
        return bool(self._queued)

    def list_queued(self) -> list[Entry]:
        """The calls that wait."""
        return list(self._queued.values())

    def has_idle(self) -> bool:
        """Whether a worker has nothing to do."""
        return any(not worker.inflight for worker in list(self.crew.values()))

    def count_busy(self) -> int:
        """Workers that compute, as far as is known."""
        return sum(
            1 for worker in self.workers.values() if worker.inflight and not worker.is_blocked
        )

    def estimate_backlog(self) -> float:
        """Seconds of work, as far as is known, that the worker with the least of it still has before it."""
        least = float("inf")
        for worker in self.crew.values():
            ahead = len(worker.inflight) - 1  # the first may be about to end
            if ahead < 1:
                return 0.0
            entry = next(iter(worker.inflight.values()))
            least = min(least, ahead * (entry.function.seconds or 0.0))
        return 0.0 if self.stages else least

    # Workers.

    def add_worker(self, number: int, *, is_host: bool = False, stage: int = 0) -> WorkerState:
        """A new worker: of the crew, or for a stage."""
        worker = self.workers[number] = WorkerState(number, is_host=is_host)
        if stage:
            self.set_on_worker(self.stages[stage], worker)
        else:
            self.crew[number] = worker
        return worker

    def wants_worker(self) -> bool:
        """Whether the last `plan` left a call that could run if there were one more worker of the crew."""
        starting = sum(1 for worker in self.crew.values() if not worker.is_ready)
        return (
            self._is_short_of_workers
            and len(self.workers) < self.most_workers
            and starting < max(1, self.capacity.cpus)
        )

    def is_stuck(self) -> bool:
        """Whether calls wait for a worker that there can never be: all wait for calls that would need one."""
        return (
            self._is_short_of_workers
            and len(self.workers) >= self.most_workers
            and not self._resuming
            and all(worker.is_blocked for worker in self.crew.values())
        )

    def disown(self, worker: WorkerState) -> None:
        """A worker gets no more calls, and what it is at may go on for ever: others have its cpus."""
        worker.is_closing = True
        need = worker.need
        if need is not None:
            if not worker.is_blocked:
                self.capacity.give_cpus(need)
            worker.need = make_need(0, need.gpus, need.memory, dict(need.named))

    def list_excess(self, kept: int) -> list[WorkerState]:
        """Idle workers beyond as many as are `kept`, the youngest first."""
        idle = [w for w in self.crew.values() if not w.inflight and not w.is_closing]
        return idle[::-1][: max(0, len(self.crew) - kept)]

    def retire(self, worker: WorkerState) -> None:
        """An idle worker goes."""
        assert not worker.inflight
        worker.is_closing = True
        del self.workers[worker.number]
        self.crew.pop(worker.number, None)

    # Calls.

    def enqueue(self, entry: Entry) -> None:
        """Queue a call; safe beside the leading thread."""
        self._queued[entry.key] = entry
        if entry.options.is_plain and not entry.depth and not entry.stage:
            self.queue.append(entry)
        else:
            self._arrivals.append(entry)
            if not entry.stage and (entry.options.priority > 0 or entry.depth):
                self._has_urgent_arrivals = True

    def _sort_arrivals(self) -> None:
        self._has_urgent_arrivals = False  # first, so that none is missed that comes meanwhile
        while self._arrivals:
            entry = self._arrivals.popleft()
            stage = self.stages.get(entry.stage) if entry.stage else None
            if stage is not None and stage.is_closed:
                self._orphans.append(entry)
            elif entry.key in self._queued:
                self._get_lane(entry).append(entry)

    def close_stage(self, stage: StageState) -> None:
        """An actor gets no more calls than those that have come so far."""
        self._sort_arrivals()
        stage.is_closed = True

    def _get_lane(self, entry: Entry) -> deque[Entry]:
        if entry.stage:
            stage = self.stages.get(entry.stage)
            if stage is None:
                return self._orphans
            self._busy_stages[entry.stage] = stage
            return stage.lane
        options = entry.options
        if options.is_plain and not entry.depth:
            return self.queue
        key = options.priority, entry.depth, options.need
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(*key, deque())
            self._order = None
        return lane.entries

    def take_orphans(self) -> list[Entry]:
        """Calls to actors that there are no more."""
        orphans, self._orphans = self._orphans, deque()
        return [entry for entry in orphans if self._queued.pop(entry.key, None) is not None]

    def has_urgent(self) -> bool:
        """Whether calls have come that may go before others which are in flight already, and not begun."""
        return self._has_urgent_arrivals and bool(self._arrivals)

    def has_waiting(self, stage: StageState) -> bool:
        """Whether calls to an actor wait."""
        return _peek(stage.lane, self._queued) is not None

    def list_ahead(self) -> list[WorkerState]:
        """Workers of the crew that hold calls which they may not have begun."""
        return [worker for worker in self.crew.values() if len(worker.inflight) > 1]

    def plan(self) -> Iterator[tuple[WorkerState, list[Entry]]]:
        """Take calls off the queue and yield messages of them, until every worker has enough or none is left.

        The consumer gives the calls of a message back where it cannot be sent, and stops.
        """
        self._sort_arrivals()
        self._is_short_of_workers = False
        if self._busy_stages:
            yield from self._plan_stages()
        if (
            not any(lane.entries for lane in self._lanes.values())
            and len(self.crew) <= self.capacity.cpus
            and not self._resuming
        ):
            yield from self._plan_plain()
        else:
            yield from self._plan_in_order()

    def _plan_plain(self) -> Iterator[tuple[WorkerState, list[Entry]]]:
        """Nothing but plain calls wait, and there are no more workers than cpus."""
        if not self.queue:
            return
        open_workers = [w for w in self.crew.values() if not w.is_closing and not w.is_blocked]
        workers = sorted(open_workers, key=lambda worker: len(worker.inflight))
        share = -(-len(self._queued) // len(workers)) if workers else 0
        for worker in workers:
            left = share
            while left > 0 and (message := self._choose(self._plain, worker, left)):
                left -= len(message)
                yield worker, message
        self._is_short_of_workers = self._lacks_workers(self._plain)

    def _plan_in_order(self) -> Iterator[tuple[WorkerState, list[Entry]]]:
        """Lanes by priority, deeper calls first; what the first of them is short of is kept for it."""
        short: set[str] = {"cpus"} if self._resuming else set()
        for lane in self._order_lanes():
            if _touches(lane.need, short) or _peek(lane.entries, self._queued) is None:
                continue
            yield from self._plan_lane(lane)
            if _peek(lane.entries, self._queued) is not None:
                if self._lacks_workers(lane):
                    self._is_short_of_workers = True
                short.update(self.capacity.find_short(lane.need))

    def _order_lanes(self) -> list[Lane]:
        if self._order is None or len(self._order) > _MOST_LANES:
            for key, lane in list(self._lanes.items()):
                if _peek(lane.entries, self._queued) is None:
                    del self._lanes[key]
            self._order = sorted(
                (*self._lanes.values(), self._plain), key=lambda lane: (-lane.priority, -lane.depth)
            )
        ranks = {(lane.priority, lane.depth) for lane in self._order}
        if len(ranks) == len(self._order):
            return self._order
        # Of lanes of one rank, which differ in their needs, that goes first whose first call came first.
        return sorted(self._order, key=self._rank)

    def _rank(self, lane: Lane) -> tuple[int, int, int]:
        head = _peek(lane.entries, self._queued)
        return -lane.priority, -lane.depth, head.key if head is not None else 0

    def _plan_lane(self, lane: Lane) -> Iterator[tuple[WorkerState, list[Entry]]]:
        workers = [
            worker
            for worker in self.crew.values()
            if not (worker.is_closing or worker.is_blocked or (lane.depth and worker.inflight))
        ]
        if not lane.depth:
            workers.sort(key=lambda worker: len(worker.inflight))
        share = -(-len(lane.entries) // len(workers)) if workers else 0
        may_be_ahead = (
            not lane.depth and lane.need is ONE_CPU
        )  # so the busy ones, at the end, may get more
        for worker in workers:
            left = share
            while left > 0 and (message := self._choose(lane, worker, left)):
                left -= len(message)
                yield worker, message
            if not may_be_ahead and not worker.inflight and not self.capacity.fits(lane.need):
                return

    def _lacks_workers(self, lane: Lane) -> bool:
        """Whether a call waits that fits, and no idle worker is there for it."""
        if _peek(lane.entries, self._queued) is None or not self.capacity.fits(lane.need):
            return False
        return not any(
            not w.inflight and not w.is_closing and self._may_see(w, lane.need)
            for w in self.crew.values()
        )

    def _choose(self, lane: Lane, worker: WorkerState, limit: int) -> list[Entry]:
        """The next message's calls for `worker`, at most `limit`; nothing where it has enough."""
        queue = lane.entries
        head = _peek(queue, self._queued)
        if head is None:
            return []
        if worker.inflight:
            # While cpus are overdrawn nobody gets more, or they would be for good.
            if worker.need is not lane.need or not self.capacity.fits_cpus(NO_NEED):
                return []
        elif not self.capacity.fits(lane.need) or not self._may_see(worker, lane.need):
            return []
        room = min(self._count_room(worker, head), limit)
        chosen = self._pack_message(queue, worker, room)
        if chosen and worker.need is None:
            worker.need = lane.need
            worker.devices = self.capacity.take(lane.need)
            if worker.devices:
                worker.visible = worker.devices
        return chosen

    def _may_see(self, worker: WorkerState, need: Need) -> bool:
        """Whether a worker can run a call with devices: a process that has seen some sees no others any more."""
        if not need.gpu_shares or worker.visible is None:
            return True
        return worker.visible == self.capacity.choose_devices(need)

    def _pack_message(self, queue: deque[Entry], worker: WorkerState, room: int) -> list[Entry]:
        """Take calls for one message off a queue, and count them as in flight."""
        queued, inflight = self._queued, worker.inflight
        chosen: list[Entry] = []
        function = None
        each = seconds = 0.0
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
        if worker.stages:
            self._count_down(entries)
        elif not inflight:
            self._release(worker)
        if worker.joined:  # these were counted when they were set aside
            entries = [
                worker.joined.pop(key, None) if entry is None else entry
                for key, entry in zip(keys, entries, strict=True)
            ]
        worker.calls += len(entries)
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

    def _count_down(self, entries: Iterable[Entry | None]) -> None:
        for entry in entries:
            stage = self.stages.get(entry.stage) if entry is not None else None
            if stage is not None:
                stage.inflight -= 1

    def _release(self, worker: WorkerState) -> None:
        """Nothing is in flight with a worker: what it held is free."""
        self._unblock(worker)
        if worker.need is not None:
            self.capacity.give(worker.need, worker.devices)
            worker.need, worker.devices = None, ()

    def give_back(self, worker: WorkerState, keys: Iterable[int]) -> None:
        """Queue calls that `worker` has not begun, ahead of all others."""
        entries = [worker.inflight.pop(key) for key in keys if key in worker.inflight]
        self._queued.update((entry.key, entry) for entry in entries)
        self._sort_arrivals()
        if worker.stages:
            self._count_down(entries)
        for entry in reversed(entries):
            self._get_lane(entry).appendleft(entry)
        for number in {entry.stage for entry in entries} & self.stages.keys():
            self.stages[number].sort()
        if not worker.inflight:
            self._release(worker)

    def lose(self, worker: WorkerState, begun: Iterable[int]) -> list[Entry]:
        """A worker ended; the calls that it was at. All others that it was sent are queued again."""
        blamed = [worker.inflight.pop(key) for key in begun if key in worker.inflight]
        if worker.stages:
            self._count_down(blamed)
        blamed += worker.joined.values()
        self.give_back(worker, list(worker.inflight))
        self._release(worker)
        del self.workers[worker.number]
        self.crew.pop(worker.number, None)
        for number in worker.stages:
            stage = self.stages[number]
            stage.inflight = 0
            self._close_stage(stage)
        return blamed

    def set_aside(self, worker: WorkerState, key: int) -> None:
        """A call has run, and its result will be that of another: it holds nothing any more."""
        entry = worker.inflight.pop(key, None)
        if entry is None:
            return
        worker.joined[key] = entry
        if worker.stages:
            self._count_down([entry])
        elif not worker.inflight:
            self._release(worker)

    def find_hoarder(self) -> WorkerState | None:
        """The worker that holds the most calls while others could run them and nothing is queued, or None."""
        if self._queued or not self.has_idle() or not self.capacity.fits_cpus(ONE_CPU):
            return None
        worker = max(self.crew.values(), key=lambda w: len(w.inflight))
        return worker if len(worker.inflight) > 1 else None

    def find(self, key: int) -> WorkerState | None:
        """The worker that a call is in flight with."""
        return next(
            (w for w in self.workers.values() if key in w.inflight or key in w.joined), None
        )

    def knows(self, key: int) -> bool:
        """Whether a call waits, or is in flight."""
        return key in self._queued or self.find(key) is not None

    def withdraw(self, key: int) -> bool:
        """Drop a call if it is queued; whether it was."""
        entry = self._queued.pop(key, None)
        if entry is None:
            return False
        # It stays in the queue until its turn, and what it was sent with need not.
        entry.payload = b""
        return True

    def drain(self) -> list[Entry]:
        """Take everything: the calls that have no outcome yet."""
        entries = self.list_queued()
        for worker in self.workers.values():
            entries += [*worker.inflight.values(), *worker.joined.values()]
            worker.inflight.clear()
            worker.joined.clear()
            self._release(worker)
        for stage in self.stages.values():
            stage.lane.clear()
            stage.inflight = 0
        self.queue.clear()
        self._arrivals.clear()
        self._lanes.clear()
        self._order = None
        self._busy_stages.clear()
        self._queued.clear()
        return entries

    # Calls that wait for others.

    def block(self, worker: WorkerState) -> None:
        """The call that a worker is at waits: its cpus are free for others."""
        if not worker.is_blocked and not worker.is_host:
            worker.is_blocked = True
            self.capacity.give_cpus(self._find_need(worker))

    def _find_need(self, worker: WorkerState) -> Need:
        """What a worker that runs one call at a time holds: for its call, or for its actor."""
        if worker.need is not None:
            return worker.need
        stage = next((self.stages[number] for number in worker.stages), None)
        return stage.need if stage is not None and stage.holds else NO_NEED

    def ask_resume(self, worker: WorkerState, *, at_once: bool = False) -> None:
        """Its wait is over: it goes on when its cpus are free again, or `at_once`, beside those that have them.

        The latter is for a call that must end, or said how long it would wait; no new call begins meanwhile.
        """
        if worker.is_blocked and worker not in self._resuming:
            self._resuming.append(worker)
        if worker.is_blocked and at_once:
            self._urgent.add(worker.number)

    def resume(self) -> list[WorkerState]:
        """Those of the waiting workers that may go on now; before any new call."""
        resumed = []
        for worker in list(self._resuming):
            need = self._find_need(worker)
            if worker.number not in self._urgent and not self.capacity.fits_cpus(need):
                if self._urgent:
                    continue
                break
            self._resuming.remove(worker)
            self._urgent.discard(worker.number)
            self.capacity.take_cpus(need)
            worker.is_blocked = False
            resumed.append(worker)
        return resumed

    def _unblock(self, worker: WorkerState) -> None:
        """A worker that waited has ended, or its call has: it has its cpus again, to be given back with the rest."""
        if worker.is_blocked:
            self.capacity.take_cpus(self._find_need(worker))
            worker.is_blocked = False
            self._resuming = deque(w for w in self._resuming if w is not worker)
            self._urgent.discard(worker.number)

    # Stages.

    def add_stage(self, stage: StageState) -> None:
        """A new actor, without a place."""
        self.stages[stage.number] = stage

    def place_stages(self, hosts: int) -> Iterator[StageState]:
        """Give actors that wait for one a place: yield those that need a worker of their own, which comes next.

        Parameters
        ----------
        hosts
            Workers that stages share, at most.
        """
        for stage in [stage for stage in self.stages.values() if stage.is_waiting]:
            # What needs nothing has room also where cpus are overdrawn for a moment.
            if stage.need is not NO_NEED and not self.capacity.fits(stage.need):
                continue
            stage.is_waiting, stage.holds = False, True
            stage.devices = self.capacity.take(stage.need)
            host = self._find_host(hosts) if stage.is_light else None
            if host is None:
                yield stage
            else:
                self.set_on_worker(stage, host)

    def _find_host(self, hosts: int) -> WorkerState | None:
        shared = [
            worker
            for worker in self.workers.values()
            if worker.is_host
            and not worker.is_closing
            and any(self.stages[number].is_light for number in worker.stages)
        ]
        if not shared:
            return None
        host = min(shared, key=lambda worker: len(worker.stages))
        return host if len(shared) >= hosts or len(host.stages) < _STAGES_PER_HOST else None

    def set_on_worker(self, stage: StageState, worker: WorkerState) -> None:
        """The worker of a stage is there."""
        stage.worker = worker
        worker.stages.add(stage.number)

    def _plan_stages(self) -> Iterator[tuple[WorkerState, list[Entry]]]:
        for stage in list(self._busy_stages.values()):
            worker = stage.worker
            while worker is not None and not worker.is_closing and not worker.is_blocked:
                head = _peek(stage.lane, self._queued)
                room = min(stage.limit - stage.inflight, MESSAGE_CALLS)
                if head is not None and not stage.is_host:  # what is sent cannot be withdrawn
                    room = min(room, _count_ahead(worker, head))
                if room <= 0 or head is None or stage.making not in (None, head):
                    break
                room = 1 if stage.making is head else room
                message = self._pack_message(stage.lane, worker, room)
                stage.inflight += len(message)
                yield worker, message
                if message[0].key not in worker.inflight:  # it could not be sent, and came back
                    break
            if _peek(stage.lane, self._queued) is None:
                del self._busy_stages[stage.number]

    def pause(self, worker: WorkerState, *, is_paused: bool) -> None:
        """All calls that a host is at wait for others, whose are its cpus meanwhile; or that is over.

        Then it has its cpus again, beside those that have them now: it does not ask before a call of it goes on. No
        new call begins until there are enough for all.
        """
        for number in worker.stages:
            stage = self.stages[number]
            if stage.holds and stage.is_paused != is_paused:
                stage.is_paused = is_paused
                if is_paused:
                    self.capacity.give_cpus(stage.need)
                else:
                    self.capacity.take_cpus(stage.need)

    def _close_stage(self, stage: StageState) -> None:
        """Its worker has ended: calls to it wait."""
        if stage.is_paused:
            stage.is_paused = False
            self.capacity.take_cpus(stage.need)
        if stage.worker is not None:
            if not stage.worker.is_host:
                self._unblock(stage.worker)
            stage.worker.stages = stage.worker.stages - {stage.number}
            stage.worker = None
        stage.is_waiting = False
        if stage.holds:
            self.capacity.give(stage.need, stage.devices)
            stage.holds, stage.devices = False, ()

    def reopen_stage(self, stage: StageState, entry: Entry) -> None:
        """Let an actor be made again, by the call `entry`, which goes before all others."""
        self._sort_arrivals()
        making = stage.making
        if making is not None and making in stage.lane:  # its worker ended before it had begun
            stage.lane.remove(making)
        stage.is_waiting = True
        stage.making = entry
        self._queued[entry.key] = entry
        self._get_lane(entry).appendleft(entry)

    def remove_stage(self, number: int) -> list[Entry]:
        """An actor is no more; the calls that waited for it."""
        self._sort_arrivals()
        stage = self.stages.get(number)
        self._busy_stages.pop(number, None)
        if stage is None:
            return []
        self._close_stage(stage)
        del self.stages[number]
        return [entry for entry in stage.lane if self._queued.pop(entry.key, None) is not None]

    # Proof.

    def validate(self) -> None:
        """Raise AssertionError unless every call is in one place and nothing is overdrawn; for tests."""
        waiting = [*self.queue, *self._arrivals, *self._orphans]
        for lane in self._lanes.values():
            waiting += lane.entries
        for stage in self.stages.values():
            waiting += stage.lane
        queued = self._queued
        keys = [entry.key for entry in waiting if entry.key in queued]
        assert queued.keys() == set(keys)
        with_stages = dict.fromkeys(self.stages, 0)
        for worker in self.workers.values():
            inflight = worker.inflight
            for key, entry in inflight.items():
                assert entry.key == key
                if worker.stages:
                    with_stages[entry.stage] = with_stages.get(entry.stage, 0) + 1
            keys += inflight
            keys += worker.joined
            if worker.number in self.crew:
                assert (worker.need is not None) == bool(inflight), worker.number
        assert len(keys) == len(set(keys)), keys
        for stage in self.stages.values():
            assert stage.inflight == with_stages[stage.number], stage.number
        self.capacity.validate()

    def _count_room(self, worker: WorkerState, head: Entry) -> int:
        left = self.most_calls - worker.calls - len(worker.inflight)
        return min(self._count_room_ahead(worker, head), int(min(left, MESSAGE_CALLS)))

    def _count_room_ahead(self, worker: WorkerState, head: Entry) -> int:
        # What may wait would strand what came with it; what needs little is to run beside others, not behind them.
        if head.depth or head.options.need is not ONE_CPU:
            return 1 - len(worker.inflight)
        return _count_ahead(worker, head)


_MOST_LANES = 64
"""Lanes after which those that are empty are forgotten."""

_STAGES_PER_HOST = 8
"""Stages on a shared worker before another one is started for them."""


def _peek(queue: deque[Entry], queued: dict[int, Entry]) -> Entry | None:
    """The queue's first call that nobody has withdrawn."""
    while queue:
        head = queue[0]
        if queued.get(head.key) is head:
            return head
        queue.popleft()
    return None


def _touches(need: Need, short: set[str]) -> bool:
    """Whether a call needs what is kept for another."""
    if not short:
        return False
    return bool(
        ("cpus" in short and need.cpu_shares)
        or ("gpus" in short and need.gpu_shares)
        or ("memory" in short and need.memory)
        or any(name in short for name, _ in need.named_shares)
    )


def _count_ahead(worker: WorkerState, head: Entry) -> int:
    """How many more calls may be sent ahead to a worker, by the time that they take."""
    if head.function.seconds is None:
        return AHEAD_CALLS - len(worker.inflight)
    capacity = max(AHEAD_CALLS, int(AHEAD_SECONDS / _estimate(head)))
    # A worker that has more than half of it is left alone: a few messages cost less than many.
    return capacity - len(worker.inflight) if len(worker.inflight) <= capacity // 2 else 0


def _estimate(entry: Entry) -> float:
    """Seconds that a call is expected to take; an unknown one travels alone."""
    seconds = entry.function.seconds
    return MESSAGE_SECONDS if seconds is None else seconds + OVERHEAD_SECONDS
