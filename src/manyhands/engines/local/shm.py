"""Memory that processes share without a name: nothing in ``/dev/shm``, nothing left after a crash.

This module alone knows how a system makes such memory: by ``memfd_create``, or where that is missing by
:mod:`multiprocessing.shared_memory`, whose name is taken away at once. Used on both sides, so it imports C modules
alone.
"""

from __future__ import annotations

import mmap
import os

_COPIED_BYTES = 1024 * 1024


def open_memory(size: int) -> int:
    """A descriptor of `size` bytes of shared memory that take no room until they are written. The caller owns it.

    Raises
    ------
    OSError
        The system shares no memory, or not so much.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("manyhands", os.MFD_CLOEXEC)
        try:
            os.truncate(fd, size)
        except BaseException:
            os.close(fd)
            raise
        return fd
    return _open_named(size)


def _open_named(size: int) -> int:
    """The same by way of a name, which is given up before anybody else can learn it.

    Such memory counts for the file system behind it, and a write past that system's end kills the writer. So no more
    is made than there is room for.
    """
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(create=True, size=1)
    try:
        fd = os.dup(memory._fd)  # type: ignore[attr-defined]
        status = os.fstatvfs(fd)
        room = status.f_bavail * status.f_frsize
        try:
            os.truncate(fd, min(size, room) if room else size)
        except BaseException:
            os.close(fd)
            raise
        return fd
    finally:
        memory.close()
        memory.unlink()


def reserve_memory(fd: int, start: int, size: int) -> None:
    """See that `size` bytes of `open_memory` can be written through a mapping.

    Memory that has no name needs nothing for that. Where a file system is behind it and has no room, the writer would
    be killed.
    """
    if not hasattr(os, "memfd_create"):
        os.posix_fallocate(fd, start, size)


def create_segment(payload: bytes) -> int:
    """A descriptor of fresh shared memory that holds `payload`. The caller owns the descriptor."""
    fd = open_memory(0)
    try:
        rest = memoryview(payload)
        while rest:
            rest = rest[os.write(fd, rest) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_segment(fd: int) -> bytes | mmap.mmap:
    """The whole content of the segment behind `fd`. Closes the descriptor.

    Below a megabyte a copy into memory that is in use already is quicker than a mapping, whose every page has to
    be entered and taken out again.
    """
    try:
        size = os.fstat(fd).st_size
        if size <= _COPIED_BYTES:
            return os.pread(fd, size, 0)
        return mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    finally:
        os.close(fd)


def create_region(size: int) -> tuple[int, mmap.mmap]:
    """`size` zeroed bytes that stay shared: a descriptor for the other process, and the mapping here."""
    fd = open_memory(size)
    try:
        return fd, mmap.mmap(fd, size)
    except BaseException:
        os.close(fd)
        raise


def open_region(fd: int) -> mmap.mmap:
    """The region behind `fd`, mapped for reading and writing. Closes the descriptor."""
    try:
        return mmap.mmap(fd, 0)
    finally:
        os.close(fd)
