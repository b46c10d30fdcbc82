"""Large values: files in a folder that the program and the workers share."""

from __future__ import annotations

import mmap
import os
import pickle
import shutil
import struct
import threading
from itertools import count
from pathlib import Path
from weakref import finalize

from manyhands.engines.cluster.packed import Packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

KEEP_BYTES = 32 * 1024
"""Values from this size on are files; smaller ones travel with the messages about them."""

_ALIGNMENT = 64
"""At multiples of which buffers begin in a file, as arrays want."""

_vaults: dict[str, Vault] = {}
"""Of this process, by the names of their sessions."""


class Token:
    """Stands for a value in a file. While there is one, somewhere, so is the file."""

    __slots__ = ("__weakref__", "folder", "name", "session")

    def __init__(self, session: str, folder: Path, name: str) -> None:
        self.session = session
        self.folder = folder
        self.name = name

    def __reduce__(self) -> Any:
        return _revive, (self.session, self.folder, self.name)


def _revive(session: str, folder: Path, name: str) -> Token:
    vault = _vaults.get(session)
    # Of another session the program alone, which has sent it here, keeps the file.
    return Token(session, folder, name) if vault is None else vault.hold(folder, name)


class Vault:
    """The files of a session, seen from one process.

    Parameters
    ----------
    session
    folder
        Where they are; None where none is shared, and values travel as they are.
    is_near
        Whether files are removed by a process of this machine: then they can be mapped. Elsewhere they are read, since
        pages of a file that is removed on another machine are lost.
    on_first, on_last
        Called when the first token of a file appears in this process, with that, and when the last one goes, with its
        name. Left out in the program, which removes the file.
    """

    def __init__(
        self,
        session: str,
        folder: str | None,
        *,
        is_near: bool,
        on_first: Callable[[Token], Any] | None = None,
        on_last: Callable[[str], Any] | None = None,
    ) -> None:
        self._session = session
        self._folder = Path(folder) if folder is not None else None
        self._is_near = is_near
        self._on_first = on_first
        self._on_last = on_last or self._remove
        self._counts: dict[str, int] = {}
        # Tokens go whenever their last reference does, also amid what is done here.
        self._lock = threading.RLock()
        self._numbers = count(1)
        self._prefix = f"{os.getpid()}-{os.urandom(4).hex()}"
        _vaults[session] = self

    def keep(self, packed: Packed) -> Packed | Token:
        """A value as it travels: itself where it is small, else a token of it.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        if self._folder is None or packed.nbytes < KEEP_BYTES:
            return packed
        name = f"{self._prefix}-{next(self._numbers)}"
        token = self.hold(self._folder, name)
        write_value(self._folder / name, packed)
        return token

    def hold(self, folder: Path, name: str) -> Token:
        """A token of a file of the session."""
        token = Token(self._session, folder, name)
        with self._lock:
            number = self._counts.get(name, 0)
            self._counts[name] = number + 1
            finalize(token, self._let_go, name).atexit = False
            if not number and self._on_first is not None:
                self._on_first(token)
        return token

    def _let_go(self, name: str) -> None:
        with self._lock:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]
                self._on_last(name)

    def _remove(self, name: str) -> None:
        if self._folder is not None:
            (self._folder / name).unlink(missing_ok=True)

    def read(self, value: Packed | Token) -> Packed:
        """The value behind what `keep` gave somewhere.

        Raises
        ------
        OSError
        """
        if isinstance(value, Packed):
            return value
        return read_value(value.folder / value.name, is_mapped=self._is_near)

    def do_without(self) -> None:
        """Workers do not see the folder: from now on values travel as they are."""
        self.clear()
        self._folder = None

    def close(self) -> None:
        """Nobody uses it in this process any more."""
        if _vaults.get(self._session) is self:
            del _vaults[self._session]

    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def write_value(path: Path, packed: Packed) -> None:
    """Write a value into a new file: sizes, then the stubs of its refs, its pickle and its buffers."""
    head = pickle.dumps((packed.stubs, packed.is_private), 5)
    parts = [memoryview(part).cast("B") for part in (head, packed.stream, *packed.buffers)]
    with path.open("xb") as file:
        position = file.write(_pack_sizes([part.nbytes for part in parts]))
        for part in parts:
            position += file.write(bytes(-position % _ALIGNMENT))
            position += file.write(part)


def read_value(path: Path, *, is_mapped: bool) -> Packed:
    """The value of a file; arrays in it are read-only.

    Parameters
    ----------
    path
    is_mapped
        Whether its buffers are the pages of the file; else they are copies.
    """
    content: Any
    if is_mapped:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    else:
        content = path.read_bytes()
    view = memoryview(content)
    (number,) = struct.unpack_from("<Q", view)
    sizes = struct.unpack_from(f"<{number}Q", view, 8)
    position = 8 * (1 + number)
    parts = []
    for size in sizes:
        position += -position % _ALIGNMENT
        parts.append(view[position : position + size])
        position += size
    head, stream, *buffers = parts
    stubs, is_private = pickle.loads(head)
    return Packed(stream, buffers, stubs, is_private)  # type: ignore[arg-type]


def _pack_sizes(sizes: list[int]) -> bytes:
    return struct.pack(f"<{len(sizes) + 1}Q", len(sizes), *sizes)
