"""What a shuffle keeps between its two halves: the pieces that each partition was cut into.

Each is a mapping from the number of an output partition to the piece for it. In this process they are the objects
themselves, as long as there is room; beyond that, and between processes, pickles in one buffer, which the session's
store or a file without a name holds. A reader then loads its own piece alone, and its arrays are read in place.
"""

from __future__ import annotations

import threading
from pickle import loads
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from weakref import finalize

import dask
import numpy as np

from manyhands.core.serialize import dump_apart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from manyhands.core.refs import Ref

_SHARE = 4
"""The part of the available memory that pieces may take as objects: a quarter. The store's default is two fifths, and
the program needs some too."""

_SMALL = 1 << 14
"""Bytes that travel in a message, and not through shared memory."""

_ALIGNMENT = 64
"""Of arrays in a buffer, as NumPy's own in memory."""


class Room:
    """Memory for pieces that are kept as the objects that they are.

    Parameters
    ----------
    limit
        In bytes; left out, a quarter of what is available now.
    """

    def __init__(self, limit: float | None = None) -> None:
        if limit is None:
            from manyhands.core.machine import read_memory

            available = read_memory().available
            limit = float("inf") if available is None else available / _SHARE
        self._free = limit
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Reserve `size` bytes; False where there are not as many."""
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True

    def give_back(self, size: int) -> None:
        """Make them available again."""
        with self._lock:
            self._free += size


class Held(dict[int, Any]):
    """Pieces as the objects that they are."""

    __slots__ = ("__weakref__",)


class Packed:
    """Pieces as pickles in one buffer.

    Attributes
    ----------
    buffer : numpy.ndarray of uint8
        Pickles, and the arrays that they refer to.
    parts : numpy.ndarray
        The numbers of the pieces, ascending.
    firsts : numpy.ndarray
        For each piece its first row in `spans`, and at the end the number of rows.
    spans : numpy.ndarray
        First and last place in the buffer, of each pickle and, after it, of its arrays.
    """

    __slots__ = ("buffer", "firsts", "parts", "spans")

    def __init__(self, buffer: Any, parts: Any, firsts: Any, spans: Any) -> None:
        self.buffer = buffer
        self.parts = parts
        self.firsts = firsts
        self.spans = spans

    def get(self, part: int) -> Any:
        """The piece of this number, or None; its arrays lie in the buffer and cannot be written."""
        row = int(np.searchsorted(self.parts, part))
        if row == len(self.parts) or self.parts[row] != part:
            return None
        view = memoryview(self.buffer).toreadonly()
        first, last = self.firsts[row : row + 2].tolist()
        pickle, *arrays = (view[begin:end] for begin, end in self.spans[first:last].tolist())
        return loads(pickle, buffers=arrays)


class Stored:
    """Pieces that the session's store holds.

    Parameters
    ----------
    ref
        Of a `Packed`.
    """

    def __init__(self, ref: Ref[Packed]) -> None:
        self._ref = ref

    def get(self, part: int) -> Any:
        """As of `Packed`."""
        return self._ref.get().get(part)


def keep(pieces: Mapping[int, Any], size: int, room: Room | None) -> Held | Packed | Stored:
    """Keep pieces until they are asked for.

    Parameters
    ----------
    pieces
        By the number of the output partition.
    size
        About how many bytes they take in memory.
    room
        For pieces as objects; None where the readers are in other processes.
    """
    if room is None:
        return _pack(pieces, _allocate)
    if room.take(size):
        held = Held(pieces)
        finalize(held, room.give_back, size).atexit = False
        return held
    from manyhands.session import get_session

    session = get_session()
    if session.capabilities.stores:
        return Stored(session.put(_pack(pieces, _allocate)))
    return _pack(pieces, _map_file)


def _allocate(size: int) -> Any:
    if size <= _SMALL:
        return np.empty(size, np.uint8)
    from manyhands.api.data import empty

    return empty(size, np.uint8)


def _map_file(size: int) -> Any:
    with TemporaryFile(dir=dask.config.get("temporary_directory", None)) as file:
        return np.memmap(file, np.uint8, "w+", shape=(size,))


def _pack(pieces: Mapping[int, Any], allocate: Any) -> Packed:
    parts = sorted(pieces)
    firsts, spans, contents = [0], [], []
    end = 0
    for part in parts:
        for content in _dump(pieces[part]):
            begin = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = begin + content.nbytes
            spans.append((begin, end))
            contents.append(content)
        firsts.append(len(spans))
    buffer = allocate(max(end, 1))
    view = memoryview(buffer)
    for (begin, end), content in zip(spans, contents, strict=True):
        view[begin:end] = content
    return Packed(
        buffer,
        np.array(parts, np.int64),
        np.array(firsts, np.int64),
        np.array(spans, np.int64).reshape(-1, 2),
    )


def _dump(piece: object) -> list[memoryview]:
    """The pickle of a piece, and the arrays that it refers to."""
    pickle, buffers = dump_apart(piece)
    return [memoryview(pickle), *(buffer.raw() for buffer in buffers)]
