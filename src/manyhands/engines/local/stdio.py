"""What a worker prints, logs and warns, on its way to the parent."""

from __future__ import annotations

import io
import os
import sys
from _pickle import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from _typeshed import ReadableBuffer


class _Output(io.FileIO):
    """A pipe to the parent that remembers whether anything was written to it."""

    wrote = False

    def write(self, data: ReadableBuffer, /) -> int:
        _Output.wrote = True
        return super().write(data)


def redirect(stdout: int, stderr: int) -> None:
    """Make these pipes the standard output and error of the process, for Python and for native code."""
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    sys.stdout = sys.__stdout__ = _open_text(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _open_text(2)  # type: ignore[misc]


def _open_text(fd: int) -> io.TextIOWrapper:
    raw = _Output(fd, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
        newline="\n",
    )


def flush() -> bool:
    """Send what is buffered; whether anything was written since the last time."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # a user's own stream, or one that the user closed
            continue
    wrote, _Output.wrote = _Output.wrote, False
    return wrote


def forward_logging(levels: dict[str, int], send: Callable[[bytes], object]) -> None:
    """Send every log record that passes the parent's levels to the parent, whose handlers see to it.

    Parameters
    ----------
    levels
        Of the parent's loggers that have one of their own; ``""`` is the root logger.
    send
        Takes a pickled dictionary of the record's attributes.
    """
    import logging

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                send(dumps(_flatten(record), 5))
            except Exception:
                self.handleError(record)

    def _flatten(record: logging.LogRecord) -> dict[str, Any]:
        state = {**record.__dict__, "msg": record.getMessage(), "args": None}
        if record.exc_info:
            state["exc_text"] = logging.Formatter().formatException(record.exc_info)
            state["exc_info"] = None
        for name, value in state.items():
            if not isinstance(value, (str, int, float, bool, type(None))):
                state[name] = str(value)
        return state

    logging.getLogger().addHandler(Forward())
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
