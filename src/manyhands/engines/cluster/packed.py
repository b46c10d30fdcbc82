"""A value as it lies in a cluster: its pickle, and beside it the large buffers and the refs that it holds."""

from __future__ import annotations

from pickle import PickleBuffer

from manyhands.core.parcels import Parcel, Piece, open_pickle
from manyhands.core.serialize import dump_result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from manyhands.core.parcels import Payload
    from manyhands.core.refs import Record

    Stub = tuple[int, Any, str, int]
    """What a ref is while it travels: its number, the cluster's handle of its value, and the value's type and size."""


class Packed:
    """A pickled value.

    Its buffers are copies, so that nobody who has the original can change it, and arrays over them are read-only.

    Parameters
    ----------
    stream
        The pickle.
    buffers
        What it refers to.
    stubs
        Of the refs in it.
    is_private
        Whether each reader gets a copy of its own, and may change it.
    """

    __slots__ = ("buffers", "is_private", "stream", "stubs")

    def __init__(
        self,
        stream: bytes,
        buffers: Sequence[Any] = (),
        stubs: Sequence[Stub] = (),
        is_private: bool = False,
    ) -> None:
        self.stream = stream
        self.buffers = tuple(buffers)
        self.stubs = tuple(stubs)
        self.is_private = is_private

    @classmethod
    def of(cls, payload: Payload, *, is_private: bool = False) -> Packed:
        """What a serializer with a `LooseShelf` made."""
        if isinstance(payload, bytes):
            return cls(payload)
        stream, *buffers = (_get_bytes(part) for part in (payload.stream, *payload.buffers))
        return cls(stream, buffers, [record.content for record in payload.refs], is_private)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return len(self.stream) + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def load(
        self,
        hand_out: Callable[[Stub], Record],
        inputs: Sequence[Packed] = (),
    ) -> Any:
        """The value.

        Parameters
        ----------
        hand_out
            Makes the record of a ref.
        inputs
            Values that stand in it.
        """
        buffers = [bytearray(part) for part in self.buffers] if self.is_private else self.buffers
        readers = [_make_reader(packed, hand_out) for packed in inputs]
        return open_pickle(self.stream, buffers, readers, [hand_out(stub) for stub in self.stubs])

    def __sizeof__(self) -> int:
        # Clusters ask how much memory a value takes.
        return object.__sizeof__(self) + self.nbytes

    def __reduce_ex__(self, protocol: Any) -> Any:
        pack = PickleBuffer if protocol >= 5 else bytes
        buffers = [pack(buffer) for buffer in self.buffers]
        return Packed, (self.stream, buffers, self.stubs, self.is_private)


class LooseShelf:
    """Keeps the large buffers of a value with the value itself; see `manyhands.core.roles.Shelf`."""

    def keep(self, raw: memoryview) -> Piece:
        return Piece(_Kept(bytes(raw)), 0, raw.nbytes)

    def keep_chunks(self, chunks: list[bytes]) -> Piece:
        content = b"".join(chunks)
        return Piece(_Kept(content), 0, len(content))


class Slot:
    """Stands in a pickle for a value that the cluster has; see `manyhands.core.parcels.Input`.

    Parameters
    ----------
    native
        The cluster's handle of it.
    """

    __slots__ = ("native",)

    parts = 1
    size = 0

    def __init__(self, native: Any) -> None:
        self.native = native


def pack_result(value: object) -> Packed:
    """What a call has given.

    Raises
    ------
    UnpicklableError
    """
    return Packed.of(dump_result(value, LOOSE))


def list_slots(payload: Payload) -> list[Slot]:
    """The values of the cluster that stand in a payload, in their order."""
    return list(payload.inputs) if isinstance(payload, Parcel) else []  # type: ignore[arg-type]


class _Kept:
    """The bytes behind a `Piece`."""

    __slots__ = ("content_key",)

    def __init__(self, content: bytes) -> None:
        self.content_key = content


LOOSE = LooseShelf()


def _get_bytes(part: Any) -> bytes:
    found: bytes = part.value.content_key if isinstance(part, Piece) else part
    return found


def _make_reader(packed: Packed, hand_out: Callable[[Stub], Record]) -> Callable[[], Any]:
    return lambda: packed.load(hand_out)
