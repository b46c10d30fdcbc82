"""A call under way in a thread of this process."""

from __future__ import annotations

import threading
from time import monotonic

from manyhands.core import place
from manyhands.core.attempt import attempt, describe_call
from manyhands.core.interruption import Interruptible
from manyhands.core.interrupts import HeldInterrupts
from manyhands.core.stacks import format_traceback
from manyhands.core.timeouts import make_timeout_error
from manyhands.errors import CallInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import Context

    from manyhands.core.attempt import Outcome
    from manyhands.core.engine import Sink
    from manyhands.core.model import Call
    from manyhands.core.roles import Post
    from manyhands.errors import CallTimeoutError


class Run(Interruptible):
    """One attempt at a call in this process.

    Attributes
    ----------
    call
    context
        Of its context variables.
    began : float
        When it began, by `time.monotonic`; 0 before that.
    is_late : bool
        Whether it was told to end because its time was over.
    """

    __slots__ = ("_is_claimed", "began", "call", "context", "is_late")

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call
        self.context: Context | None = None
        self.began = 0.0
        self.is_late = False
        self._is_claimed = False

    def perform(self, sink: Sink, post: Post | None) -> Outcome:
        """Run the call here, unless it was interrupted before; its value, or its error."""
        try:
            try:
                self.begin()
                outcome = attempt(self.call, sink, post, self.context)
            finally:
                self.leave()
        except (
            CallInterrupted
        ) as late:  # it came when the call itself was over, or before it had begun
            self.leave()  # again, since it may not have got there; there is one interrupt and no more
            outcome = None, late
        return outcome

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
