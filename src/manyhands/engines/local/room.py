"""Where shared values lie, how much room they take, and what makes way when there is not enough."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections import deque

from manyhands.core.sizes import format_size
from manyhands.engines.local.heap import DISK, Heap, open_heap
from manyhands.engines.local.space import PAGE, Space
from manyhands.errors import StoreFullError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MEMORY_SHARE = 0.4
"""The part of the memory that this process may use which the store takes, unless it is told otherwise."""

_DISK_SHARE = 0.9
"""The part of the disk's free space that the store takes, unless it is told otherwise."""

_WARM_SHARE = 1 / 8
"""The part of the limit that the parent's heap may keep warm, and that those of all workers together may."""

_ADDRESS_SHARE = 4
"""Addresses of a heap, in limits of memory."""

_ALL_ADDRESSES = 1 << 44
"""Addresses of all heaps together; a process has 2^47."""

_LEAST_ADDRESSES = 1 << 28


class StoredValue:
    """Some bytes that processes share. Their room is used for others when this object is gone.

    Attributes
    ----------
    id : int
        Unique in the session, also among refs.
    heap, start, size
        Where it is.
    label : str
        What it is, for reports.
    uses : int
        How often it was sent to workers that may still read it.
    used_at : int
        Counts up; the least was used the longest ago.
    is_exclusive : bool
        Whether it was made for one result that nobody else has, so that its bytes may be given away.
    is_given : bool
        Whether they were: whoever has them may change them at any time.
    is_born : bool
        Whether it was made here, empty, for the program to fill.
    """

    __slots__ = (
        "__weakref__",
        "_digest",
        "heap",
        "id",
        "is_born",
        "is_exclusive",
        "is_given",
        "label",
        "room",
        "size",
        "start",
        "used_at",
        "uses",
    )

    def __init__(
        self, room: Room, number: int, place: tuple[Heap, int], size: int, label: str
    ) -> None:
        self.room = room
        self.id = number
        self.heap, self.start = place
        self.size = size
        self.label = label
        self.uses = 0
        self.used_at = 0
        self.is_exclusive = False
        self.is_given = False
        self.is_born = False
        self._digest: bytes | None = None

    def __del__(self) -> None:
        # At any moment, perhaps amid the room's own work: only a note is left.
        if not self.room.is_closed:
            self.room.departed.append((self.id, self.heap, self.start, self.size))

    @property
    def content_key(self) -> object:
        """Equal for two values of the same content; what can be written is like itself alone."""
        if self.is_born:
            return self.id
        with self.room.lock:  # it must not move meanwhile
            if self._digest is None:
                self._digest = digest(self.heap.view(self.start, self.size))
            return self._digest

    @property
    def is_on_disk(self) -> bool:
        """Whether it was moved there."""
        return self.heap.number == DISK

    def __repr__(self) -> str:
        place = "on disk" if self.is_on_disk else "in memory"
        return f"<StoredValue {self.id}: {self.label}, {format_size(self.size)} {place}>"


class Room:
    """Heaps, and the limits of what is in them. Whoever uses it holds the store's lock.

    Parameters
    ----------
    memory, disk
        Limits in bytes; None to take a part of what there is.
    folder
        Where values go that do not fit into memory.
    workers
        How many processes beside this one have heaps.

    Attributes
    ----------
    live, on_disk : int
        Bytes that values take in memory and on disk, in whole pages.
    spilled_values, spilled_bytes : int
        What went to disk so far.
    departed
        Values that are gone and whose room is not yet free.
    freed
        For each worker with a heap, ids of its values that nobody needs any more and that it was not yet told of.
    notices
        What the user should know, once.
    lock
        Of all this, and of the store's account.
    """

    def __init__(self, memory: int | None, disk: int | None, folder: str, workers: int) -> None:
        self.limit = measure_memory() if memory is None else memory
        self._disk_limit = disk
        self._folder = folder
        self._workers = max(1, workers)
        self.live = 0
        self.on_disk = 0
        self.spilled_values = 0
        self.spilled_bytes = 0
        self.departed: deque[tuple[int, Heap, int, int]] = deque()
        self.freed: dict[int, list[int]] = {}
        self.notices: list[str] = []
        self.is_closed = False
        self.lock = threading.RLock()
        self.heaps: dict[int, Heap] = {}
        self._spaces: dict[
            int, Space
        ] = {}  # of the heaps laid out here: this process's, the disk's

    @property
    def disk_limit(self) -> int:
        """Bytes that values may take on disk."""
        if self._disk_limit is None:
            status = os.statvfs(self._folder)
            self._disk_limit = int(status.f_bavail * status.f_frsize * _DISK_SHARE)
        return self._disk_limit

    @property
    def heap_size(self) -> int:
        """Addresses of a heap."""
        heaps = self._workers + 2
        size = max(_LEAST_ADDRESSES, min(self.limit * _ADDRESS_SHARE, _ALL_ADDRESSES // heaps))
        granted = resource.getrlimit(resource.RLIMIT_AS)[0]
        if granted == resource.RLIM_INFINITY:
            return size
        # A process maps all heaps, and some of them twice.
        return min(size, granted // (3 * heaps) // PAGE * PAGE)

    @property
    def warm_limit(self) -> int:
        """Bytes that a worker may keep warm."""
        return int(self.limit * _WARM_SHARE) // self._workers

    @property
    def warm(self) -> int:
        """Bytes that this process keeps warm."""
        return self._spaces[0].warm if 0 in self._spaces else 0

    def measure_free(self) -> int:
        """Bytes that each worker may add without asking."""
        return max(0, self.limit - self.live) // self._workers

    def place(
        self, number: int, size: int, label: str, idle: Iterable[StoredValue] | None
    ) -> tuple[StoredValue, bool]:
        """Find room for `size` bytes.

        Parameters
        ----------
        number
            The id that they get.
        idle
            Values that may go to disk for it, those first that should; None to go beyond the limit.

        Returns
        -------
        StoredValue
            Without content.
        bool
            Whether its pages are there.

        Raises
        ------
        StoreFullError
        """
        heap, space = self._get_own()
        fits = self.live + size <= self.limit and space.would_be_warm(size)
        if fits or idle is None or self.make(round_up(size), idle):
            found = space.take(size)
            if found is None:  # no addresses in one piece
                self.chill(0)
                found = space.take(size)
            if found is not None:
                self.live += round_up(size)
                return StoredValue(self, number, (heap, found[0]), size, label), found[1]
        disk, start = self._take_disk(size)
        return StoredValue(self, number, (disk, start), size, label), False

    def adopt(self, number: int, worker: int, start: int, size: int, label: str) -> StoredValue:
        """A value that a worker has made in its own heap."""
        self.live += round_up(size)
        self.heaps[worker].tenants += 1
        return StoredValue(self, number, (self.heaps[worker], start), size, label)

    def make(self, size: int, idle: Iterable[StoredValue]) -> bool:
        """See that `size` bytes more can be in memory, if need be by moving `idle` values to disk.

        Returns
        -------
        bool
            False where the values in use leave no room, or the disk is full.
        """
        if self.live + self.warm + size <= self.limit:
            return True
        self.chill(0)
        for value in idle:
            if self.live + size <= self.limit:
                break
            if not value.is_on_disk:
                self._spill(value)
        return self.live + size <= self.limit

    def void(self, value: StoredValue) -> None:
        """A value could not be written: its pages are not there."""
        space = self._spaces.get(value.heap.number)
        if space is not None:
            space.void(value.start)

    def has_disk(self, size: int) -> bool:
        """Whether `size` bytes more fit on the disk."""
        return self.on_disk + size <= self.disk_limit

    def sweep(self) -> None:
        """Make the room of values that are gone free."""
        while self.departed:
            number, heap, start, size = self.departed.popleft()
            self._release(number, heap, start, size, is_cold=False)

    def chill(self, keep: int) -> None:
        """Give back memory of this process's heap that is not in use, but for `keep` bytes."""
        if 0 in self._spaces:
            self._chill(0, keep)

    def lose(self, worker: int, values: list[StoredValue]) -> None:
        """A worker has ended: nobody lays out its heap any more, and all but `values` in it is given back."""
        self.freed.pop(worker, None)
        heap = self.heaps.get(worker)
        if heap is None:
            return
        if not values:
            del self.heaps[worker]
            heap.close()
            return
        place = 0
        for value in sorted(values, key=lambda value: value.start):
            if value.start > place:
                heap.give_back(place, value.start - place)
            place = value.start + round_up(value.size)
        heap.give_back(place, heap.size - place)

    def close(self, kept: Iterable[StoredValue]) -> None:
        """Give back all but the values in `kept`, whose heaps go when they do."""
        self.is_closed = True
        spans: dict[int, list[tuple[int, int]]] = {}
        for value in kept:
            spans.setdefault(value.heap.number, []).append((value.start, round_up(value.size)))
        for heap in self.heaps.values():
            place = 0
            for start, size in sorted(spans.get(heap.number, ())):
                if start > place:
                    heap.give_back(place, start - place)
                place = max(place, start + size)
            if place:
                heap.give_back(place, heap.size - place)
                heap.seal()
            else:
                heap.close()
        self.heaps.clear()
        self._spaces.clear()
        self.departed.clear()

    def describe_fullness(self, size: int, values: Iterable[str]) -> str:
        """Why `size` bytes more do not fit, and what is in the way."""
        return (
            f"{format_size(size)} more do not fit: in memory {format_size(self.live)} of {format_size(self.limit)} are "
            f"taken, on disk ({self._folder}) {format_size(self.on_disk)} of {format_size(self.disk_limit)}. The "
            f"largest values: {'; '.join(values) or 'none'}. Let go of refs and results that you need no more, or open "
            f"the session with a larger store= or spill="
        )

    def _release(self, number: int, heap: Heap, start: int, size: int, *, is_cold: bool) -> None:
        """The room of a value is free; `is_cold` where its memory is to go back at once."""
        if heap.number == DISK:
            self.on_disk -= round_up(size)
        else:
            self.live -= round_up(size)
        space = self._spaces.get(heap.number)
        if space is not None:
            space.give(start)
            is_kept = not is_cold and heap.number != DISK
            self._chill(heap.number, int(self.limit * _WARM_SHARE) if is_kept else 0)
            return
        freed = self.freed.get(heap.number)
        if freed is not None:
            freed.append(number)
        if is_cold or freed is None:
            heap.give_back(start, round_up(size))
        heap.tenants -= 1
        if freed is None and not heap.tenants:  # of a worker that is gone
            self.heaps.pop(heap.number, None)
            heap.close()

    def _chill(self, number: int, keep: int) -> None:
        for start, length in self._spaces[number].chill(keep):
            self.heaps[number].give_back(start, length)

    def _spill(self, value: StoredValue) -> None:
        """Move a value from memory to disk, if there is room."""
        try:
            disk, start = self._take_disk(value.size)
        except StoreFullError:
            return
        try:
            disk.write(start, value.heap.view(value.start, value.size), warm=False)
        except OSError as error:
            self._release(value.id, disk, start, value.size, is_cold=True)
            self._disk_limit = self.on_disk  # it takes no more
            self.notices.append(f"a value could not be moved to {self._folder}: {error}")
            return
        self._release(value.id, value.heap, value.start, value.size, is_cold=True)
        value.heap, value.start = disk, start
        value.is_exclusive = False

    def _take_disk(self, size: int) -> tuple[Heap, int]:
        if not self.has_disk(round_up(size)):
            raise StoreFullError("no room on disk")
        if DISK not in self.heaps:
            try:
                self._open_disk()
            except StoreFullError as error:
                self._disk_limit = 0
                self.notices.append(str(error))
                raise
        found = self._spaces[DISK].take(size)
        if found is None:
            raise StoreFullError("no room on disk")
        if not self.spilled_values:
            self.notices.append(
                f"the store's {format_size(self.limit)} of memory are full: values that are not in use go to "
                f"{self._folder}, and are read from there. Let go of refs and results that you need no more, or open "
                f"the session with a larger store="
            )
        self.on_disk += round_up(size)
        self.spilled_values += 1
        self.spilled_bytes += size
        return self.heaps[DISK], found[0]

    def _open_disk(self) -> None:
        addresses = min(max(self.disk_limit * 2, _LEAST_ADDRESSES), _ALL_ADDRESSES)
        try:
            fd, addresses = open_spill_file(self._folder, addresses)
            self.heaps[DISK] = Heap(DISK, fd, addresses, writable=True)
        except OSError as error:
            raise StoreFullError(
                f"the store's {format_size(self.limit)} of memory are full, and {self._folder} takes no file: {error}. "
                f"Name another folder with Session(spill_folder=...)"
            ) from error
        self._spaces[DISK] = Space(addresses)

    def _get_own(self) -> tuple[Heap, Space]:
        if 0 not in self.heaps:
            heap = open_heap(0, self.heap_size)
            self.heaps[0], self._spaces[0] = heap, Space(heap.size)
        return self.heaps[0], self._spaces[0]


def digest(raw: memoryview) -> bytes:
    """128 bits that tell contents apart."""
    from xxhash import xxh3_128_digest

    return xxh3_128_digest(raw)


def round_up(size: int) -> int:
    """Bytes of the pages that `size` bytes take."""
    return -(-size // PAGE) * PAGE


def measure_memory() -> int:
    """The store's limit where none is given: a part of the memory that this process may use."""
    from manyhands.core.machine import read_memory

    memory = read_memory()
    known = [size for size in (memory.machine, memory.group_limit) if size is not None]
    return int(min(known, default=sys.maxsize >> 24) * MEMORY_SHARE)


def open_spill_file(folder: str, size: int) -> tuple[int, int]:
    """A file without a name, which is gone when nobody has it open; its descriptor, and its size.

    Its bytes take room when they are written. Not every file system takes a file of any size; it may get a smaller one.
    """
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):  # a file system that knows no such files
        import tempfile

        fd, name = tempfile.mkstemp(prefix="manyhands-", dir=folder)
        os.unlink(name)
    try:
        while True:
            try:
                os.truncate(fd, size)
            except OSError:
                if size <= _LEAST_ADDRESSES:
                    raise
                size //= 4
            else:
                return fd, size
    except BaseException:
        os.close(fd)
        raise
