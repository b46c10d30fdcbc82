"""A call under way in a thread of this process, and how other threads end it.

Python can raise an exception in another thread, which comes between two of its instructions. Two things make that safe
here. It must not come when the call is over, or it would hit the next one: both sides hold a lock while one of them
says that the call has left the thread and the other sends. And it must not tear what belongs to all, such as an
engine's queue: code of ours that a call uses runs under a *guard*, and what was sent meanwhile is raised at its end.
"""

from __future__ import annotations

import threading
from time import monotonic

from manyhands.core import place
from manyhands.core.attempt import attempt, describe_call
from manyhands.core.interruption import let_interrupt_come, send_interrupt
from manyhands.core.interrupts import HeldInterrupts
from manyhands.core.stacks import format_traceback
from manyhands.core.timeouts import make_timeout_error
from manyhands.errors import CallInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from types import TracebackType
    from typing import Self

    from manyhands.core.attempt import Outcome
    from manyhands.core.engine import Sink
    from manyhands.core.model import Call
    from manyhands.core.roles import Post
    from manyhands.errors import CallTimeoutError

_REASON = "the call was cancelled, or has run out of time"


class Run:
    """One attempt at a call in this process.

    A context manager: it holds interrupts back from the call's own thread until the block's end.

    Attributes
    ----------
    call
    context
        Of its context variables.
    began : float
        When it began, by `time.monotonic`; 0 before that.
    thread : int
        The thread that is at it; 0 where none is.
    is_interrupted : bool
        Whether it was told to end.
    is_due : bool
        Whether it was told so under a guard, at whose end it will know.
    is_late : bool
        Whether it was told so because its time was over.
    is_given_up : bool
        Whether nobody waits for its thread any more.
    wake
        Ends the wait of ours that it is in; None where it is in none.
    stop
        Interrupts it where it is a task of an event loop; None where it is not.
    """

    __slots__ = (
        "_guards",
        "_is_claimed",
        "_is_postponed",
        "_lock",
        "began",
        "call",
        "context",
        "is_due",
        "is_given_up",
        "is_interrupted",
        "is_late",
        "stop",
        "thread",
        "wake",
    )

    def __init__(self, call: Call) -> None:
        self.call = call
        self.context: Context | None = None
        self.began = 0.0
        self.thread = 0
        self.is_interrupted = False
        self.is_due = False
        self.is_late = False
        self.is_given_up = False
        self.wake: Callable[[], object] | None = None
        self.stop: Callable[[], object] | None = None
        self._lock = threading.Lock()
        self._guards = 0
        self._is_postponed = False  # whether not this guard, but the next one raises the interrupt
        self._is_claimed = False

    # In the thread of the call.

    def perform(self, sink: Sink, post: Post | None) -> Outcome:
        """Run the call here, unless it was interrupted before; its value, or its error."""
        try:
            try:
                if self._begin():
                    outcome = attempt(self.call, sink, post, self.context)
                else:
                    outcome = None, CallInterrupted(_REASON)
            finally:
                self._leave()
        except CallInterrupted as late:  # it came when the call itself was over
            self._leave()  # again, since it may not have got there; there is one interrupt and no more
            outcome = None, late
        return outcome

    def _begin(self) -> bool:
        with self._lock:
            if self.is_interrupted:
                return False
            self.thread = threading.get_ident()
            return True

    def _leave(self) -> None:
        """From here on no interrupt will come to this thread; one that is under way comes now."""
        with self._lock:
            thread, self.thread = self.thread, 0
            if thread and self.is_interrupted:
                try:
                    let_interrupt_come()
                except CallInterrupted:
                    pass  # the call is over

    def __enter__(self) -> Self:
        with self._lock:
            if self.is_interrupted and not self._guards:
                let_interrupt_come()
                if self.is_given_up:  # it caught that, and goes on; it must not make more calls
                    raise CallInterrupted(_REASON)
            self._guards += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._guards -= 1
            is_due = self.is_due and not self._guards
            if is_due:
                self.is_due = self._is_postponed
                self._is_postponed, is_due = False, not self._is_postponed
        if is_due and not isinstance(error, CallInterrupted):
            raise CallInterrupted(_REASON)

    # In other threads.

    def interrupt(self) -> None:
        """Have the call raise `CallInterrupted`, once; before it has begun it then does not begin."""
        with self._lock:
            if self.is_interrupted:
                return
            self.is_interrupted = True
            wake, stop = self.wake, self.stop
            # A call that ends itself, by way of its session, is let go on until the session is through with that.
            is_own = self.thread == threading.get_ident()
            if is_own or (self.thread and self._guards):
                self.is_due, self._is_postponed = True, is_own and self._guards > 0
            elif self.thread:
                send_interrupt(self.thread)
        for tell in (wake, stop):
            if tell is not None:
                tell()

    def set_stop(self, stop: Callable[[], object]) -> bool:
        """It is a task of an event loop now; False where it was interrupted before that."""
        with self._lock:
            self.stop = stop
            return not self.is_interrupted

    def set_wake(self, wake: Callable[[], object] | None) -> bool:
        """It begins to wait, or ends to; False where it was interrupted before that."""
        with self._lock:
            self.wake = wake
            return not self.is_interrupted

    def claim(self) -> bool:
        """Whether the caller is the first who wants to say how the attempt ended."""
        with self._lock:
            is_first, self._is_claimed = not self._is_claimed, True
            return is_first

    def let_go(self) -> None:
        """The attempt has ended. Its context leads back here, and the circle would keep the call until a collection."""
        self.context = None

    def give_up(self) -> bool:
        """Leave the call to its thread; False where it has left that already, and its end is on the way."""
        with self._lock:
            self.is_given_up = self.thread != 0
            return self.is_given_up

    # Its time.

    def is_over_time(self) -> bool:
        """Whether it has run longer than it may."""
        timeout = self.call.options.timeout
        return timeout is not None and (self.is_late or monotonic() - self.began >= timeout)

    def make_timeout_error(
        self, cause: BaseException | None = None, *, stack: str = ""
    ) -> CallTimeoutError:
        """What its time-out makes of it.

        Parameters
        ----------
        cause
            What it ended with; by an interrupt, most often, which tells where it stood.
        stack
            Where it stands, if it has not ended.
        """
        timeout = self.call.options.timeout
        assert timeout is not None
        error = make_timeout_error(
            describe_call(self.call),
            self.call.key,
            timeout,
            monotonic() - self.began,
            stack or format_traceback(cause),
        )
        error.__cause__ = None if isinstance(cause, CallInterrupted) else cause
        return error


class _MainGuard:
    """Holds Ctrl-C back from the main thread, which is at no call; in other threads it does nothing."""

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._interrupts = HeldInterrupts()
        self._depth = 0
        self._holds = False

    def __enter__(self) -> None:
        if threading.get_ident() == self._main:
            if not self._depth:
                self._holds = self._interrupts.hold()
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() == self._main:
            self._depth -= 1
            if not self._depth and self._holds:
                self._interrupts.release()


_main_guard = _MainGuard()


def guard() -> Run | _MainGuard:
    """For a ``with`` block that an interrupt of the call that this thread is at, or Ctrl-C, must not tear."""
    run = get_own_run()
    return run if run is not None else _main_guard


def get_own_run() -> Run | None:
    """The run that this thread is at; None in a thread, or task, that a call uses beside its own."""
    here = place.here.get()
    run = here.post if here is not None else None
    return run if isinstance(run, Run) and run.thread == threading.get_ident() else None
