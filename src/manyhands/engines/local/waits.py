"""How a call waits in a worker: its cpus go to others meanwhile, and no interrupt tears what it is in the midst of."""

from __future__ import annotations

import select
from _thread import get_ident
from time import perf_counter

from manyhands.engines.local import messages as m
from manyhands.engines.local.channel import LONGEST_SECONDS
from manyhands.errors import CallInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self

    from manyhands.core.interruption import Interruptible
    from manyhands.engines.local.worker import Worker


_TAKING_SECONDS = 0.001
"""How often a thread that waits looks whether what another one has read is taken in."""


class _RousedError(Exception):
    """Ends the sleep of a call that is interrupted while it waits."""


class Waits:
    """The waits of the call that a worker is at, and what holds interrupts back from it.

    Parameters
    ----------
    worker
        Whose main thread waits.

    Attributes
    ----------
    seconds : float
        That the call has waited so far.
    is_waiting : bool
        Whether it waits, and so reads what comes.
    """

    def __init__(self, worker: Worker) -> None:
        self.seconds = 0.0
        self.is_waiting = False
        self._worker = worker
        self._main = get_ident()
        self._poll = select.poll()
        self._poll.register(worker.channel.fileno(), select.POLLIN)
        self._guards = 0
        self._is_asleep = False
        self._is_interrupted = False
        self._may_go_on = False
        self._taken = 0  # messages, so far

    def interrupt(self) -> None:
        """The call is to end: at once, or where it is guarded, at the end of that (in a signal handler)."""
        if not self._guards:
            raise CallInterrupted("the call was cancelled, or has run out of time")
        self._is_interrupted = True
        if self._is_asleep:
            raise _RousedError

    @property
    def is_due(self) -> bool:
        """Whether the call will be interrupted at the end of the guard that it is under."""
        return self._is_interrupted

    def guard(self) -> Waits | Interruptible | _Nothing:
        """In a ``with`` block: hold interrupts back until its end."""
        if get_ident() == self._main:
            return self
        return self._worker.find_guard() or _NOTHING

    def __enter__(self) -> Self:
        self._guards += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._guards -= 1
        if not self._guards and self._is_interrupted:
            self._is_interrupted = False
            if error is None:
                raise CallInterrupted("the call was cancelled, or has run out of time")

    def let_go_on(self) -> None:
        """The parent has cpus for the call again."""
        self._may_go_on = True

    def wait(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        """Wait until `is_done`, taking in messages; False where `timeout` seconds passed first.

        Parameters
        ----------
        is_done
        timeout
        key
            Of the one call that is waited for, if it is one.
        """
        with self:
            self.take_in()
            if is_done():
                return True
            begin = perf_counter()
            deadline = None if timeout is None else begin + timeout
            outer, self.is_waiting = self.is_waiting, True
            try:
                return self._wait(is_done, deadline, key)
            finally:
                self.is_waiting = outer
                self.seconds += perf_counter() - begin

    def _wait(self, is_done: Callable[[], bool], deadline: float | None, key: int) -> bool:
        worker = self._worker
        worker.flush()
        while True:
            self._may_go_on = False
            worker.channel.send((m.BLOCKED, worker.give_up_waiting(), key))
            is_awake = False
            while not self._may_go_on:
                # What it waits for may have been on its way already when the parent was told that it waits.
                taken = self._taken
                is_over = self._is_interrupted or _is_over(deadline) or is_done()
                if self._may_go_on:
                    break
                if self._taken != taken and not is_over:
                    continue  # asking has taken messages in, which may be what it asked for
                if is_over and not is_awake:
                    is_awake = True
                    worker.channel.send((m.WAKE, self._is_interrupted or _is_over(deadline)))
                self._sleep(None if is_awake else deadline, is_awake=is_awake)
                self.take_in()
            if is_done():
                return True
            if self._is_interrupted or _is_over(deadline):
                return False

    def lend(self, sleep: Callable[[], Any]) -> Any:
        """Let the cpus go to others while `sleep` waits, for what an event loop waits for; what it returns, if it does.

        It has to end when a message comes.
        """
        with self:
            begin = perf_counter()
            outer, self.is_waiting = self.is_waiting, True
            try:
                return self._lend(sleep)
            finally:
                self.is_waiting = outer
                self.seconds += perf_counter() - begin

    def _lend(self, sleep: Callable[[], Any]) -> Any:
        worker = self._worker
        worker.flush()
        self._may_go_on = False
        worker.channel.send((m.BLOCKED, worker.give_up_waiting(), 0))
        found = None
        try:
            self._is_asleep = True
            if not self._is_interrupted and not worker.taking:
                found = sleep()
        except _RousedError:
            pass
        finally:
            self._is_asleep = False
        self.take_in()
        if (
            not self._may_go_on
        ):  # it was no result that ended it, so it cannot be made to wait for cpus
            worker.channel.send((m.WAKE, True))
        while not self._may_go_on:
            self._sleep(None, is_awake=True)
            self.take_in()
        return found

    def _sleep(self, deadline: float | None, *, is_awake: bool) -> None:
        left = None if deadline is None else max(0.0, deadline - perf_counter())
        if self._worker.taking:  # what another thread has read may be what is waited for
            left = _TAKING_SECONDS if left is None else min(left, _TAKING_SECONDS)
        try:
            self._is_asleep = True
            # An interrupt that came before this line has roused nobody; the parent is told of it in the next round.
            if is_awake or not self._is_interrupted:
                self._poll.poll(None if left is None else min(left, LONGEST_SECONDS) * 1000)
        except _RousedError:
            pass
        finally:
            self._is_asleep = False

    def take_in(self) -> None:
        """Take in all messages that are there."""
        worker = self._worker
        while True:
            with worker.reading:
                received = worker.channel.receive(wait=False)
            if received is None:
                return
            self._taken += 1
            worker.take_beside(*received)


class _Nothing:
    """Guards a thread that no call runs in, and so nothing interrupts."""

    is_due = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


_NOTHING = _Nothing()


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and perf_counter() >= deadline
