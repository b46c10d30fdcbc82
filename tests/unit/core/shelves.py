"""A shelf that keeps bytes in this process, and its reader."""

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from manyhands.core.parcels import Parcel, Piece, open_pickle
from manyhands.errors import StoreFullError

if TYPE_CHECKING:
    from manyhands.core.parcels import Payload


class FakeValue:
    """Stands for a stored value."""

    def __init__(self, number: int, content: bytes) -> None:
        self.id = number
        self.content = content

    @property
    def content_key(self) -> object:
        return self.content


class FakeShelf:
    """See `manyhands.core.roles.Shelf`; a buffer that comes again is recognised, a pickle is not."""

    def __init__(self, capacity: int = 1 << 40) -> None:
        self.capacity = capacity
        self.numbers = count(1)
        self.values: list[FakeValue] = []
        self.known: dict[bytes, FakeValue] = {}
        self.chunks = 0

    def keep(self, raw: memoryview) -> Piece:
        assert raw.format == "B"
        assert raw.ndim == 1
        content = bytes(raw)
        if content not in self.known:
            self.known[content] = self.store(content)
        return Piece(self.known[content], 0, raw.nbytes)

    def keep_chunks(self, chunks: list[bytes]) -> Piece:
        self.chunks += 1
        value = self.store(b"".join(chunks))
        return Piece(value, 0, len(value.content))

    def store(self, content: bytes) -> FakeValue:
        if len(content) > self.capacity:
            raise StoreFullError("full")
        self.capacity -= len(content)
        value = FakeValue(next(self.numbers), content)
        self.values.append(value)
        return value


def open_payload(payload: "Payload") -> Any:
    """The value, as a worker has it: every buffer read-only."""
    if isinstance(payload, bytes):
        return open_pickle(payload, ())
    return open_pickle(
        open_part(payload.stream),
        [open_part(part) for part in payload.buffers],
        [defer(inner) for inner in payload.inputs],
        payload.refs,
    )


def open_part(part: bytes | Piece) -> memoryview:
    if isinstance(part, bytes):
        return memoryview(part)
    return memoryview(part.value.content)[part.first : part.first + part.length]


def defer(payload: "Payload") -> Callable[[], Any]:
    return lambda: open_payload(payload)


def list_pieces(payload: "Payload") -> list[Piece]:
    assert isinstance(payload, Parcel)
    return [part for part in (payload.stream, *payload.buffers) if isinstance(part, Piece)]
