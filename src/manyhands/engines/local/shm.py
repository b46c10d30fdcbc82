"""Memory that two processes share without a name: nothing in ``/dev/shm``, nothing left after a crash.

Used on both sides, so it imports C modules alone.
"""

from __future__ import annotations

import mmap
import os

_COPIED_BYTES = 1024 * 1024


def create_segment(payload: bytes) -> int:
    """A descriptor of fresh shared memory that holds `payload`. The caller owns the descriptor."""
    fd = os.memfd_create("manyhands", os.MFD_CLOEXEC)
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
    fd = os.memfd_create("manyhands-region", os.MFD_CLOEXEC)
    try:
        os.truncate(fd, size)
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
