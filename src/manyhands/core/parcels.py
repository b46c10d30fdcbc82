"""What a value is while it travels: a pickle, and beside it the large buffers, which need not be copied for that.

Pickle's protocol 5 hands out the buffers of arrays and their like instead of copying them into the pickle. Small ones
stay with the pickle as bytes; large ones are `Piece`s of values that processes share. Used on both sides of a
process boundary, so importing this loads C modules alone.
"""

from __future__ import annotations

from _pickle import loads
from _thread import _local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from manyhands.core.refs import Record

    Part: TypeAlias = "bytes | Piece"
    Payload: TypeAlias = "bytes | Parcel"


_PART_BYTES = 96
"""What a message says of a part, beside the bytes in it."""


class Piece:
    """Some of the bytes of a stored value.

    Attributes
    ----------
    value
        What stands for the stored value on this side: it has an ``id``, and where pickles are compared a
        ``content_key``, equal for equal content. It is kept as long as a piece of it is.
    first, length
        Where the bytes stand in the value, and how many they are.
    mode : {"read", "write", "copy"}
        What whoever gets them may do: read, write for all to see, or change a private copy.
    """

    __slots__ = ("first", "length", "mode", "value")

    def __init__(self, value: Any, first: int, length: int, mode: str = "read") -> None:
        self.value = value
        self.first = first
        self.length = length
        self.mode = mode

    @property
    def key(self) -> tuple[object, int, int, str]:
        """Equal for two pieces of the same content."""
        return self.value.content_key, self.first, self.length, self.mode


class Parcel:
    """A pickled value with something beside its pickle.

    Attributes
    ----------
    stream
        The pickle.
    buffers
        What it refers to: buffers of pickle's own from the first on, in their order, and arrays from the last on,
        each by its place (see `take_array`).
    inputs
        Values that others pickled, and that stand in it as they are.
    refs
        What stands behind the refs inside.
    size : int
        Bytes that are not shared and so travel with every message.
    parts : int
        Of how many parts it consists.
    """

    __slots__ = ("buffers", "inputs", "parts", "refs", "size", "stream")

    def __init__(
        self,
        stream: Part,
        buffers: Sequence[Part] = (),
        inputs: Sequence[Payload] = (),
        refs: Sequence[Record] = (),
    ) -> None:
        self.stream = stream
        self.buffers = buffers
        self.inputs = inputs
        self.refs = refs
        self.size = sum(len(part) for part in (stream, *buffers) if isinstance(part, bytes))
        self.size += sum(len(p) if isinstance(p, bytes) else p.size for p in inputs)
        self.parts = 1 + len(buffers) + len(refs)
        self.parts += sum(1 if isinstance(p, bytes) else p.parts for p in inputs)
        for record in refs:
            content = record.content
            if isinstance(content, bytes):
                self.size += len(content)
            elif isinstance(content, Parcel):
                self.size += content.size
                self.parts += content.parts

    @property
    def weight(self) -> int:
        """About how many bytes of a message it takes."""
        return self.size + _PART_BYTES * self.parts

    @property
    def key(self) -> Any:
        """Equal for two parcels of the same content; hashable."""
        return (
            *(
                part if isinstance(part, bytes) else part.key
                for part in (self.stream, *self.buffers)
            ),
            *(payload if isinstance(payload, bytes) else payload.key for payload in self.inputs),
            *(ref.id for ref in self.refs),
        )


def measure(payload: Payload) -> int:
    """About how many bytes of a message a payload takes."""
    return len(payload) if isinstance(payload, bytes) else payload.weight


def get_key(payload: Payload) -> Any:
    """Equal for two payloads of the same content; hashable."""
    return payload if isinstance(payload, bytes) else payload.key


def list_pieces(payload: Payload) -> list[Piece]:
    """The pieces that a payload and its inputs consist of."""
    if isinstance(payload, bytes):
        return []
    found = [part for part in (payload.stream, *payload.buffers) if isinstance(part, Piece)]
    for inner in payload.inputs:
        found += list_pieces(inner)
    return found


def list_records(payload: Payload) -> list[Record]:
    """What stands behind the refs in a payload and its inputs."""
    if isinstance(payload, bytes):
        return []
    found = list(payload.refs)
    for inner in payload.inputs:
        found += list_records(inner)
    return found


def count_bytes(payload: Payload) -> int:
    """Bytes of a payload, shared or not, but for those of the refs in it."""
    if isinstance(payload, bytes):
        return len(payload)
    parts = (payload.stream, *payload.buffers)
    size = sum(part.length if isinstance(part, Piece) else len(part) for part in parts)
    return size + sum(map(count_bytes, payload.inputs))


class Packing(_local):
    """What the pickle that this thread is making has met; None where it is making none that can hold such things."""

    arrays: list[Any] | None = None
    inputs: list[Payload] | None = None
    refs: list[Record] | None = None

    reduce_array: Callable[[Any], Any] | None = None
    """How NumPy's arrays are taken apart in what is left of this pickle, set by the ``__reduce__`` of what holds them;
    where nothing is set, they are in the usual way."""


packing = Packing()


class _Opening(_local):
    """What stands beside the pickle that this thread is reading."""

    buffers: Sequence[Any] = ()
    inputs: Sequence[Any] = ()
    refs: Sequence[Any] = ()


_opening = _Opening()


def open_pickle(
    stream: Any, buffers: Sequence[Any], inputs: Sequence[Any] = (), refs: Sequence[Any] = ()
) -> Any:
    """The value of a pickle, given what stands beside it.

    Parameters
    ----------
    stream
        The pickle.
    buffers
        In the order in which it was made of them.
    inputs
        Functions, each of which gives the value of an `Input`.
    refs
        Records.
    """
    outer = _opening.buffers, _opening.inputs, _opening.refs
    _opening.buffers, _opening.inputs, _opening.refs = buffers, inputs, refs
    try:
        return loads(stream, buffers=buffers)
    finally:
        _opening.buffers, _opening.inputs, _opening.refs = outer


class Input:
    """Stands among the arguments of a call for a value that is pickled already: of a ref, or of a call that ended.

    Parameters
    ----------
    payload
        The pickled value.
    """

    __slots__ = ("payload",)

    def __init__(self, payload: Parcel) -> None:
        self.payload = payload

    def __reduce__(self) -> Any:
        assert packing.inputs is not None
        packing.inputs.append(self.payload)
        return take_input, (len(packing.inputs) - 1,)


class PlainInput:
    """The same for a value that is a pickle and nothing else: it goes into the pickle as it is."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def __reduce__(self) -> Any:
        return loads, (self.payload,)


def take_array(index: int, dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    """While a pickle is read: an array over the buffer that stands beside it, counted from the last.

    Pickle's own way would have the array as writable as it was where it was pickled. This way it is as writable as the
    buffer, which whoever reads the pickle decides.
    """
    from importlib import import_module

    buffer = _opening.buffers[-1 - index]
    return import_module("numpy").ndarray(shape, dtype, buffer, order=order)


def take_input(index: int) -> Any:
    """While a pickle is read: the value that stands beside it."""
    return _opening.inputs[index]()


def take_ref(index: int) -> Any:
    """While a pickle is read: a ref of what stands beside it."""
    record = _opening.refs[index]
    return record.keeper.hand_out(record)
