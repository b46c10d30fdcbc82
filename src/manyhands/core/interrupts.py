"""Ctrl-C must not tear a step of an engine apart: it is held back until the step is whole."""

from __future__ import annotations

import _signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

# `signal.signal` converts to enums and back and takes 6 µs; what lies under it takes 0.4, and this is done
# once or twice in every round trip.
_get_handler = _signal.getsignal
_set_handler = _signal.signal


class HeldInterrupts:
    """Holds SIGINT back in the main thread between `hold` and `release`; elsewhere it does nothing.

    Between `begin_wait` and `end_wait` nothing is held back, because nothing can be torn: a wait then ends with
    KeyboardInterrupt at once. Whatever handler was in force is called in the end, and stays in force.
    """

    def __init__(self) -> None:
        self._is_waiting = False
        self._previous: Any = None
        self._pending: tuple[int, FrameType | None] | None = None
        self._main = threading.main_thread().ident

    def hold(self) -> bool:
        """Begin; whether there is something to `release`."""
        if threading.get_ident() != self._main or self._previous is not None:
            return False
        previous = _get_handler(_signal.SIGINT)
        if not callable(previous):  # ignored, or left to the system, or not Python's at all
            return False
        self._previous = previous
        _set_handler(_signal.SIGINT, self._handle)
        return True

    def release(self) -> None:
        """End, and let an interrupt happen that came meanwhile."""
        previous, self._previous = self._previous, None
        pending, self._pending = self._pending, None
        _set_handler(_signal.SIGINT, previous)
        if pending is not None:
            previous(*pending)

    def begin_wait(self) -> None:
        """Let an interrupt happen when it comes, and at once where it has come already: the wait may be long."""
        if self._previous is None or threading.get_ident() != self._main:
            return
        self._is_waiting = True
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._previous(*pending)

    def end_wait(self) -> None:
        """Hold interrupts back again."""
        if threading.get_ident() == self._main:
            self._is_waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_waiting:
            self._previous(number, frame)
        else:
            self._pending = (number, frame)
