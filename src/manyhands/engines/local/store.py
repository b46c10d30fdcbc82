"""The parent's account of the values that processes share: who needs each, and how it reaches them.

Whoever needs a value holds its `StoredValue`: a call's arguments, a result, a ref, an array that the program got. When
the last of them lets go, its room is free. What a worker was sent counts as in use until the worker says that it has
no view of it any more; it stays where it is as long.
"""

from __future__ import annotations

import mmap
import os
import threading
from _pickle import dumps, loads
from itertools import count
from weakref import WeakValueDictionary

from manyhands.core.model import MemoryFacts, ValueFact
from manyhands.core.parcels import (
    Input,
    Parcel,
    Piece,
    count_bytes,
    list_pieces,
    list_records,
    open_pickle,
)
from manyhands.core.refs import Record, Ref, name_type
from manyhands.core.serialize import INLINE_BYTES
from manyhands.core.sizes import format_size
from manyhands.engines.local import messages as m
from manyhands.engines.local.heap import Heap, Watch, export, find_address
from manyhands.engines.local.room import Room, StoredValue
from manyhands.engines.local.sources import Sources
from manyhands.errors import InvalidArgumentError, SessionClosedError, StoreFullError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from manyhands.core.model import StoreConfig
    from manyhands.core.parcels import Part, Payload
    from manyhands.core.serialize import Serializer

_PRIVATE_VIEWS = 256
"""Results that are mapped privately at a time; each costs a descriptor. More are copied."""

_NAMED_VALUES = 5
"""How many values an error names."""


class Holding:
    """What one worker has of the store.

    Attributes
    ----------
    held
        By id, what it was sent and has not dropped: how often, and the value or record.
    heaps
        Numbers of the heaps that it knows.
    """

    __slots__ = ("heaps", "held")

    def __init__(self) -> None:
        self.held: dict[int, tuple[int, StoredValue | Record]] = {}
        self.heaps: set[int] = set()


class Load:
    """What a message to a worker needs of the store.

    Attributes
    ----------
    worker : int
    uses
        Ids of the values and refs in it; the worker drops each when it has no view of it any more.
    missing
        Numbers of heaps that the worker has to be told of before.
    """

    __slots__ = ("missing", "uses", "worker")

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.uses: list[int] = []
        self.missing: set[int] = set()


class Store:
    """Where a session keeps what is too large to copy.

    Parameters
    ----------
    config
        Limits.
    workers
        How many processes beside this one make values.

    Attributes
    ----------
    room : Room
    changes : int
        How often a value was made, or came from a worker.
    """

    def __init__(self, config: StoreConfig, workers: int) -> None:
        self.room = Room(config.memory, config.disk, config.folder or find_spill_folder(), workers)
        self.changes = 0
        self._lock = self.room.lock
        self._ids = count(1)
        self._clock = count(1)
        self._values: WeakValueDictionary[int, StoredValue] = WeakValueDictionary()
        self._records: WeakValueDictionary[int, Record] = WeakValueDictionary()
        self._refs: WeakValueDictionary[int, Ref[Any]] = WeakValueDictionary()
        self._holdings: dict[int, Holding] = {}
        self._sources = Sources()
        self._boxes: dict[tuple[int, int], list[int]] = {}  # what is in boxes, by worker and id
        # What this program has views of, by weak references to the views.
        self._seen: dict[Watch, StoredValue] = {}
        self._seen_privately: dict[Watch, StoredValue] = {}
        # What forked children may see, so that its room is never used for others.
        self._forked: dict[int, StoredValue] = {}
        self._rested_changes = 0  # what `changes` was at the last `rest`

    # What pickling calls: see `manyhands.core.roles.Shelf`.

    def keep(self, raw: memoryview) -> Piece:
        with self._lock:
            shared = self._find_shared(raw)
            if shared is not None and not shared[0].is_given:
                return Piece(shared[0], shared[1], raw.nbytes)
            value = self._sources.find(raw)
            if value is None:
                value = self._write([raw], "an argument")
                self._sources.remember(raw, value)
            value.used_at = next(self._clock)
            return Piece(value, 0, raw.nbytes)

    def keep_chunks(self, chunks: list[bytes]) -> Piece:
        with self._lock:
            value = self._write([memoryview(chunk) for chunk in chunks], "a pickle")
            return Piece(value, 0, value.size)

    # Refs.

    def put(self, value: Any, serializer: Serializer, *, writable: bool, copy: bool) -> Ref[Any]:
        """Store a value; its large buffers are copied into shared memory, unless they were made there."""
        if writable and copy:
            raise InvalidArgumentError(
                "writable=True and copy=True exclude each other: a change is seen by all, or by nobody else"
            )
        kind = name_type(value)
        mode = "write" if writable else "copy" if copy else "read"
        shelf = _Putting(self, mode, kind)
        inline_bytes = INLINE_BYTES if mode == "read" else 0
        payload = serializer.dump(value, "the value", lambda: shelf, inline_bytes)
        if writable and not any(piece.mode == "write" for piece in list_pieces(payload)):
            raise InvalidArgumentError(
                f"writable=True is for arrays and other buffers, and there is none in this {kind}"
            )
        self.check_own(payload)
        with self._lock:
            return self.hand_out(self._record(next(self._ids), payload, kind, count_bytes(payload)))

    def keep_put(self, raw: memoryview, mode: str, label: str) -> Piece:
        """A buffer of a value that is put: what was made here to be filled stays where it is."""
        with self._lock:
            shared = self._find_shared(raw)
            if shared is not None and (
                shared[0].is_born or (mode == "read" and not shared[0].is_given)
            ):
                return Piece(shared[0], shared[1], raw.nbytes, mode)
            return Piece(self._write([raw], label), 0, raw.nbytes, mode)

    def _record(self, number: int, payload: Payload, type_name: str, nbytes: int) -> Record:
        record = self._records[number] = Record(self, number, payload, type_name, nbytes)
        return record

    def read(self, record: Record) -> Any:
        """See `manyhands.core.roles.Keeper`."""
        if self.room.is_closed:
            raise SessionClosedError(
                f"ref {record.id}, a {record.type_name}: the session that stored it is closed. Read what you need "
                f"before its end"
            )
        return self._open(record.content, is_result=False)

    def locate(self, record: Record) -> str:
        """See `manyhands.core.roles.Keeper`."""
        if self.room.is_closed:
            return "gone"
        pieces = list_pieces(record.content)
        return "disk" if any(piece.value.is_on_disk for piece in pieces) else "memory"

    def describe(self, record: Record) -> str:
        """See `manyhands.core.roles.Keeper`."""
        place = self.locate(record)
        if place == "gone":
            return "gone with its session"
        return f"{format_size(record.nbytes)} {'on disk' if place == 'disk' else 'in memory'}"

    def hand_out(self, record: Record) -> Ref[Any]:
        """See `manyhands.core.roles.Keeper`."""
        with self._lock:
            ref = self._refs.get(record.id)
            if ref is None:
                ref = self._refs[record.id] = Ref(record)
            return ref

    def check_own(self, payload: Payload) -> None:
        """Raise InvalidArgumentError if a ref of another session is in the payload."""
        if isinstance(payload, bytes):
            return
        for record in payload.refs:
            if record.keeper is not self:
                raise InvalidArgumentError(
                    f"ref {record.id}, a {record.type_name}, belongs to another session: send its value, ref.get()"
                )
        for inner in payload.inputs:
            self.check_own(inner)

    def allocate(self, size: int) -> Any:
        """A writable buffer of shared memory, not cleared."""
        with self._lock:
            value, is_warm = self._place(size, "an array made here")
            value.is_born = True
            if not is_warm:
                value.heap.reserve(value.start, size)
            return self._export(value, 0, size, "write")

    # Reading.

    def load(self, payload: Payload) -> Any:
        """The value of a result. Its arrays can be written, and nobody else sees that."""
        return self._open(payload, is_result=True)

    def read_stream(self, payload: Payload) -> Any:
        """The bytes of a payload that is a pickle with nothing beside it."""
        return payload if isinstance(payload, bytes) else self._open_part(payload.stream, False)

    def _open(self, payload: Payload, *, is_result: bool) -> Any:
        if isinstance(payload, bytes):
            return open_pickle(payload, ())
        stream = self._open_part(payload.stream, False)
        buffers = [self._open_part(part, is_result) for part in payload.buffers]
        return open_pickle(stream, buffers, [self._defer(p) for p in payload.inputs], payload.refs)

    def _defer(self, payload: Payload) -> Callable[[], Any]:
        return lambda: self._open(payload, is_result=False)

    def _open_part(self, part: Part, is_result: bool) -> Any:
        if isinstance(part, bytes):
            return bytearray(part) if is_result else part
        value: Any = part.value
        with self._lock:
            mode = part.mode
            if is_result and mode == "read":
                mode = "copy"
                if value.is_exclusive and not value.uses and not value.is_on_disk:
                    value.is_exclusive, value.is_given = False, True
                    mode = "write"
            return self._export(value, part.first, part.length, mode)

    def _export(self, value: StoredValue, first: int, length: int, mode: str) -> Any:
        """A buffer over bytes of a value, which is kept as long as anything made from the buffer lives."""
        heap, start = value.heap, value.start + first
        value.used_at = next(self._clock)
        if mode == "copy":
            seen = self._seen_privately
            if len(seen) >= _PRIVATE_VIEWS or self.room.is_closed:
                return copy_aligned(heap.view(start, length))
            view = heap.view_privately(start, length)
        else:
            seen = self._seen
            view = (
                heap.view_for_writing(start, length)
                if mode == "write"
                else heap.view(start, length)
            )
        # Called at any moment, so it does one thing, which nobody can interrupt.
        seen[Watch(view, lambda watch: seen.pop(watch, None))] = value
        return export(view)

    # What goes to workers.

    def forward(self, payload: Parcel) -> Input:
        """What stands among the arguments of a call for a value that is pickled already."""
        with self._lock:
            for piece in list_pieces(payload):
                piece.value.is_exclusive = False
        return Input(payload)

    def pack(self, payload: Payload, load: Load) -> Any:
        """A payload as a worker gets it; what it needs counts as held by the worker from now on."""
        if isinstance(payload, bytes):
            return payload
        with self._lock:
            if not m.is_bulky(payload):
                return self._pack(payload, load, is_held=True)
            inner = Load(load.worker)
            packed = self._pack(payload, inner, is_held=True)
            load.missing |= inner.missing
            content = memoryview(dumps((packed, inner.uses), 5))
            # Beyond the limit if need be: it is small, and goes as soon as it is opened.
            box = Piece(self._write([content], "a message", is_forced=True), 0, content.nbytes)
            # Until the worker has opened the box, it knows nothing of what is in it.
            self._boxes[load.worker, box.value.id] = inner.uses
            return m.BOXED, self._pack_part(box, load, True)

    def take_back(self, worker: int, uses: Iterable[int]) -> None:
        """A worker has not got what it was sent, and will not."""
        with self._lock:
            for number in uses:
                self.drop(worker, self._boxes.get((worker, number), ()))
            self.drop(worker, uses)

    def _pack(self, payload: Payload, load: Load, *, is_held: bool) -> Any:
        if isinstance(payload, bytes):
            return payload
        return (
            self._pack_part(payload.stream, load, is_held),
            [self._pack_part(part, load, is_held) for part in payload.buffers],
            [self._pack(inner, load, is_held=is_held) for inner in payload.inputs],
            [self._pack_record(record, load) for record in payload.refs],
        )

    def _pack_part(self, part: Part, load: Load, is_held: bool) -> Any:
        if isinstance(part, bytes):
            return part
        value: Any = part.value
        value.used_at = next(self._clock)
        value.is_exclusive = False
        number = value.heap.number
        if number not in (load.worker, *self._get_holding(load.worker).heaps):
            load.missing.add(number)
        if is_held:
            self._hold(load.worker, value)
            load.uses.append(value.id)
        return value.id, number, value.start, part.first, part.length, part.mode

    def _pack_record(self, record: Record, load: Load) -> Any:
        self._hold(load.worker, record)
        load.uses.append(record.id)
        # Who holds the record holds its values.
        content = self._pack(record.content, load, is_held=False)
        return record.id, record.type_name, record.nbytes, content

    def _get_holding(self, worker: int) -> Holding:
        holding = self._holdings.get(worker)
        if holding is None:
            holding = self._holdings[worker] = Holding()
        return holding

    def _hold(self, worker: int, what: StoredValue | Record) -> None:
        held = self._get_holding(worker).held
        times = held[what.id][0] if what.id in held else 0
        held[what.id] = (times + 1, what)
        for value in _list_values(what):
            value.uses += 1

    def drop(self, worker: int, ids: Iterable[int]) -> None:
        """A worker has no view any more of what it was sent, once for each time that an id is in `ids`."""
        with self._lock:
            held = self._get_holding(worker).held
            for number in ids:
                if number not in held:
                    continue
                times, what = held[number]
                if times > 1:
                    held[number] = (times - 1, what)
                else:
                    del held[number]
                    self._boxes.pop((worker, number), None)
                for value in _list_values(what):
                    value.uses -= 1

    def get_heap(self, number: int) -> Heap:
        """A heap that a worker has to be told of."""
        return self.room.heaps[number]

    def know_heap(self, worker: int, number: int, *, known: bool) -> None:
        """A worker was told of a heap; or, with `known` false, has not heard of it after all."""
        heaps = self._get_holding(worker).heaps
        if known:
            heaps.add(number)
        else:
            heaps.discard(number)

    def take_freed(self, worker: int) -> list[int]:
        """Ids of values in the worker's heap that it can use the room of; each is told once."""
        room = self.room
        if not room.departed and not room.freed.get(worker):
            return []
        with self._lock:
            room.sweep()
            freed = room.freed.get(worker, [])
            if freed:
                room.freed[worker] = freed[m.IDS :]
            return freed[: m.IDS]

    def put_back_freed(self, worker: int, ids: Iterable[int]) -> None:
        """The worker was not told after all."""
        with self._lock:
            if worker in self.room.freed:
                self.room.freed[worker] += ids

    def has_freed(self) -> bool:
        """Whether a worker has to be told of room in its heap."""
        return bool(self.room.departed) or any(self.room.freed.values())

    # What comes from workers.

    def add_heap(self, worker: int, fd: int, size: int) -> None:
        """A worker has made itself a heap."""
        with self._lock:
            self.room.heaps[worker] = Heap(worker, fd, size, writable=True)
            self.room.freed[worker] = []

    def unpack(
        self, packed: Iterable[Any], worker: int, born: Iterable[tuple[int, int, int]]
    ) -> list[Payload]:
        """Results as they came from a worker.

        Parameters
        ----------
        packed
            As the worker's shelf packed them.
        born
            The values that the worker made and tells of with this result: id, start, size. Like what it was sent,
            they count as held by it until it drops them.
        """
        with self._lock:
            self.changes += 1
            self._add_born(worker, born)
            return [self._unpack(one, worker, set()) for one in packed]

    def _add_born(self, worker: int, born: Iterable[tuple[int, int, int]]) -> None:
        for number, start, size in born:
            value = self._values[number] = self.room.adopt(number, worker, start, size, "a result")
            value.used_at = next(self._clock)
            value.is_exclusive = True
            self._hold(worker, value)

    def _unpack(self, packed: Any, worker: int, met: set[int]) -> Payload:
        if isinstance(packed, bytes):
            return packed
        if packed[0] == m.BOXED:
            value: Any = self._values[packed[1][0]]
            inner, born = loads(value.heap.view(value.start, value.size))
            self._add_born(worker, born)
            return self._unpack(inner, worker, met)
        stream, buffers, inputs, refs = packed
        return Parcel(
            self._unpack_part(stream, met),
            [self._unpack_part(part, met) for part in buffers],
            [self._unpack(inner, worker, met) for inner in inputs],
            [self._unpack_record(record, worker) for record in refs],
        )

    def _unpack_part(self, packed: Any, met: set[int]) -> Part:
        if isinstance(packed, bytes):
            return packed
        number, first, length, mode = packed
        value = self._values[number]
        if number in met or length != value.size:  # two arrays over the same bytes
            value.is_exclusive = False
        met.add(number)
        return Piece(value, first, length, mode)

    def _unpack_record(self, packed: Any, worker: int) -> Record:
        number, type_name, nbytes, content = packed
        record = self._records.get(number)
        if record is None:
            payload = self._unpack(content, worker, set())
            for piece in list_pieces(payload):
                piece.value.is_exclusive = False
            record = self._record(number, payload, type_name, nbytes)
            self._hold(worker, record)
        return record

    def lose(self, worker: int) -> None:
        """A worker has ended: it reads nothing any more, and what it had not told of is gone."""
        with self._lock:
            holding = self._holdings.pop(worker, None)
            self._boxes = {key: uses for key, uses in self._boxes.items() if key[0] != worker}
            if holding is not None:
                _let_go(holding)
            del holding
            self.room.sweep()
            heap = self.room.heaps.get(worker)
            values = [value for value in self._values.values() if value.heap is heap]
            self.room.lose(worker, values)

    # Room.

    def make_room(self, size: int) -> bool:
        """See that a worker's result of `size` bytes can be taken in, if need be by way of the disk."""
        with self._lock:
            return self._make_room(size) or self.room.has_disk(size)

    def settle(self) -> None:
        """See that the limit holds after values have come from workers."""
        if self.room.live > self.room.limit:
            with self._lock:
                self._make_room(0)

    def rest(self) -> None:
        """The session idles: give back what is only kept to be quick."""
        with self._lock:
            self._sources.clear()
            self.room.sweep()
            self.room.chill(0)
            self._rested_changes = self.changes

    def needs_rest(self) -> bool:
        """Whether there may be something to give back."""
        is_changed = self.changes != self._rested_changes
        return is_changed or bool(self.room.departed or self.room.warm)

    def is_in_use(self) -> bool:
        """Whether there is anything that may come to be let go of."""
        return bool(self.room.live or self.room.on_disk) or self.needs_rest()

    def _make_room(self, size: int) -> bool:
        room = self.room
        room.sweep()
        if room.live + room.warm + size <= room.limit:
            return True
        self._sources.clear()  # copies that nobody needs go first
        room.sweep()
        return room.make(size, self._list_idle())

    def _list_idle(self) -> Iterator[StoredValue]:
        """Values that nobody reads at the moment, the longest unused first."""
        seen = {*self._list_seen(), *self._forked}
        idle = [value for value in self._values.values() if not value.uses and value.id not in seen]
        yield from sorted(idle, key=lambda value: value.used_at)

    def _place(self, size: int, label: str, *, is_forced: bool = False) -> tuple[StoredValue, bool]:
        if self.room.is_closed:
            raise SessionClosedError("this session is closed; open another")
        self.room.sweep()
        try:
            if self.room.live + size > self.room.limit and not is_forced:
                self._make_room(size)
            idle = None if is_forced else self._list_idle()
            value, is_warm = self.room.place(next(self._ids), size, label, idle)
        except StoreFullError as error:
            raise StoreFullError(self.explain_fullness(size)) from error
        value.used_at = next(self._clock)
        self._values[value.id] = value
        self.changes += 1
        return value, is_warm

    def _write(
        self, parts: list[memoryview], label: str, *, is_forced: bool = False
    ) -> StoredValue:
        size = sum(part.nbytes for part in parts)
        value, is_warm = self._place(size, label, is_forced=is_forced)
        place = value.start
        try:
            for part in parts:
                value.heap.write(place, part, warm=is_warm)
                place += part.nbytes
        except OSError as error:
            self.room.void(value)
            raise StoreFullError(
                f"{self.explain_fullness(size)}. The system says: {error}"
            ) from error
        return value

    def explain_fullness(self, size: int) -> str:
        """Why `size` bytes more do not fit, and what is in the way."""
        facts = sorted(self.list_facts([]), key=lambda fact: -fact.nbytes)[:_NAMED_VALUES]
        return self.room.describe_fullness(
            size,
            [
                f"{fact.kind}, {format_size(fact.nbytes)} {fact.place} ({', '.join(fact.holders)})"
                for fact in facts
            ],
        )

    def _find_shared(self, raw: memoryview) -> tuple[StoredValue, int] | None:
        """The value that the bytes of `raw` are, and where they stand in it; None where they are no value's."""
        address = find_address(raw) if raw.nbytes and self.room.heaps else None
        for heap in self.room.heaps.values():
            place = heap.locate(address, raw.nbytes)
            if place is None:
                continue
            for value in self._values.values():
                if value.heap is heap and value.start <= place < value.start + value.size:
                    return value, place - value.start
        return None

    # Reports.

    def describe_memory(self, waiting: Iterable[tuple[str, Payload]]) -> MemoryFacts:
        """What is stored; see `list_facts`."""
        room = self.room
        with self._lock:
            if room.is_closed:
                kept = self._list_kept()
                return MemoryFacts(
                    limit=room.limit,
                    used=sum(value.size for value in kept),
                    values=[
                        ValueFact(
                            value.id, value.label, value.size, "memory", [self._name_end(value)]
                        )
                        for value in kept
                    ],
                )
            room.sweep()
            return MemoryFacts(
                limit=room.limit,
                used=room.live,
                disk_limit=room.disk_limit,
                disk_used=room.on_disk,
                spilled=room.spilled_bytes,
                values=self.list_facts(waiting),
            )

    def _list_seen(self) -> dict[int, StoredValue]:
        """The values that this program has views of, by id."""
        return {value.id: value for value in (*self._seen.values(), *self._seen_privately.values())}

    def _name_end(self, value: StoredValue) -> str:
        """Why a value outlives the session."""
        if value.id in self._list_seen():
            return _SEEN
        return "a forked child" if value.id in self._forked else "a result that was not read"

    def list_facts(self, waiting: Iterable[tuple[str, Payload]]) -> list[ValueFact]:
        """What is stored: for each ref and each value that is no ref's, its id, kind, size, place and holders.

        Parameters
        ----------
        waiting
            Names of calls that no worker has yet, and their arguments.
        """
        with self._lock:
            self.room.sweep()
            holders: dict[int, list[str]] = {}
            for name, payload in waiting:
                for number in _list_ids(payload):
                    holders.setdefault(number, []).append(f"a waiting call of {name}")
            for worker, holding in self._holdings.items():
                for number in holding.held:
                    holders.setdefault(number, []).append(f"worker {worker}")
            for number in self._list_seen():
                holders.setdefault(number, []).append(_SEEN)
            for number in self._forked:
                holders.setdefault(number, []).append("a forked child")
            copies = {value.id for value in self._sources.list_values()}
            facts = []
            owned: set[int] = set()
            for record in list(self._records.values()):
                names = holders.get(record.id, [])
                if record.id in self._refs:
                    names = ["a ref of this program", *names]
                for value in _list_values(record):
                    owned.add(value.id)
                    names += [name for name in holders.get(value.id, []) if name not in names]
                facts.append(
                    ValueFact(
                        record.id, record.type_name, record.nbytes, self.locate(record), names
                    )
                )
            for value in list(self._values.values()):
                if value.id in owned:
                    continue
                names = holders.get(value.id, [])
                if value.id in copies:
                    names = [*names, "kept in case that it is sent again"]
                place = "disk" if value.is_on_disk else "memory"
                facts.append(
                    ValueFact(
                        value.id, value.label, value.size, place, names or ["a result or call"]
                    )
                )
            return facts

    # The end.

    def close(self) -> None:
        """Give back all but what this program still has views of, and results that it has not read yet."""
        with self._lock:
            self._sources.clear()
            self._holdings.clear()
            self.room.sweep()
            self.room.close(self._list_kept())

    def _list_kept(self) -> list[StoredValue]:
        """What outlives the session: all but what is a ref's and nobody sees."""
        seen = {*self._list_seen(), *self._forked}
        owned = {
            value.id for record in self._records.values() for value in _list_values(record)
        } - seen
        return [value for value in self._values.values() if value.id not in owned]

    def share_with_child(self) -> None:
        """This process has forked: the child sees what this one sees, for as long as it likes."""
        with self._lock:
            self._forked.update(self._list_seen())

    def abandon(self) -> None:
        """In a forked child: close descriptors, and leave the memory to its owner."""
        self._lock = self.room.lock = threading.RLock()
        self.room.is_closed = True
        for heap in self.room.heaps.values():
            heap.close()


_SEEN = "an array of this program"


class _Putting:
    """Where the buffers of a value go that is put: see `manyhands.core.roles.Shelf`."""

    def __init__(self, store: Store, mode: str, label: str) -> None:
        self._store = store
        self._mode = mode
        self._label = label

    def keep(self, raw: memoryview) -> Piece:
        return self._store.keep_put(raw, self._mode, self._label)

    def keep_chunks(self, chunks: list[bytes]) -> Piece:
        return self._store.keep_chunks(chunks)


def _let_go(holding: Holding) -> None:
    for times, what in holding.held.values():
        for value in _list_values(what):
            value.uses -= times


def copy_aligned(view: memoryview) -> memoryview:
    """A copy of some bytes in memory of this process alone, at the beginning of a page."""
    copy = mmap.mmap(-1, view.nbytes)
    copy[:] = view
    return memoryview(copy)


def find_spill_folder() -> str:
    """Where values go that do not fit into memory, unless the session was told."""
    import tempfile

    return os.fspath(tempfile.gettempdir())


def _list_values(what: StoredValue | Record) -> list[StoredValue]:
    """The stored values that go with a value or a record."""
    if isinstance(what, StoredValue):
        return [what]
    found: list[Any] = [piece.value for piece in list_pieces(what.content)]
    for record in list_records(what.content):
        found += _list_values(record)
    return found


def _list_ids(payload: Payload) -> list[int]:
    """Ids of the values and refs that a payload needs."""
    pieces, records = list_pieces(payload), list_records(payload)
    return [*(piece.value.id for piece in pieces), *(record.id for record in records)]
