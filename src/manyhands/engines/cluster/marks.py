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
        self._head = f"{os.getpid()}\n".encode()
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(fd, _SIZE)
            self._memory: mmap.mmap | None = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        self.write(())

    def write(self, ids: Iterable[str]) -> None:
        """These are what it is at now; after `close` nobody is told."""
        content = (self._head + "\n".join(ids).encode())[: _SIZE - 1] + b"\0"
        memory = self._memory
        if memory is not None:
            memory[: len(content)] = content

    def close(self) -> None:
        """Remove the file, and those of the session's processes of this host that have died."""
        self._memory = None
        self._path.unlink(missing_ok=True)
        for path in self._path.parent.glob(f"{self._session}-*"):
            found = _read(path)
            if found is None or not Path(f"/proc/{found[0]}").exists():
                path.unlink(missing_ok=True)


def read_marks(session: str, worker: str) -> tuple[int, list[str]] | None:
    """The process id of a worker of this host, and what it was at when it ended; None where nothing tells."""
    return _read(_find_path(session, worker))


def _read(path: Path) -> tuple[int, list[str]] | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    told, end, _ = content.partition(b"\0")
    if not end:
        return None
    pid, *ids = told.decode().split("\n")
    return (int(pid), [name for name in ids if name]) if pid.isdecimal() else None


def _find_path(session: str, worker: str) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in worker)
    return Path(tempfile.gettempdir()) / f"{session}-{name}"
