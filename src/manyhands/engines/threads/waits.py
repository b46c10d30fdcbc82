"""Threads that wait for calls to end, and for cpus to go on with."""

from __future__ import annotations

from functools import partial
from time import monotonic

from manyhands.core.run import guard
from manyhands.engines.threads.bell import Bell

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any

    from manyhands.engines.threads.runs import ThreadRun
    from manyhands.engines.threads.schedule import Schedule, Seat

_CLOSED_SECONDS = 0.01
"""How often those look who wait on an engine that has closed: nobody will tell them."""


class Waiter(Bell):
    """A thread that waits.

    Attributes
    ----------
    key
        The call that is waited for; 0 for any.
    seat
        What the waiting thread gives up meanwhile; None where it is at no call.
    is_returning
        Whether it wants to go on, and waits for cpus.
    is_back
        Whether it has them again.
    """

    __slots__ = ("is_back", "is_returning", "key", "seat")

    def __init__(self, key: int = 0, seat: Seat | None = None) -> None:
        super().__init__()
        self.key = key
        self.seat = seat
        self.is_returning = False
        self.is_back = False


class Waits:
    """Who waits.

    Parameters
    ----------
    lock
        The engine's.
    schedule
        Gives cpus up and back.
    dispatch
        Has calls started for which there is room; it is called with the lock held.
    """

    def __init__(
        self, lock: threading.Lock, schedule: Schedule, dispatch: Callable[[], None]
    ) -> None:
        self._lock = lock
        self._schedule = schedule
        self._dispatch = dispatch
        self._waiters: dict[int, list[Waiter]] = {}  # by key
        self._is_closed = False

    def announce(self, key: int, *, is_over: bool) -> None:
        """A call has ended, or, where it is perhaps tried again, an attempt at it (with the lock held)."""
        for waiter in self._waiters.get(key, ()):
            if is_over and waiter.seat is not None:
                # It takes its cpus before calls do that have not started, though it is still asleep.
                self._schedule.ask_return(waiter)
            else:
                waiter.ring()
        self.ring(0)

    def ring(self, key: int) -> None:
        """Have those look again who wait for a call (with the lock held)."""
        for waiter in self._waiters.get(key, ()):
            waiter.ring()

    def ring_all(self) -> None:
        """Have all look again (with the lock held)."""
        for key in self._waiters:
            self.ring(key)

    def close(self) -> None:
        """From now on nobody is told (with the lock held)."""
        self._is_closed = True
        self.ring_all()

    def wait(self, is_done: Callable[[], bool], timeout: float | None, key: int) -> bool:
        """Wait in a thread that is at no call of this engine."""
        if is_done():
            return True
        deadline = None if timeout is None else monotonic() + timeout
        waiter = Waiter(key)
        try:
            with guard(), self._lock:
                self._add(waiter)
                self._dispatch()  # this thread may see to a call's end, and wait in the midst of that
            self._sleep_until(is_done, waiter, deadline)
        finally:
            with guard(), self._lock:
                self._remove(waiter)
        return is_done()

    def wait_in(
        self, run: ThreadRun, is_done: Callable[[], bool], timeout: float | None, key: int
    ) -> bool:
        """Wait in the thread of a call, whose cpus others may have meanwhile."""
        begin = monotonic()
        deadline = None if timeout is None else begin + timeout
        with run:
            while not (is_done() or _is_over(deadline) or run.is_due):
                self._park(run, is_done, deadline, key)
            run.parked += monotonic() - begin
        return is_done()

    def _park(
        self, run: ThreadRun, is_done: Callable[[], bool], deadline: float | None, key: int
    ) -> None:
        seat = run.seat
        waiter = Waiter(key, seat)
        run.set_wake(partial(self._wake, waiter))
        with self._lock:
            self._add(waiter)
            self._schedule.park(seat)
            self._dispatch()
        try:
            while not (waiter.is_back or is_done() or _is_over(deadline) or run.is_due):
                self._sleep(waiter, deadline)
        finally:
            with self._lock:
                self._remove(waiter)
                self._schedule.ask_return(waiter)
                self._dispatch()
            self._come_back(run, waiter, deadline)

    def await_cpus(self, run: ThreadRun) -> None:
        """Before a call of an actor begins: its actor gave the cpus up, as all of its calls waited."""
        waiter = Waiter(0, run.seat)
        run.set_wake(partial(self._wake, waiter))
        with self._lock:
            self._schedule.ask_return(waiter)
            self._dispatch()
        self._come_back(run, waiter, None)

    def lend(self, run: ThreadRun, wake: Callable[[], object], sleep: Callable[[], Any]) -> Any:
        """Let the cpus of a call go to others while `sleep` waits in its thread; what that returns.

        `wake` ends it early.
        """
        found = None
        with run:
            begin = monotonic()
            waiter = Waiter(0, run.seat)
            with self._lock:
                self._schedule.park(run.seat)
                self._dispatch()
            try:
                if run.set_wake(wake):
                    found = sleep()
            finally:
                run.set_wake(partial(self._wake, waiter))
                with self._lock:
                    self._schedule.ask_return(waiter)
                    self._dispatch()
                self._come_back(run, waiter, None)
                run.parked += monotonic() - begin
        return found

    def _come_back(self, run: ThreadRun, waiter: Waiter, deadline: float | None) -> None:
        """Go on when there are cpus, or the call must end, or has waited as long as it said."""
        while not (waiter.is_back or self._is_closed or _is_over(deadline)):
            if run.is_due or (run.is_interrupted and not run.thread):
                break
            self._sleep(waiter, deadline)
        with self._lock:
            self._schedule.return_at_once(waiter)
        run.set_wake(None)

    def wait_for_credit(self, run: ThreadRun) -> None:
        """Wait beside the thread of a call, until more items of its stream are wanted or it is to end."""
        waiter = Waiter()
        if not run.set_wake(partial(self._wake, waiter)):
            return
        while run.credit <= 0 and not run.is_interrupted:
            self._sleep(waiter, None)
        run.set_wake(None)

    def _wake(self, waiter: Waiter) -> None:
        with self._lock:
            waiter.ring()

    def _sleep_until(
        self, is_done: Callable[[], bool], waiter: Waiter, deadline: float | None
    ) -> None:
        # A function of its own: since Python 3.13 Ctrl-C passes by the `finally` around a loop as it jumps back.
        while not is_done() and not _is_over(deadline):
            self._sleep(waiter, deadline)

    def _sleep(self, waiter: Waiter, deadline: float | None) -> None:
        left = None if deadline is None else deadline - monotonic()
        if self._is_closed:
            left = _CLOSED_SECONDS if left is None else min(left, _CLOSED_SECONDS)
        waiter.sleep(left)
        with self._lock:
            waiter.hush()

    def _add(self, waiter: Waiter) -> None:
        self._waiters.setdefault(waiter.key, []).append(waiter)

    def _remove(self, waiter: Waiter) -> None:
        waiters = self._waiters.get(waiter.key, [])
        if waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[waiter.key]


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and monotonic() >= deadline
