"""Where a call stands, or stood, as text: frames as tracebacks show them."""

from __future__ import annotations

import sys
import threading
from os.path import dirname, join

from manyhands.errors import CallInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from traceback import FrameSummary

_HOME = dirname(dirname(__file__))
_OURS = (join(_HOME, "core"), join(_HOME, "engines"), join(_HOME, "session.py"))


def see_stack(thread: int) -> str:
    """Where a thread stands right now, the innermost frame last."""
    from traceback import extract_stack

    frame = sys._current_frames().get(thread)
    return "" if frame is None else format_frames(extract_stack(frame))


def format_traceback(error: BaseException | None) -> str:
    """Where an error was raised, or the interrupt that it followed on."""
    from traceback import extract_tb

    first = error
    while first is not None and not isinstance(first, CallInterrupted):
        first = first.__context__
    found = first if first is not None else error
    return "" if found is None else format_frames(extract_tb(found.__traceback__))


def format_frames(frames: Iterable[FrameSummary]) -> str:
    """Frames as tracebacks show them, without those of ours, which tell nothing of the call."""
    from traceback import format_list

    kept = [frame for frame in frames if not frame.filename.startswith(_OURS)]
    # A thread begins in the standard library.
    while kept and kept[0].filename == threading.__file__:
        del kept[0]
    return "".join(format_list(kept)).rstrip()
