"""A parent's store and workers' shelves in one process, and what goes between them, carried by hand."""

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from manyhands.core.model import StoreConfig
from manyhands.core.parcels import PlainInput
from manyhands.core.refs import Ref
from manyhands.core.serialize import Serializer
from manyhands.engines.local import messages as m
from manyhands.engines.local.room import StoredValue
from manyhands.engines.local.shelf import Shelf
from manyhands.engines.local.store import Load, Store

if TYPE_CHECKING:
    from manyhands.core.parcels import Payload

MEMORY = 1 << 24
DISK = 1 << 26


class FakeChannel:
    """Carries a worker's messages to the store at once, and records them."""

    def __init__(self, pair: "Pair", worker: int) -> None:
        self.pair = pair
        self.worker = worker
        self.sent: list[tuple[Any, ...]] = []

    def send(
        self, message: tuple[Any, ...], fds: tuple[int, ...] = (), *, wait: bool = True
    ) -> bool:
        self.sent.append(message)
        pair = self.pair
        if message[0] == m.HEAP:
            pair.store.add_heap(message[1], os.dup(fds[0]), message[2])
        elif message[0] == m.NEED_ROOM:
            is_there = pair.store.make_room(message[1])
            pair.tell_room(self.worker)
            pair.words[self.worker][m.ROOM_ANSWER] = m.IS_ROOM if is_there else m.NO_ROOM
        elif message[0] == m.DROPPED:
            pair.store.drop(self.worker, message[1])
        return True


class Sent:
    """A message on its way to a worker."""

    def __init__(self, worker: int, packed: Any, uses: list[int], freed: list[int]) -> None:
        self.worker = worker
        self.packed = packed
        self.uses = uses
        self.freed = freed


class Pair:
    """A store, and the shelves of some workers."""

    def __init__(
        self,
        memory: int = MEMORY,
        disk: int = DISK,
        folder: str | None = None,
        workers: int = 1,
        by_value: Callable[[str], bool] = lambda module: False,
    ) -> None:
        self.store = Store(StoreConfig(memory, disk, folder), workers)
        self.serializer = Serializer(by_value, lambda: self.store)
        self.words: dict[int, Any] = {}
        self.shelves: dict[int, Shelf] = {}
        self.channels: dict[int, FakeChannel] = {}
        for number in range(1, workers + 1):
            self.add_worker(number)

    def add_worker(self, number: int) -> None:
        self.words[number] = memoryview(bytearray(m.REGION_SIZE)).cast("Q")
        self.channels[number] = FakeChannel(self, number)
        self.tell_room(number)
        channel: Any = self.channels[number]
        self.shelves[number] = Shelf(channel, self.words[number], number)

    def tell_room(self, worker: int) -> None:
        room, words = self.store.room, self.words[worker]
        words[m.ROOM] = room.measure_free()
        words[m.WARM_LIMIT] = room.warm_limit
        words[m.HEAP_SIZE] = room.heap_size

    # What an engine does.

    def put(self, value: Any, *, writable: bool = False, copy: bool = False) -> Ref[Any]:
        return self.store.put(value, self.serializer, writable=writable, copy=copy)

    def hand_on(self, handle: Any) -> Any:
        """What stands among arguments for a ref or a result."""
        payload = handle.record.content if isinstance(handle, Ref) else handle
        return PlainInput(payload) if isinstance(payload, bytes) else self.store.forward(payload)

    def dump(self, *args: Any) -> "Payload":
        return self.serializer.dump_arguments(args, {})

    def pack(self, payload: "Payload", worker: int = 1) -> Sent:
        """Put a payload into a message, and tell the worker of the heaps that it needs."""
        load = Load(worker)
        packed = self.store.pack(payload, load)
        for number in load.missing:
            heap = self.store.get_heap(number)
            self.shelves[worker].add_heap(number, os.dup(heap.fd), heap.size)
            self.store.know_heap(worker, number, known=True)
        return Sent(worker, packed, load.uses, self.store.take_freed(worker))

    # What a worker does.

    def receive(self, sent: Sent) -> tuple[Any, ...]:
        """The arguments."""
        shelf = self.shelves[sent.worker]
        shelf.free(sent.freed)
        sent.packed = shelf.unbox(sent.packed, sent.uses)
        assert shelf.knows(sent.packed)
        args, kwargs = shelf.load(sent.packed)
        assert not kwargs
        return tuple(args)

    def answer(self, sent: Sent, value: Any) -> "Payload":
        """A call's result on its way to the parent; whoever calls has let go of the arguments."""
        shelf = self.shelves[sent.worker]
        result = shelf.dump(value)
        del value
        packed, born = shelf.pack(result)
        del result
        dropped = shelf.end_message(sent.uses)
        (payload,) = self.store.unpack([packed], sent.worker, born)
        self.store.drop(sent.worker, dropped)
        self.store.settle()
        self.tell_room(sent.worker)
        return payload

    def call(self, fn: Callable[..., Any], *args: Any, worker: int = 1) -> "Payload":
        """All of a call."""
        payload = self.dump(*args)
        sent = self.pack(payload, worker)
        del payload, args
        arguments = self.receive(sent)
        results = [fn(*arguments)]
        del arguments
        return self.answer(sent, results.pop())

    def run(self, fn: Callable[..., Any], *args: Any, worker: int = 1) -> Any:
        """The value of a call's result."""
        return self.store.load(self.call(fn, *args, worker=worker))

    # Looking.

    def settle(self) -> None:
        """Have all know what the others have let go of."""
        for _ in range(3):
            for number, shelf in self.shelves.items():
                self.store.drop(number, shelf.take_gone())
                shelf.free(self.store.take_freed(number))
            self.store.room.sweep()

    def list_values(self) -> list[StoredValue]:
        return list(self.store._values.values())

    def count_uses(self) -> int:
        return sum(value.uses for value in self.list_values())

    def list_held(self) -> list[int]:
        holdings: Iterable[Any] = self.store._holdings.values()
        return sorted(number for holding in holdings for number in holding.held)

    def check_empty(self) -> None:
        """Nothing is stored, in use or on its way."""
        self.store._sources.clear()
        self.settle()
        assert self.list_held() == []
        assert self.list_values() == []
        assert self.store.room.live == 0
        assert self.store.room.on_disk == 0
        assert not self.store._boxes
        assert not self.store._seen
        assert not self.store._seen_privately
        for number, space in self.store.room._spaces.items():
            space.validate()
            assert space.live == 0, number
        for shelf in self.shelves.values():
            if shelf._space is not None:
                shelf._space.validate()
                assert shelf._space.live == 0
            assert not shelf._born
            assert not shelf._untold
            assert not shelf._pinned
        assert not list(self.store._records.values())
        assert not list(self.store._refs.values())
