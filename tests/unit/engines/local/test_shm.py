"""Memory that two processes share without a name."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyhands.engines.local import shm
from manyhands.engines.local.shm import (
    create_region,
    create_segment,
    open_memory,
    open_region,
    read_segment,
)


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").is_symlink()


@given(st.binary(min_size=1, max_size=5000))
def test_a_segment_holds_its_payload(payload: bytes) -> None:
    fd = create_segment(payload)
    assert bytes(read_segment(fd)[:]) == payload
    assert not is_open(fd)


@settings(max_examples=10)
@given(st.sampled_from([-1, 0, 1]))
def test_large_payloads_arrive_whole(more: int) -> None:
    payload = os.urandom(1024) * 1024 + bytes(1 + more)
    content = read_segment(create_segment(payload))
    assert content[:] == payload


def test_a_segment_has_no_name() -> None:
    fd = create_segment(b"x" * 100_000)
    try:
        assert str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("/memfd:")
        assert not list(Path("/dev/shm").glob("*manyhands*"))
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_segment_that_cannot_be_filled_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    real = os.memfd_create

    def make(*args: object) -> int:
        made.append(real("x"))
        return made[-1]

    def fail(*args: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(shm.os, "memfd_create", make)
    monkeypatch.setattr(shm.os, "write", fail)
    monkeypatch.setattr(shm.os, "truncate", fail)
    with pytest.raises(OSError, match="full"):
        create_segment(b"x")
    with pytest.raises(OSError, match="full"):
        create_region(4096)
    assert len(made) == 2
    assert not any(map(is_open, made))


def test_a_region_is_shared_both_ways() -> None:
    fd, ours = create_region(8192)
    theirs = open_region(os.dup(fd))
    os.close(fd)
    with ours, theirs:
        assert len(ours) == len(theirs) == 8192
        assert ours[:] == bytes(8192)
        ours[0:3] = b"abc"
        theirs[3:6] = b"def"
        assert ours[:6] == theirs[:6] == b"abcdef"


@pytest.fixture
def no_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has no memory without a name."""
    monkeypatch.delattr(os, "memfd_create")
    # Else the first use starts a process that would outlive the test.
    for name in ("register", "unregister"):
        monkeypatch.setattr(
            f"multiprocessing.shared_memory.resource_tracker.{name}", lambda *_: None
        )


def list_named() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def test_memory_takes_no_room_until_it_is_written() -> None:
    fd = open_memory(1 << 40)
    try:
        assert os.fstat(fd).st_size == 1 << 40
        assert os.fstat(fd).st_blocks == 0
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.usefixtures("no_memfd")
def test_where_memory_needs_a_name_it_is_taken_away() -> None:
    before = list_named()
    fd = open_memory(1 << 20)
    try:
        assert list_named() == before
        assert os.fstat(fd).st_size == 1 << 20
        assert not os.get_inheritable(fd)
        os.pwrite(fd, b"abc", 1000)
        assert os.pread(fd, 4, 1000) == b"abc\0"
    finally:
        os.close(fd)


@pytest.mark.usefixtures("no_memfd")
def test_named_memory_is_no_more_than_there_is_room_for() -> None:
    status = os.statvfs("/dev/shm")
    fd = open_memory(1 << 50)
    try:
        assert 0 < os.fstat(fd).st_size <= status.f_blocks * status.f_frsize
    finally:
        os.close(fd)


@pytest.mark.usefixtures("no_memfd")
def test_segments_and_regions_need_no_memfd() -> None:
    before = list_named()
    payload = os.urandom(1000) * 2000
    for size in (1, 1000, len(payload)):
        assert bytes(read_segment(create_segment(payload[:size]))[:]) == payload[:size]
    fd, ours = create_region(8192)
    theirs = open_region(fd)
    with ours, theirs:
        ours[5] = 7
        assert theirs[5] == 7
    assert list_named() == before
    assert not is_open(fd)


@pytest.mark.usefixtures("no_memfd")
def test_named_memory_that_cannot_be_made_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list_named(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(shm.os, "truncate", fail)
    with pytest.raises(OSError, match="full"):
        open_memory(4096)
    assert (list_named(), len(os.listdir("/proc/self/fd"))) == before  # noqa: PTH208
