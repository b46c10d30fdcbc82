"""What a process was at when it died: told by a file that it kept, for others of its host to read."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SIZE = 64 * 1024
"""Room for the names of some thousand calls; those past it are not told."""


class Marks:
    """The calls that this process is at, written where they outlive it.

    Parameters
    ----------
    session, worker
        Name the file.
    """

    def __init__(self, session: str, worker: str) -> None:
        self._session = session
        self._path = _find_path(session, worker)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(fd, _SIZE)
            self._memory: mmap.mmap | None = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)

    def write(self, ids: Iterable[str]) -> None:
        """These are what it is at now; after `close` nobody is told."""
        content = "\n".join(ids).encode()[: _SIZE - 1] + b"\0"
        if self._memory is not None:
            self._memory[: len(content)] = content

    def close(self) -> None:
        """Remove the file, and those of the session's processes of this host that have died and nobody asked for."""
        self._memory = None
        for path in self._path.parent.glob(f"{self._session}-*"):
            path.unlink(missing_ok=True)


def read_marks(session: str, worker: str) -> list[str] | None:
    """What a process of this host was at when it ended; None where nothing tells."""
    path = _find_path(session, worker)
    try:
        content = path.read_bytes()
    except OSError:
        return None
    path.unlink(missing_ok=True)
    told, end, _ = content.partition(b"\0")
    return told.decode().split("\n") if end else None


def _find_path(session: str, worker: str) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in worker)
    return Path(tempfile.gettempdir()) / f"{session}-{name}"
