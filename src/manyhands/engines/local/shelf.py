"""A worker's side of what processes share: values that it was sent, and those that it makes.

Importing this loads C modules alone.
"""

from __future__ import annotations

from _pickle import dumps, loads
from _weakref import ref as weak
from time import sleep

from manyhands.core.parcels import Parcel, Piece, open_pickle
from manyhands.core.refs import Record, Ref, name_type
from manyhands.core.serialize import dump_result
from manyhands.core.sizes import format_size
from manyhands.engines.local import messages as m
from manyhands.engines.local.heap import Heap, Watch, export, open_heap
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
    """Some bytes that this worker was sent, or has made.

    Attributes
    ----------
    id
        Unique in the session.
    heap, start, size
        Where they are; of a value that was sent, `size` is what was met of it.
    departed
        Gets the id when this object is gone.
    """

    __slots__ = ("departed", "heap", "id", "size", "start")

    def __init__(
        self, number: int, heap: Heap, start: int, size: int, departed: list[int] | None = None
    ) -> None:
        self.id = number
        self.heap = heap
        self.start = start
        self.size = size
        self.departed = departed

    def __del__(self) -> None:
        if self.departed is not None:
            self.departed.append(self.id)


class Shelf:
    """The values that a worker can reach.

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
        # How many views there are of each id, and the weak references that tell when one goes.
        self._views: dict[int, int] = {}
        self._watches: dict[Watch, tuple[int, SharedValue | None]] = {}
        self._kept: dict[int, int] = {}  # ids that were sent and not dropped yet, and how often
        self._pinned: dict[int, int] = {}  # those of them that functions need, and how many
        self._gone: list[int] = []  # ids whose last view is gone
        self._born: dict[int, int] = {}  # made here and not free for others yet: where they start
        self._untold: dict[int, int] = {}  # those of them that the parent does not know: how large
        self._departed: list[
            int
        ] = []  # ids of what was made here and is held by nothing here any more
        self._refs: dict[int, weak[Ref[Any]]] = {}
        self._told_records: set[int] = set()

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
            return payload[1][1] in self._heaps or payload[1][1] == self._number
        stream, buffers, inputs, refs = payload
        return (
            all(
                isinstance(part, bytes) or part[1] in self._heaps or part[1] == self._number
                for part in (stream, *buffers)
            )
            and all(map(self.knows, inputs))
            and all(self.knows(content) for *_, content in refs)
        )

    def load(self, payload: Any, holder: int | None = None) -> Any:
        """The value of a payload as the parent's store packed it.

        Parameters
        ----------
        holder
            The id of the ref that it belongs to, if it does.
        """
        if isinstance(payload, bytes):
            return open_pickle(payload, ())
        stream, buffers, inputs, refs = payload
        return open_pickle(
            self._open(stream, holder),
            [self._open(part, holder) for part in buffers],
            [self._defer(inner, holder) for inner in inputs],
            [Record(self, number, content, name, size) for number, name, size, content in refs],
        )

    def _defer(self, payload: Any, holder: int | None) -> Callable[[], Any]:
        return lambda: self.load(payload, holder)

    def _open(self, part: Any, holder: int | None) -> Any:
        if isinstance(part, bytes):
            return part
        number, heap_number, start, first, length, mode = part
        heap = self._own if heap_number == self._number else self._heaps[heap_number]
        assert heap is not None
        if mode == "copy":
            view = heap.view_privately(start + first, length)
        elif mode == "write":
            view = heap.view_for_writing(start + first, length)
        else:
            view = heap.view(start + first, length)
        shared = SharedValue(number, heap, start, first + length) if mode != "copy" else None
        self._watch(view, number if holder is None else holder, shared)
        return export(view)

    def _watch(self, view: Any, number: int, value: SharedValue | None) -> None:
        self._views[number] = self._views.get(number, 0) + 1
        self._watches[Watch(view, self._forget)] = (number, value)

    def _forget(self, watch: Watch) -> None:
        number, _ = self._watches.pop(watch)
        self._views[number] -= 1
        if not self._views[number]:
            del self._views[number]
            self._gone.append(number)

    def end_message(self, uses: Iterable[int]) -> list[int]:
        """The calls of a message have ended.

        Parameters
        ----------
        uses
            Ids of what was sent with it.

        Returns
        -------
        list of int
            Those of them and of earlier ones that nobody views any more, each as often as it was sent.
        """
        dropped = []
        for number in uses:
            if number in self._views or number in self._kept:
                self._kept[number] = self._kept.get(number, 0) + 1
            else:
                dropped.append(number)
        return dropped + self.take_gone()

    def pin(self, uses: Iterable[int]) -> None:
        """What is sent with a function is needed until the function is forgotten."""
        for number in uses:
            self._kept[number] = self._kept.get(number, 0) + 1
            self._pinned[number] = self._pinned.get(number, 0) + 1

    def unpin(self, uses: Iterable[int]) -> None:
        """A function is forgotten."""
        for number in uses:
            self._pinned[number] -= 1
            if not self._pinned[number]:
                del self._pinned[number]
                self._gone.append(number)

    def take_gone(self) -> list[int]:
        """Ids of what is not viewed any more, each as often as it was sent."""
        dropped: list[int] = []
        while self._gone:
            number = self._gone.pop()
            if number not in self._views and number not in self._pinned:
                dropped += [number] * self._kept.pop(number, 0)
        self._take_departed()
        return dropped

    def _take_departed(self) -> None:
        """Free what was made here and came to nothing."""
        while self._departed:
            number = self._departed.pop()
            if number in self._untold:
                self._free(number)

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
            self._chill(self._warm_limit)

    def rest(self) -> None:
        """Give back memory that is only kept to be quick."""
        self._take_departed()
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

    def keep_chunks(self, chunks: list[Any]) -> Piece:
        parts = [memoryview(chunk) for chunk in chunks]
        size = sum(part.nbytes for part in parts)
        value, is_warm = self._make(size)
        place = value.start
        for part in parts:
            value.heap.write(place, part, warm=is_warm)
            place += part.nbytes
        return Piece(value, 0, size)

    def _find_shared(self, raw: memoryview) -> tuple[SharedValue, int] | None:
        for _, value in self._watches.values():
            if value is not None:
                place = value.heap.find(raw)
                if place is not None and value.start <= place < value.start + value.size:
                    return value, place - value.start
        return None

    def _make(self, size: int) -> tuple[SharedValue, bool]:
        """Room for a value of our own, without content; and whether its pages are there."""
        self._take_departed()
        room = self._words[m.ROOM] - sum(self._untold.values())
        is_there = self._space is not None and self._space.would_be_warm(size)
        if size > room and not is_there:
            self.rest()
            self._ask_for_room(size)
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
        self._born[self._next_id], self._untold[self._next_id] = start, size
        return SharedValue(self._next_id, self._own, start, size, self._departed), is_warm

    def _open_own(self) -> None:
        words = self._words
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

    def pack(self, payload: Payload) -> tuple[Any, list[tuple[int, int, int, bool]]]:
        """A payload as the parent's store unpacks it, and the values that it tells of for the first time."""
        born: list[tuple[int, int, int, bool]] = []
        packed = self._pack(payload, born)
        if isinstance(payload, Parcel) and m.is_bulky(payload):
            box = self.keep_chunks([dumps((packed, born), 5)])
            born = []
            packed = (m.BOXED, self._tell(box, born))
        return packed, born

    def _pack(self, payload: Payload, born: list[tuple[int, int, int, bool]]) -> Any:
        if isinstance(payload, bytes):
            return payload

        return (
            self._tell(payload.stream, born),
            [self._tell(part, born) for part in payload.buffers],
            [],
            [self._pack_record(record, born) for record in payload.refs],
        )

    def _tell(self, part: Part, born: list[tuple[int, int, int, bool]]) -> Any:
        if isinstance(part, bytes):
            return part
        value: Any = part.value
        if self._untold.pop(value.id, None) is not None:
            is_held = value.id in self._views
            if is_held:
                self._kept[value.id] = 1
            born.append((value.id, value.start, value.size, is_held))
        return value.id, part.first, part.length, part.mode

    def _pack_record(self, record: Record, born: list[tuple[int, int, int, bool]]) -> Any:
        content, is_held = None, False
        if record.id >> _ID_SHIFT == self._number and record.id not in self._told_records:
            content = self._pack(record.content, born)
            self._told_records.add(record.id)
            is_held = record.id in self._views
            if is_held:
                self._kept[record.id] = 1
        return record.id, record.type_name, record.nbytes, content, is_held

    # Refs, and arrays born shared: see `manyhands.core.roles.Keeper` and `Putter`.

    def put(self, value: Any, *, writable: bool, copy: bool) -> Ref[Any]:
        if writable or copy:
            raise InvalidArgumentError(
                "writable= and copy= are for values that are put outside of calls: what a call makes is its caller's"
            )
        payload = dump_result(value, self)
        self._next_id += 1
        size = len(payload) if isinstance(payload, bytes) else _count(payload)
        record = Record(self, self._next_id, payload, name_type(value), size)
        return self.hand_out(record)

    def allocate(self, size: int) -> Any:
        value, _ = self._make(size)
        view = value.heap.view_for_writing(value.start, size)
        self._watch(view, value.id, value)
        return export(view)

    def hand_out(self, record: Record) -> Ref[Any]:
        known = self._refs.get(record.id)
        ref = known() if known is not None else None
        if ref is None:
            ref = Ref(record)
            self._refs[record.id] = weak(ref)
            self._watch(ref, record.id, None)
        return ref

    def read(self, record: Record) -> Any:
        content = record.content
        if isinstance(content, Parcel):  # put by this worker, and not as it was sent
            content = self._show(content)
        return self.load(content, record.id)

    def _show(self, payload: Parcel) -> Any:
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


def _count(payload: Parcel) -> int:
    parts = (payload.stream, *payload.buffers)
    return sum(part.length if isinstance(part, Piece) else len(part) for part in parts)
