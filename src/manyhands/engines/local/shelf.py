"""A worker's side of what processes share: values that it was sent, and those that it makes.

Importing this loads C modules, and a few of the standard library that are loaded anyway.
"""

from __future__ import annotations

from _pickle import dumps, loads
from time import sleep
from weakref import WeakValueDictionary

from manyhands.core.parcels import Parcel, Piece, count_bytes, open_pickle
from manyhands.core.refs import Record, Ref, name_type
from manyhands.core.serialize import dump_result
from manyhands.core.sizes import format_size
from manyhands.engines.local import messages as m
from manyhands.engines.local.heap import Heap, Watch, export, find_address, open_heap
from manyhands.engines.local.space import Space
from manyhands.errors import InvalidArgumentError, StoreFullError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.parcels import Part, Payload
    from manyhands.engines.local.channel import Channel

_ID_SHIFT = 40
"""Ids that a worker gives out begin with its number."""

_POLL_SECONDS = 0.0005
"""How often to look whether the parent has made room."""


class SharedValue:
    """Some bytes that this worker was sent, or has made. The worker needs them as long as this object lives.

    Attributes
    ----------
    id
        Unique in the session.
    heap, start, size
        Where they are; of a value that was sent, `size` is what was met of it.
    holder
        The record of the ref through which it was reached, which keeps it.
    """

    __slots__ = ("__weakref__", "gone", "heap", "holder", "id", "size", "start")

    def __init__(self, number: int, heap: Heap, start: int, size: int, gone: list[int]) -> None:
        self.id = number
        self.heap = heap
        self.start = start
        self.size = size
        self.holder: Record | None = None
        self.gone = gone

    def __del__(self) -> None:
        self.gone.append(self.id)


class SharedRecord(Record):
    """What stands behind a ref in a worker. The worker needs it as long as this object lives.

    Attributes
    ----------
    holder
        The record of the ref in whose value it was found.
    is_told
        Whether the parent knows it.
    """

    __slots__ = ("gone", "holder", "is_told")

    holder: Record | None
    is_told: bool
    gone: list[int]

    def __del__(self) -> None:
        self.gone.append(self.id)


class Shelf:
    """The values that a worker can reach.

    What it was sent, and what it has told the parent of, the parent keeps until the worker drops it. It does so when
    nothing here needs it any more: no view, no ref, and nothing reached through them.

    Parameters
    ----------
    channel
        To the parent.
    words
        Of the region shared with the parent.
    number
        Of the worker.
    """

    def __init__(self, channel: Channel, words: memoryview, number: int) -> None:
        self._channel = channel
        self._words = words
        self._number = number
        self._next_id = number << _ID_SHIFT
        self._heaps: dict[int, Heap] = {}
        self._own: Heap | None = None
        self._space: Space | None = None
        self._warm_limit = 0
        self._is_resting = False
        # What something here needs, and the weak references to views, each of which needs its value.
        self._needed: WeakValueDictionary[int, SharedValue | SharedRecord] = WeakValueDictionary()
        self._views: dict[Watch, SharedValue] = {}
        self._gone: list[int] = []  # ids of what was needed, and perhaps is no more
        self._held: dict[
            int, int
        ] = {}  # what the parent keeps for us, and how often we were sent it
        self._pinned: dict[int, int] = {}  # what functions need, and how many
        self._born: dict[int, int] = {}  # made here and not free for others yet: where they start
        self._untold: dict[int, int] = {}  # those that the parent does not know: how large
        self._refs: WeakValueDictionary[int, Ref[Any]] = WeakValueDictionary()

    # What comes with messages.

    def add_heap(self, number: int, fd: int, size: int) -> None:
        """The parent tells of a heap."""
        self._heaps[number] = Heap(number, fd, size, writable=False)

    def unbox(self, payload: Any, uses: list[int]) -> Any:
        """A payload that came in a box, taken out of it; `uses` gets the ids of what is in it."""
        if isinstance(payload, bytes) or payload[0] != m.BOXED or not self.knows(payload):
            return payload
        packed, inner = loads(self._open(payload[1], None))
        uses += inner
        return packed

    def knows(self, payload: Any) -> bool:
        """Whether all that a payload needs can be reached."""
        if isinstance(payload, bytes):
            return True
        if payload[0] == m.BOXED:
            return self._knows_part(payload[1])
        stream, buffers, inputs, refs = payload
        return (
            all(map(self._knows_part, (stream, *buffers)))
            and all(map(self.knows, inputs))
            and all(self.knows(content) for *_, content in refs)
        )

    def _knows_part(self, part: Any) -> bool:
        return isinstance(part, bytes) or part[1] in self._heaps or part[1] == self._number

    def load(self, payload: Any, holder: Record | None = None) -> Any:
        """The value of a payload as the parent's store packed it.

        Parameters
        ----------
        holder
            The record of the ref that it belongs to, if it does.
        """
        if isinstance(payload, bytes):
            return open_pickle(payload, ())
        stream, buffers, inputs, refs = payload
        return open_pickle(
            self._open(stream, holder),
            [self._open(part, holder) for part in buffers],
            [self._defer(inner, holder) for inner in inputs],
            [self._find_record(described, holder) for described in refs],
        )

    def _defer(self, payload: Any, holder: Record | None) -> Callable[[], Any]:
        return lambda: self.load(payload, holder)

    def _open(self, part: Any, holder: Record | None) -> Any:
        if isinstance(part, bytes):
            return part
        number, heap_number, start, first, length, mode = part
        heap = self._own if heap_number == self._number else self._heaps[heap_number]
        assert heap is not None
        value = self._needed.get(number)
        if not isinstance(value, SharedValue):
            value = self._needed[number] = SharedValue(number, heap, start, 0, self._gone)
            value.holder = holder
        value.size = max(value.size, first + length)
        if mode == "copy":
            view = heap.view_privately(start + first, length)
        elif mode == "write":
            view = heap.view_for_writing(start + first, length)
        else:
            view = heap.view(start + first, length)
        return self._export(view, value)

    def _export(self, view: memoryview, value: SharedValue) -> Any:
        views = self._views
        views[Watch(view, lambda watch: views.pop(watch, None))] = value
        return export(view)

    def _find_record(
        self, described: tuple[int, str, int, Any], holder: Record | None
    ) -> SharedRecord:
        number, type_name, nbytes, content = described
        known = self._needed.get(number)
        if isinstance(known, SharedRecord):
            return known
        return self._make_record(number, content, type_name, nbytes, holder)

    def _make_record(
        self, number: int, content: Any, type_name: str, nbytes: int, holder: Record | None
    ) -> SharedRecord:
        record = SharedRecord(self, number, content, type_name, nbytes)
        record.holder, record.gone, record.is_told = holder, self._gone, True
        self._needed[number] = record
        return record

    def end_message(self, uses: Iterable[int]) -> list[int]:
        """The calls of a message have ended.

        Parameters
        ----------
        uses
            Ids of what was sent with it.

        Returns
        -------
        list of int
            What of that and of earlier messages is not needed any more, each id as often as it was sent.
        """
        dropped = []
        for number in uses:
            if number in self._needed or number in self._held:
                self._held[number] = self._held.get(number, 0) + 1
            else:
                dropped.append(number)
        return dropped + self.take_gone()

    def pin(self, uses: Iterable[int]) -> None:
        """What is sent with a function is needed until the function is forgotten."""
        for number in uses:
            self._held[number] = self._held.get(number, 0) + 1
            self._pinned[number] = self._pinned.get(number, 0) + 1

    def unpin(self, uses: Iterable[int]) -> None:
        """A function is forgotten."""
        for number in uses:
            self._pinned[number] -= 1
            if not self._pinned[number]:
                del self._pinned[number]
                self._gone.append(number)

    def take_gone(self) -> list[int]:
        """Ids of what is not needed any more, each as often as it was sent; what was never told of is freed."""
        dropped: list[int] = []
        for number in self._sweep():
            dropped += [number] * self._held.pop(number, 0)
        return dropped

    def _sweep(self) -> list[int]:
        """Free what is not needed any more and was never told of; ids of what is not needed and was told of."""
        told = []
        while self._gone:
            number = self._gone.pop()
            if number in self._needed or number in self._pinned:
                continue
            if number in self._untold:
                self._free(number)
            else:
                told.append(number)
        return told

    def free(self, ids: Iterable[int]) -> None:
        """The parent needs these values of ours no more."""
        for number in ids:
            self._free(number)

    def _free(self, number: int) -> None:
        start = self._born.pop(number, None)
        self._untold.pop(number, None)
        if start is not None:
            assert self._space is not None
            self._space.give(start)
            self._chill(0 if self._is_resting else self._warm_limit)

    def rest(self) -> None:
        """Give back memory that is only kept to be quick, and keep none until there is something to do."""
        self._is_resting = True
        if self._space is not None:
            self._chill(0)

    def _chill(self, keep: int) -> None:
        assert self._own is not None
        assert self._space is not None
        for start, length in self._space.chill(keep):
            self._own.give_back(start, length)

    # What pickling a result calls: see `manyhands.core.roles.Shelf`.

    def keep(self, raw: memoryview) -> Piece:
        shared = self._find_shared(raw)
        if shared is not None:
            value, first = shared
            return Piece(value, first, raw.nbytes)
        return self.keep_chunks([raw])

    def keep_chunks(self, chunks: list[Any], *, is_forced: bool = False) -> Piece:
        parts = [memoryview(chunk) for chunk in chunks]
        size = sum(part.nbytes for part in parts)
        value, is_warm = self._make(size, is_forced=is_forced)
        place = value.start
        try:
            for part in parts:
                value.heap.write(place, part, warm=is_warm)
                place += part.nbytes
        except OSError as error:
            assert self._space is not None
            self._space.void(value.start)
            raise StoreFullError(
                f"a result of {format_size(size)} does not fit into shared memory: {error}"
            ) from error
        return Piece(value, 0, size)

    def _find_shared(self, raw: memoryview) -> tuple[SharedValue, int] | None:
        address = find_address(raw) if raw.nbytes and self._views else None
        for value in list(self._views.values()):
            place = value.heap.locate(address, raw.nbytes)
            if place is not None and value.start <= place < value.start + value.size:
                return value, place - value.start
        return None

    def _make(self, size: int, *, is_forced: bool = False) -> tuple[SharedValue, bool]:
        """Room for a value of our own, without content; and whether its pages are there."""
        self._is_resting = False
        self._gone += self._sweep()  # what this call has put and dropped makes room at once
        room = self._words[m.ROOM] - sum(self._untold.values())
        is_there = self._space is not None and self._space.would_be_warm(size)
        if size > room and not is_there and not is_forced:
            if self._space is not None:
                self._chill(0)
            self._ask_for_room(size + sum(self._untold.values()))
        if self._space is None:
            self._open_own()
        assert self._own is not None
        assert self._space is not None
        found = self._space.take(size)
        if found is None:
            self._chill(0)
            found = self._space.take(size)
        if found is None:
            raise StoreFullError(
                f"{format_size(size)} in one piece are not left among the addresses of this worker's results"
            )
        start, is_warm = found
        self._next_id += 1
        number = self._next_id
        self._born[number], self._untold[number] = start, size
        value = self._needed[number] = SharedValue(number, self._own, start, size, self._gone)
        return value, is_warm

    def _open_own(self) -> None:
        words = self._words
        if not words[m.HEAP_SIZE]:  # the parent's store begins with the first who asks
            self._ask_for_room(0)
        self._warm_limit = int(words[m.WARM_LIMIT])
        self._own = open_heap(self._number, int(words[m.HEAP_SIZE]))
        self._space = Space(self._own.size)
        self._channel.send((m.HEAP, self._number, self._own.size), (self._own.fd,))

    def _ask_for_room(self, size: int) -> None:
        words = self._words
        words[m.ROOM_ANSWER] = 0
        self._channel.send((m.NEED_ROOM, size))
        while not words[m.ROOM_ANSWER]:
            sleep(_POLL_SECONDS)  # the parent is at it; if it dies, so do we
        if words[m.ROOM_ANSWER] == m.NO_ROOM:
            raise StoreFullError(
                f"a result of {format_size(size)} fits neither into the store's memory nor onto the disk"
            )

    # Results.

    def dump(self, value: object) -> Payload:
        """A call's result."""
        return dump_result(value, self)

    def pack(self, payload: Payload) -> tuple[Any, list[tuple[int, int, int]]]:
        """A payload as the parent's store unpacks it, and the values that it tells of for the first time.

        The parent keeps them for this worker, which drops them when nothing here needs them.
        """
        born: list[tuple[int, int, int]] = []
        packed = self._pack(payload, born)
        if isinstance(payload, Parcel) and m.is_bulky(payload):
            box = self.keep_chunks([dumps((packed, born), 5)], is_forced=True)
            born = []
            packed = (m.BOXED, self._tell(box, born))
        return packed, born

    def _pack(self, payload: Payload, born: list[tuple[int, int, int]]) -> Any:
        if isinstance(payload, bytes):
            return payload
        return (
            self._tell(payload.stream, born),
            [self._tell(part, born) for part in payload.buffers],
            [],
            [self._pack_record(record, born) for record in payload.refs],
        )

    def _tell(self, part: Part, born: list[tuple[int, int, int]]) -> Any:
        if isinstance(part, bytes):
            return part
        value: Any = part.value
        if self._untold.pop(value.id, None) is not None:
            self._held[value.id] = 1
            born.append((value.id, value.start, value.size))
        return value.id, part.first, part.length, part.mode

    def _pack_record(self, record: Record, born: list[tuple[int, int, int]]) -> Any:
        content = None
        if isinstance(record, SharedRecord) and not record.is_told:
            content = self._pack(record.content, born)
            record.is_told = True
            self._held[record.id] = 1
        return record.id, record.type_name, record.nbytes, content

    # Refs, and arrays born shared: see `manyhands.core.roles.Keeper` and `Putter`.

    def put(self, value: Any, *, writable: bool, copy: bool) -> Ref[Any]:
        if writable or copy:
            raise InvalidArgumentError(
                "writable= and copy= are for values that are put outside of calls: what a call makes is its caller's"
            )
        payload = dump_result(value, self)
        self._next_id += 1
        size = count_bytes(payload)
        record = self._make_record(self._next_id, payload, name_type(value), size, None)
        record.is_told = False
        return self.hand_out(record)

    def allocate(self, size: int) -> Any:
        value, is_warm = self._make(size)
        if not is_warm:
            value.heap.reserve(value.start, size)
        return self._export(value.heap.view_for_writing(value.start, size), value)

    def hand_out(self, record: Record) -> Ref[Any]:
        ref = self._refs.get(record.id)
        if ref is None:
            ref = self._refs[record.id] = Ref(record)
        return ref

    def read(self, record: Record) -> Any:
        content = record.content
        if isinstance(content, Parcel):  # put by this worker, and not as it was sent
            content = self._show(content)
        return self.load(content, record)

    def _show(self, payload: Payload) -> Any:
        """A payload of this worker's as if the parent had sent it."""
        if isinstance(payload, bytes):
            return payload

        def show(part: Part) -> Any:
            if isinstance(part, bytes):
                return part
            value: Any = part.value
            return value.id, value.heap.number, value.start, part.first, part.length, part.mode

        refs = [(r.id, r.type_name, r.nbytes, r.content) for r in payload.refs]
        return show(payload.stream), [show(part) for part in payload.buffers], [], refs

    def locate(self, record: Record) -> str:  # noqa: ARG002 - a worker reads both alike
        return "memory"

    def describe(self, record: Record) -> str:
        return format_size(record.nbytes)
