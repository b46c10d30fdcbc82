"""Work in a thread that other threads may interrupt, safely.

Python can raise an exception in another thread, which comes between two of its instructions. Two things make that safe
here. It must not come when the work is over, or it would hit the next one: both sides hold a lock while one of them
says that the work has left the thread and the other sends. And it must not tear what belongs to all, such as an
engine's queue: code of ours that a call uses runs under a *guard*, and what was sent meanwhile is raised at its end.

What was sent cannot be taken back: where that is asked for, Python 3.11 keeps a flag for good that something is to be
raised, takes the slow way at every check, and hangs under a debugger. So a thread that is through lets come what is on
its way, and goes on.

An exception can also come amid a finalizer that happens to run in the thread just then, of an object that has nothing
to do with the work. Python prints and drops whatever a finalizer raises, and the work would never hear of its end. So
such an interrupt is taken from Python's hook for this, and comes again.
"""

from __future__ import annotations

import sys
import threading

from manyhands.errors import CallInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_REASON = "the call was cancelled, or has run out of time"

_AGAIN_SECONDS = 0.001
"""After which an interrupt comes again: the finalizer that it met is over by then, most often."""

_struck: dict[int, Interruptible] = {}
"""What an interrupt was sent to, by thread, until it leaves that."""

_hook_lock = threading.Lock()
_has_hook = False


class Interruptible:
    """Work that is done in a thread, once.

    A context manager: it holds interrupts back from the work's own thread until the block's end.

    Attributes
    ----------
    thread : int
        The thread that is at it; 0 where none is.
    is_interrupted : bool
        Whether it was told to end.
    is_due : bool
        Whether it was told so under a guard, at whose end it will know; or amid a finalizer, after which it will.
    is_given_up : bool
        Whether nobody waits for its thread any more.
    wake
        Ends the wait of ours that it is in; None where it is in none.
    stop
        Interrupts it where it is a task of an event loop; None where it is not.
    """

    __slots__ = (
        "_guards",
        "_is_postponed",
        "_lock",
        "is_due",
        "is_given_up",
        "is_interrupted",
        "stop",
        "thread",
        "wake",
    )

    def __init__(self) -> None:
        self.thread = 0
        self.is_interrupted = False
        self.is_due = False
        self.is_given_up = False
        self.wake: Callable[[], object] | None = None
        self.stop: Callable[[], object] | None = None
        self._lock = threading.Lock()
        self._guards = 0
        self._is_postponed = False  # whether not this guard, but the next one raises the interrupt

    # In its own thread.

    def begin(self) -> None:
        """It begins in this thread.

        Raises
        ------
        CallInterrupted
            It was told to end before.
        """
        with self._lock:
            if self.is_interrupted:
                raise CallInterrupted(_REASON)
            self.thread = threading.get_ident()

    def leave(self) -> None:
        """It is over: from here on no interrupt will come to its thread; one that is under way comes now.

        It may come amid this, as `CallInterrupted`; called again, this then does the rest.
        """
        with self._lock:
            thread, self.thread = self.thread, 0
            if thread and self.is_interrupted:
                try:
                    _let_come()
                except CallInterrupted:
                    pass  # the work is over
                if _struck.get(thread) is self:
                    del _struck[thread]

    def __enter__(self) -> Self:
        with self._lock:
            if self.is_interrupted and not self._guards:
                _let_come()
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
        """Have it raise `CallInterrupted`, once; before it has begun, it then does not begin."""
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
                _struck[self.thread] = self
                _send(self.thread)
        for tell in (wake, stop):
            if tell is not None:
                tell()

    def interrupt_again(self) -> None:
        """Have it raise `CallInterrupted` that it has not heard of, as that came amid a finalizer."""
        with self._lock:
            wake = None
            if self.thread and self.is_due:
                if self._guards:  # it is raised at their end
                    wake = self.wake
                else:
                    self.is_due = False
                    _send(self.thread)
        if wake is not None:
            wake()

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


def _send(thread: int) -> None:
    """Have `CallInterrupted` raised in a thread, given by its identifier, when it next runs Python code."""
    import ctypes  # it takes 3 ms to import, and few programs need it

    if not _has_hook:
        _set_hook()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(CallInterrupted)
    )


def _let_come() -> None:
    """Raise here what was sent to this thread and has not been raised yet: Python looks where a function begins."""


def _set_hook() -> None:
    """From now on hear of interrupts that come amid finalizers."""
    global _has_hook
    from manyhands.core import timers

    def note(kind: type[BaseException]) -> bool:
        work = _struck.get(threading.get_ident()) if kind is CallInterrupted else None
        if work is None:
            return False
        work.is_due = True  # without its lock, which this very thread may hold
        timers.timers.call_later(_AGAIN_SECONDS, work.interrupt_again)
        return True

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        try:
            is_noted = note(unraisable.exc_type)
        except CallInterrupted:  # it has come again already, and is lost again
            is_noted = note(CallInterrupted)
        if not is_noted:
            previous(unraisable)

    with _hook_lock:
        if not _has_hook:
            previous, sys.unraisablehook = sys.unraisablehook, hook
            _has_hook = True
