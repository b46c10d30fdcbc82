"""What a worker prints, on its way to the parent."""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
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
