"""In the program: tasks of Parsl's, each of which is a worker that comes, runs calls of a session, and goes."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from functools import partial
from itertools import count
from time import monotonic

from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost
from parsl.jobs.states import TERMINAL_STATES

from manyhands.engines.parsl.worker import visit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any

    from manyhands.engines.parsl.handle import Door
    from manyhands.engines.parsl.hub import Hub
    from manyhands.engines.parsl.kernel import Kernel

_NEAR_SECONDS = 0.5
"""How long a worker takes to come that is free."""

PATIENCE_SECONDS = 60.0
"""How long calls wait where Parsl has no block of workers, and asks for none."""


class Visits:
    """Has workers of an executor come, as many as there are calls for and not more than a session may have.

    Parameters
    ----------
    kernel
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._lock = threading.RLock()
        self._numbers = count(1)
        self._under_way: dict[int, Future[Any]] = {}
        self._arrived: dict[int, str] = {}
        self._expected: dict[int, float] = {}
        self._limit = 1
        self._may_grow = False
        self._workless_since = 0.0
        self._is_closed = False

    def open(self, hub: Hub, door: Door) -> None:
        """From now on workers are to come to a door, and a hub hears what becomes of them."""
        self._hub = hub
        self._door = door

    def set_limit(self, limit: int, *, may_grow: bool) -> None:
        """How many may be there at a time; with `may_grow` more, as long as there is room for one more."""
        self._limit = limit
        self._may_grow = may_grow

    def want(self, calls: int) -> None:
        """So many calls wait for a worker."""
        with self._lock:
            coming = len(self._under_way) - len(self._arrived)
            room = self._limit - len(self._under_way)
            if self._may_grow and not coming:
                room = max(room, 1)
            for _ in range(min(calls - coming, room)):
                if not self._request():
                    return

    def _request(self) -> bool:
        if self._is_closed:
            return False
        number = next(self._numbers)
        try:
            future = self._kernel.submit(visit, self._door, number)
        except Exception:
            return False  # Parsl has given up the executor: `find_trouble` tells
        self._under_way[number] = future
        self._expected[number] = monotonic() + _NEAR_SECONDS
        future.add_done_callback(partial(self._take_end, number))
        return True

    def take_arrival(self, number: int, worker: str) -> None:
        """A worker has come."""
        with self._lock:
            if number in self._under_way:
                self._arrived[number] = worker
                self._expected.pop(number, None)

    def are_near(self) -> bool:
        """Whether a worker is likely to come soon."""
        now = monotonic()
        with self._lock:
            return any(now < until for until in self._expected.values())

    def take_loss(self, worker: str) -> None:
        """A worker is gone, and another one may come in the same visit."""
        with self._lock:
            for number in [number for number, name in self._arrived.items() if name == worker]:
                del self._arrived[number]
                self._expected[number] = monotonic() + _NEAR_SECONDS

    def _take_end(self, number: int, future: Future[Any]) -> None:
        with self._lock:
            self._under_way.pop(number, None)
            self._expected.pop(number, None)
            worker = self._arrived.pop(number, "")
        error = future.exception()
        if self._is_closed:
            return
        if isinstance(error, (WorkerLost, ManagerLost)):
            self._hub.lose(worker, str(error))
        elif error is not None and not self._kernel.executor.bad_state_is_set:
            self._hub.refuse(
                f"the workers of Parsl's executor {self._kernel.executor.label!r} cannot run calls of this program, "
                f"{type(error).__name__}: {error}. They need manyhands in the version that is here"
            )
        self._hub.deal()

    def find_trouble(self, calls: int) -> str:
        """Why no worker will come for so many calls that wait; empty where one may."""
        executor = self._kernel.executor
        process = executor.interchange_proc
        if not self._kernel.has_interchange():
            pid = "" if process is None else f", process {process.pid},"
            return (
                f"the interchange{pid} of Parsl's executor {executor.label!r} has ended, and with it the way to all "
                f"workers; open another session"
            )
        if executor.bad_state_is_set:
            return (
                f"Parsl has given up its executor {executor.label!r}: {executor.executor_exception}"
            )
        states = executor.status_facade.values()
        if not calls or self._arrived or any(x.state not in TERMINAL_STATES for x in states):
            self._workless_since = 0.0
            return ""
        now = monotonic()
        self._workless_since = self._workless_since or now
        if now - self._workless_since < PATIENCE_SECONDS:
            return ""
        return (
            f"Parsl's executor {executor.label!r} has had no block of workers for {PATIENCE_SECONDS:g} s: the last one "
            f"has ended, and Parsl has asked for no other"
        )

    def close(self, seconds: float) -> None:
        """Have no more of them, and wait until those that came have gone, so long at most."""
        with self._lock:
            self._is_closed = True
            there = [self._under_way[number] for number in self._arrived]
        wait(there, seconds)
