"""Which call is next, and what those that run hold. No thread is touched: who uses it holds the engine's lock."""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from manyhands.core.model import Call, CallOptions
    from manyhands.core.resources import Capacity, Need
    from manyhands.engines.threads.stages import Stage
    from manyhands.engines.threads.waits import Waiter


class Fate:
    """Whether calls that a call has made are still wanted: they are not when it has come to nothing.

    Parameters
    ----------
    outer
        That of the call's own.
    """

    __slots__ = ("_outer", "is_lost")

    def __init__(self, outer: Fate | None) -> None:
        self.is_lost = False
        self._outer = outer

    def is_any_lost(self) -> bool:
        """Whether a call further out has come to nothing."""
        fate: Fate | None = self
        while fate is not None:
            if fate.is_lost:
                return True
            fate = fate._outer
        return False


class Job:
    """A call that was submitted, and what decides when it runs.

    Attributes
    ----------
    call
    depth
        Of a call's call, one more than that call's.
    order
        Those that came earlier have less.
    need
        What it holds while it runs; that of the actor for the call that makes one.
    stage
        The actor that it is a call of.
    is_making
        Whether it makes its actor.
    is_async
        Whether it gives a coroutine, and so can begin on the event loop.
    fate
        Of the calls of the call that made it; None where none did.
    """

    __slots__ = ("call", "depth", "fate", "is_async", "is_making", "need", "order", "stage")

    def __init__(
        self,
        call: Call,
        depth: int,
        order: int,
        need: Need,
        stage: Stage | None = None,
        *,
        is_making: bool = False,
        is_async: bool = False,
        fate: Fate | None = None,
    ) -> None:
        self.call = call
        self.depth = depth
        self.order = order
        self.need = need
        self.stage = stage
        self.is_making = is_making
        self.is_async = is_async
        self.fate = fate

    def is_wanted(self) -> bool:
        """Whether it may start; where not, it is withdrawn in a moment, with what made it."""
        return self.fate is None or not self.fate.is_any_lost()

    @property
    def options(self) -> CallOptions:
        """The call's."""
        return self.call.options

    @property
    def rank(self) -> tuple[int, int, int]:
        """The least goes first. Deeper calls do before others, or recursion would begin everything at once."""
        return -self.call.options.priority, -self.depth, self.order


class Seat:
    """What a call that runs, or an actor that lives, holds of the capacity.

    Attributes
    ----------
    need
    devices
        The ids of its devices.
    busy
        Threads that are at work in it, and do not wait for other calls.
    has_cpus
        Whether it holds its cpus: not while all of its threads wait.
    is_left
        Whether it holds nothing any more.
    """

    __slots__ = ("busy", "devices", "has_cpus", "is_left", "need")

    def __init__(self, need: Need, devices: tuple[str, ...]) -> None:
        self.need = need
        self.devices = devices
        self.busy = 1
        self.has_cpus = True
        self.is_left = False


class Schedule:
    """The calls that wait, and the capacity.

    Parameters
    ----------
    capacity
        What calls hold while they run.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._jobs: dict[int, Job] = {}  # by key
        self._lanes: dict[Need, list[tuple[tuple[int, int, int], Job]]] = {}  # heaps
        self._stale = 0  # jobs in the lanes that were withdrawn
        self._returning: deque[Waiter] = deque()

    # The queue.

    def push(self, job: Job) -> None:
        """A call waits for its turn."""
        self._jobs[job.call.key] = job
        heappush(self._lanes.setdefault(job.need, []), (job.rank, job))

    def withdraw(self, key: int) -> Job | None:
        """A call does not wait any more; None where it did not."""
        job = self._jobs.pop(key, None)
        if job is not None:
            self._stale += 1
            if self._stale > len(self._jobs):  # what they were given is not to be kept
                self._sweep()
        return job

    def clear(self) -> list[Job]:
        """All calls that wait; none does any more."""
        jobs = list(self._jobs.values())
        self._jobs.clear()
        self._sweep()
        return jobs

    def start_next(self) -> tuple[Job, Seat] | None:
        """The call whose turn it is, with what it needs; None where there is none that fits.

        A call that does not fit now lets those pass that need nothing it is short of, and no others.
        """
        while (need := self._find_need()) is not None:
            _, job = heappop(self._lanes[need])
            if job.is_wanted():
                del self._jobs[job.call.key]
                return job, Seat(need, self.capacity.take(need))
        return None

    def _find_need(self) -> Need | None:
        """The need of the call whose turn it is."""
        if not self._jobs:
            return None
        held = {"cpus"} if self._returning else set()
        for need in self._list_needs():
            lacking = set(self.capacity.find_short(need))
            if not need.cpu_shares:  # those who went on at once may have more cpus than there are
                lacking.discard("cpus")
            if not lacking and not _touches(need, held):
                return need
            held |= lacking
        return None

    def _list_needs(self) -> list[Need]:
        """The needs of calls that wait, that of the first call first."""
        lanes = self._lanes
        for need in list(lanes):
            lane = lanes[need]
            while lane and self._jobs.get(lane[0][1].call.key) is not lane[0][1]:
                heappop(lane)
                self._stale -= 1
            if not lane:
                del lanes[need]
        if len(lanes) < 2:  # nearly always
            return list(lanes)
        return sorted(lanes, key=lambda need: lanes[need][0][0])

    def _sweep(self) -> None:
        for need, lane in list(self._lanes.items()):
            lane[:] = [item for item in lane if self._jobs.get(item[1].call.key) is item[1]]
            heapify(lane)
            if not lane:
                del self._lanes[need]
        self._stale = 0

    # Seats.

    def leave(self, seat: Seat) -> None:
        """What was held is free; again does nothing."""
        if seat.is_left:
            return
        seat.is_left = True
        if not seat.has_cpus:
            self.capacity.take_cpus(seat.need)  # which `give` gives
        self.capacity.give(seat.need, seat.devices)

    def park(self, seat: Seat) -> None:
        """One of its threads waits for other calls: with the last one the cpus are free."""
        seat.busy -= 1
        self._rest(seat)

    def end_turn(self, seat: Seat, others: int) -> None:
        """One of its threads is done; `others` are not, and if all of these wait, the cpus are free."""
        seat.busy -= 1
        if others:
            self._rest(seat)

    def _rest(self, seat: Seat) -> None:
        if not seat.busy and seat.has_cpus and not seat.is_left:
            seat.has_cpus = False
            self.capacity.give_cpus(seat.need)

    def ask_return(self, waiter: Waiter) -> None:
        """A thread that waited will go on, when there are cpus for it: before any call that has not started."""
        if not waiter.is_back and not waiter.is_returning:
            waiter.is_returning = True
            self._returning.append(waiter)

    def return_at_once(self, waiter: Waiter) -> None:
        """It goes on beside those that have the cpus, and nothing new begins meanwhile.

        That is for a call which was interrupted, or had said how long it would wait.
        """
        if not waiter.is_back:
            self._returning.remove(waiter)
            self._take_back(waiter)

    def let_return(self) -> None:
        """Wake those who may go on now."""
        while self._returning:
            waiter = self._returning[0]
            if not self._has_cpus_for(_get_seat(waiter)):
                return
            self._returning.popleft()
            self._take_back(waiter)
            waiter.ring()

    def _has_cpus_for(self, seat: Seat) -> bool:
        if seat.has_cpus or seat.is_left or not seat.need.cpu_shares:
            return True
        return self.capacity.fits_cpus(seat.need)

    def _take_back(self, waiter: Waiter) -> None:
        seat = _get_seat(waiter)
        if not (seat.has_cpus or seat.is_left):
            self.capacity.take_cpus(seat.need)
            seat.has_cpus = True
        seat.busy += 1
        waiter.is_returning, waiter.is_back = False, True


def _get_seat(waiter: Waiter) -> Seat:
    assert waiter.seat is not None
    return waiter.seat


def _touches(need: Need, held: set[str]) -> bool:
    """Whether a call needs what is kept for another."""
    if not held:
        return False
    return bool(
        ("cpus" in held and need.cpu_shares)
        or ("gpus" in held and need.gpu_shares)
        or ("memory" in held and need.memory)
        or any(name in held for name, _ in need.named_shares)
    )
