"""Shared memory, or a file, that values are laid out in: its bytes, seen from one process.

Each process that makes values has a heap of its own and lets the others read it. A heap has far more addresses than
will ever be used; what is not written takes no memory. Used on both sides, so it imports C modules alone.
"""

from __future__ import annotations

import mmap
import os
import sys
from _pickle import PickleBuffer
from _weakref import ref as weak

from manyhands.core.sizes import format_size
from manyhands.engines.local.shm import open_memory, reserve_memory
from manyhands.errors import StoreFullError

_WRITE_BYTES = 16 * 1024 * 1024
"""Bytes written in one system call, which a signal then waits for."""

_LEAST_BYTES = 1 << 26

DISK = -1
"""The number of the heap that is a file."""


class Heap:
    """A heap, whoever writes to it.

    Parameters
    ----------
    number
        Of the worker that it belongs to; 0 for the parent's.
    fd
        Its memory or file; owned from now on.
    size
        Its addresses, in bytes.
    writable
        Whether this process maps it for writing; else only where it is asked to.
    """

    def __init__(self, number: int, fd: int, size: int, *, writable: bool) -> None:
        self.fd = fd
        self.number = number
        self.size = size
        self.tenants = 0  # values in it, of a heap that another process lays out
        self._writing: memoryview | None = None
        self._reading = memoryview(b"")
        self._address: int | None = None
        self._mappings: list[mmap.mmap] = []  # the last one is for writing, if any is
        if writable:
            self._writing = self._map(mmap.PROT_READ | mmap.PROT_WRITE)
            self._reading = self._writing.toreadonly()
        else:
            self._reading = self._map(mmap.PROT_READ)

    def _map(self, protection: int) -> memoryview:
        mapping = mmap.mmap(self.fd, self.size, mmap.MAP_SHARED, protection)
        try:
            mapping.madvise(mmap.MADV_DONTDUMP)
        except (AttributeError, OSError):
            pass  # only a crash of this process is larger for it
        self._mappings.append(mapping)
        return memoryview(mapping)

    def view(self, start: int, length: int) -> memoryview:
        """Bytes of it, for reading, where they are."""
        return self._reading[start : start + length]

    def view_for_writing(self, start: int, length: int) -> memoryview:
        """Bytes of it, where they are; what is written is seen by all."""
        if self._writing is None:
            try:
                self._writing = self._map(mmap.PROT_READ | mmap.PROT_WRITE)
            except OSError:  # a limit of address space
                return self._map_span(mmap.MAP_SHARED, start, length)
        return self._writing[start : start + length]

    def view_privately(self, start: int, length: int) -> memoryview:
        """Bytes of it; what is written copies the page, and is seen by nobody else."""
        return self._map_span(mmap.MAP_PRIVATE, start, length)

    def _map_span(self, flags: int, start: int, length: int) -> memoryview:
        page = start - start % mmap.ALLOCATIONGRANULARITY
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        mapping = mmap.mmap(self.fd, start - page + length, flags, protection, offset=page)
        return memoryview(mapping)[start - page :]

    def write(self, start: int, raw: memoryview, *, warm: bool) -> None:
        """Copy the bytes of `raw` there.

        Parameters
        ----------
        warm
            Whether the pages are there. If they are, copying is quickest; if not, a system call that writes
            to the memory's file takes half the time, since no page is cleared or entered one by one.

        Raises
        ------
        OSError
            There is no room.
        """
        if warm:
            copy_bytes(self.view_for_writing(start, raw.nbytes), raw)
            return
        place = 0
        while place < raw.nbytes:
            place += os.pwrite(self.fd, raw[place : place + _WRITE_BYTES], start + place)

    def give_back(self, start: int, length: int) -> None:
        """Return the pages behind these addresses to the system; they read as zeros from then on."""
        if self.fd < 0 or not length:
            return
        try:
            if self._writing is None:
                self._writing = self._map(mmap.PROT_READ | mmap.PROT_WRITE)
            self._mappings[-1].madvise(mmap.MADV_REMOVE, start, length)
        except (AttributeError, OSError):
            return  # a file system that cannot: the pages are used again, or go with the file

    def reserve(self, start: int, length: int) -> None:
        """See that bytes that will be written through a mapping can be.

        Raises
        ------
        StoreFullError
        """
        try:
            reserve_memory(self.fd, start, length)
        except OSError as error:
            raise StoreFullError(
                f"{format_size(length)} of shared memory are not there: {error}"
            ) from error

    def find(self, raw: memoryview) -> int | None:
        """Where the bytes of `raw` stand in this heap; None where they are elsewhere, or nobody can tell."""
        return self.locate(find_address(raw), raw.nbytes) if raw.nbytes else None

    def locate(self, address: int | None, length: int) -> int | None:
        """Where the bytes at `address` stand in this heap; None where they are elsewhere, or nobody knows where."""
        if address is None:
            return None
        if self._address is None:
            self._address = find_address(self._reading[:1])
            if self._address is None:
                return None
        place = address - self._address
        return place if 0 <= place <= self.size - length else None

    def __del__(self) -> None:
        self.close()

    def seal(self) -> None:
        """Close the descriptor alone: what is there can be read, and nothing else."""
        os.close(self.fd)
        self.fd = -1

    def close(self) -> None:
        """Let go of it. The mapping stays as long as there are views of it."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        self._reading.release()
        if self._writing is not None:
            self._writing.release()
        for mapping in self._mappings:
            try:
                mapping.close()
            except BufferError:  # an array over it lives, and the mapping with it
                continue
        self._mappings.clear()


def open_heap(number: int, size: int) -> Heap:
    """A heap of this process's own, of `size` addresses or, where the system allows no more, fewer.

    Raises
    ------
    OSError
        No memory can be shared.
    """
    while True:
        try:
            fd = open_memory(size)
            # The named kind of memory may have given less.
            return Heap(number, fd, os.fstat(fd).st_size, writable=True)
        except (OSError, ValueError, OverflowError):
            if size <= _LEAST_BYTES:
                raise
            size //= 4  # a limit of address space, as `ulimit -v` sets


def copy_bytes(target: memoryview, source: memoryview) -> None:
    """Copy all bytes of `source`, in one piece: processors then go round their caches (256 MiB: 23 ms, not 34)."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "copyto") and hasattr(numpy, "frombuffer"):
        # It lets other threads run meanwhile.
        numpy.copyto(numpy.frombuffer(target, "u1"), numpy.frombuffer(source, "u1"))
    else:
        target[:] = source


def find_address(raw: memoryview) -> int | None:
    """The address of a buffer's first byte, if one of the libraries in this process can tell it."""
    numpy, arrow = sys.modules.get("numpy"), sys.modules.get("pyarrow")
    if numpy is not None and hasattr(numpy, "frombuffer"):  # it may be half loaded
        return int(numpy.frombuffer(raw, "u1").__array_interface__["data"][0])
    if arrow is not None and hasattr(arrow, "py_buffer"):
        return int(arrow.py_buffer(raw).address)
    return None


class Watch(weak):  # type: ignore[type-arg]
    """A weak reference that is a key by itself: one to a memoryview would otherwise hash all its bytes."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def export(view: memoryview) -> PickleBuffer:
    """A buffer over `view` that keeps the very object `view` alive as long as anything made from it lives.

    A memoryview of a memoryview, as libraries make them, would let go of the one it was made from. So whoever
    watches `view` by a weak reference knows when the last array over it is gone.
    """
    return PickleBuffer(view)
