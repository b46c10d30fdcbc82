"""Values to bytes and back: plain pickle first, cloudpickle only where it must be.

Used on both sides of a process boundary, so importing it loads C modules alone; cloudpickle (24 ms) is loaded
when the first value needs it.
"""

from __future__ import annotations

import sys
from _pickle import PickleBuffer, Pickler
from _pickle import dumps as plain_dumps
from types import CodeType, FunctionType, ModuleType

from manyhands.core.namespaces import (
    CACHED,
    Identities,
    Namespace,
    Values,
    fill_class,
    name_file,
    rebuild_cached,
)
from manyhands.core.parcels import Parcel, PlainInput, packing
from manyhands.core.reductions import list_reductions
from manyhands.errors import StoreFullError, UnpicklableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from manyhands.core.parcels import Part, Payload
    from manyhands.core.refs import Record
    from manyhands.core.roles import Shelf

PROTOCOL = 5

_ATOMS = frozenset({int, float, str, bytes, bool, type(None), complex})
"""Types whose values plain pickle always handles and that name no class or function."""


_PLAIN = _ATOMS | {PlainInput}


INLINE_BYTES = 16 * 1024
"""Bytes of a pickle or a buffer above which they are shared; below, they travel in the message."""


class _ByValueNeededError(Exception):
    """A class or function in the value cannot be found by its name on the other side."""


class _Sink:
    """A pickler's file: the pickle in pieces, the large ones as the objects that they are."""

    __slots__ = ("chunks", "write")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.write = self.chunks.append


class _ReferencePickler(Pickler):
    """Plain pickle that gives up at the first class or function that has to travel by value."""

    def __init__(self, sink: _Sink, take: Any, by_value: Callable[[str], bool]) -> None:
        super().__init__(sink, PROTOCOL, buffer_callback=take)
        self.dispatch_table = list_reductions()
        self._by_value = by_value

    def reducer_override(self, obj: object) -> Any:
        kind = type(obj)
        if isinstance(obj, (type, FunctionType)) or kind is CACHED or hasattr(kind, "__wrapped__"):
            module = getattr(obj, "__module__", None)
            if isinstance(module, str) and self._by_value(module):
                raise _ByValueNeededError
        return NotImplemented


class Serializer:
    """Pickles what crosses to a worker.

    Parameters
    ----------
    by_value
        Tells whether the classes and functions of the module of this name travel by value.
    get_shelf
        Gives the place where large buffers are put; None where all travels in the pickle.
    serial
        As of `Identities`.

    Examples
    --------
    >>> from pickle import loads
    >>> serializer = Serializer(lambda module: module == "__main__")
    >>> loads(serializer.dump_arguments((1, "x"), {}))
    ((1, 'x'), {})
    """

    def __init__(
        self,
        by_value: Callable[[str], bool],
        get_shelf: Callable[[], Shelf] | None = None,
        serial: object = None,
    ) -> None:
        self._by_value = by_value
        self._get_shelf = get_shelf
        self._identities = Identities(self._dump, serial)

    @property
    def version(self) -> int:
        """Of the globals that travelled by value so far; a pickle of an earlier one is out of date."""
        return self._identities.version

    def dump_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Payload:
        """One call's arguments, as pickle, and what stands beside it.

        Raises
        ------
        UnpicklableError
            Naming the argument, and the part of it, that cannot travel.
        StoreFullError
        """
        if not kwargs and _PLAIN.issuperset(map(type, args)) and not _has_large(args):
            payload = plain_dumps((args, None), PROTOCOL)
            if len(payload) <= INLINE_BYTES:
                return payload
        try:
            return self._dump((_lift(args), {name: _lift_one(arg) for name, arg in kwargs.items()}))
        except StoreFullError:
            raise
        except Exception as error:
            parts = [(f"argument {index}", arg) for index, arg in enumerate(args)]
            parts += [(f"argument {name!r}", arg) for name, arg in kwargs.items()]
            raise _explain(parts, self._try, error) from error

    def dump(
        self,
        value: object,
        what: str,
        get_shelf: Callable[[], Shelf] | None = None,
        inline_bytes: int = INLINE_BYTES,
    ) -> Payload:
        """One value.

        Parameters
        ----------
        value
            Anything.
        what
            Names it in an error.
        get_shelf
            Gives another place for its large buffers.
        inline_bytes
            Up to which size a buffer is not large.

        Raises
        ------
        UnpicklableError
            Naming the part of the value that cannot travel.
        StoreFullError
        """
        if type(value) in _ATOMS and not _has_large((value,)):
            return plain_dumps(value, PROTOCOL)
        try:
            return self._dump(_lift_one(value), get_shelf, inline_bytes)
        except StoreFullError:
            raise
        except Exception as error:
            raise _explain([(what, value)], self._try, error) from error

    def dump_alone(self, value: object, what: str) -> bytes:
        """One value with all that belongs to it, as bytes for `pickle.loads`.

        Raises
        ------
        UnpicklableError
        """
        try:
            return self._dump_alone(value)
        except Exception as error:
            raise _explain([(what, value)], self._dump_alone, error) from error

    def _dump(
        self,
        value: object,
        get_shelf: Callable[[], Shelf] | None = None,
        inline_bytes: int = INLINE_BYTES,
    ) -> Payload:
        get_shelf = get_shelf or self._get_shelf
        if get_shelf is None:
            return self._dump_alone(value)
        buffers: list[Any] = []
        arrays: list[Any] = []
        inputs: list[Payload] = []
        refs: list[Record] = []
        outer = packing.arrays, packing.inputs, packing.refs, packing.reduce_array
        packing.arrays, packing.inputs, packing.refs = arrays, inputs, refs
        packing.reduce_array = None
        try:
            chunks = self._pickle(value, buffers.append)
        except _ByValueNeededError:
            for met in (buffers, arrays, inputs, refs):
                met.clear()
            packing.reduce_array = None
            chunks = self._pickle_by_value(value, buffers.append)
        finally:
            packing.arrays, packing.inputs, packing.refs, packing.reduce_array = outer
        return pack(get_shelf, chunks, [*buffers, *reversed(arrays)], (inputs, refs), inline_bytes)

    def _try(self, value: object) -> None:
        """Pickle and keep nothing, to see whether it can be done."""
        buffers: list[Any] = []
        outer = packing.arrays, packing.inputs, packing.refs, packing.reduce_array
        packing.arrays, packing.inputs, packing.refs = [], [], []
        packing.reduce_array = None
        try:
            self._pickle(value, buffers.append)
        except _ByValueNeededError:
            self._pickle_by_value(value, buffers.append)
        finally:
            packing.arrays, packing.inputs, packing.refs, packing.reduce_array = outer

    def _dump_alone(self, value: object) -> bytes:
        try:
            return b"".join(self._pickle(value, None))
        except _ByValueNeededError:
            return b"".join(self._pickle_by_value(value, None))

    def _pickle(self, value: object, take: Any) -> list[bytes]:
        sink = _Sink()
        try:
            _ReferencePickler(sink, take, self._by_value).dump(value)
        except Exception as error:
            raise _ByValueNeededError from error
        return sink.chunks

    def _pickle_by_value(self, value: object, take: Any) -> list[bytes]:
        import cloudpickle

        sink = _Sink()
        registered: list[ModuleType] = []
        try:
            _make_value_pickler(sink, take, self._by_value, registered, self._identities).dump(
                value
            )
        finally:
            # Other libraries of this process that use cloudpickle must not notice.
            for module in registered:
                cloudpickle.unregister_pickle_by_value(module)
        return sink.chunks


def pack(
    get_shelf: Callable[[], Shelf],
    chunks: list[bytes],
    buffers: list[Any],
    beside: tuple[list[Payload], list[Record]],
    inline_bytes: int = INLINE_BYTES,
) -> Payload:
    """Put what is large of a pickled value on the shelf.

    Parameters
    ----------
    get_shelf
        Gives the place where large buffers are put.
    chunks
        The pickle.
    buffers
        What it refers to.
    beside
        The inputs and refs that pickling has met.
    inline_bytes
        Up to which size a buffer stays in the message, unless it is shared already.
    """
    inputs, refs = beside
    stream: Part
    if sum(map(len, chunks)) > INLINE_BYTES:
        stream = get_shelf().keep_chunks(chunks)
    else:
        stream = b"".join(chunks)
        if not buffers and not inputs and not refs:
            return stream
    parts: list[Part] = []
    for buffer in buffers:
        raw = buffer.raw()
        is_small = raw.nbytes <= inline_bytes and not (raw.nbytes and _is_born_elsewhere(raw.obj))
        parts.append(bytes(raw) if is_small else get_shelf().keep(raw))
    return Parcel(stream, parts, inputs, refs)


def _is_born_elsewhere(array: Any) -> bool:
    """Whether the memory of an array is not its own nor another array's: then it may be shared already."""
    while (base := getattr(array, "base", None)) is not None and type(base) is type(array):
        array = base
    return base is not None and not isinstance(base, (bytes, bytearray))


class _Lifted:
    """Stands among arguments for a large `bytes`, so that its content is a buffer and not part of the pickle."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> Any:
        return bytes, (PickleBuffer(self.content),)


def _has_large(args: tuple[Any, ...]) -> bool:
    return any(type(arg) in (bytes, str) and len(arg) > INLINE_BYTES for arg in args)


def _lift(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(_lift_one, args))


def _lift_one(value: Any) -> Any:
    return _Lifted(value) if type(value) is bytes and len(value) > INLINE_BYTES else value


def _make_value_pickler(
    sink: _Sink,
    take: Any,
    by_value: Callable[[str], bool],
    registered: list[ModuleType],
    identities: Identities,
) -> Pickler:
    """A cloudpickle pickler that enters modules into cloudpickle's register as it meets them."""
    import cloudpickle

    class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, FunctionType):
                self.enter(obj.__module__)
                space = obj.__globals__
                key = identities.name_namespace(space)
                self.globals_ref.setdefault(id(space), Namespace(key))
                return share_globals(super().reducer_override(obj), key)
            if isinstance(obj, type):
                self.enter(obj.__module__)
                return fill_once(super().reducer_override(obj), obj)
            if isinstance(obj, ModuleType):
                self.enter(obj.__name__)
            if type(obj) is CACHED and by_value(obj.__module__):
                return rebuild_cached, (obj.__wrapped__, obj.cache_parameters())
            if hasattr(type(obj), "__wrapped__"):
                self.enter(getattr(obj, "__module__", None))
            return super().reducer_override(obj)

        def enter(self, name: object) -> None:
            if name == "__main__" or not isinstance(name, str) or not by_value(name):
                return
            module = sys.modules.get(name)
            known = cloudpickle.list_registry_pickle_by_value()
            if isinstance(module, ModuleType) and name not in known:
                cloudpickle.register_pickle_by_value(module)
                registered.append(module)

    def share_globals(reduced: Any, key: str) -> Any:
        """Have the worker select the globals; what cloudpickle made ends in its `_function_setstate`."""
        if isinstance(reduced, tuple) and len(reduced) == 6:
            slots = reduced[2][1]
            slots["__globals__"] = Values(key, slots["__globals__"], identities)
        return reduced

    def fill_once(reduced: Any, cls: type) -> Any:
        if isinstance(reduced, tuple) and len(reduced) == 6:
            make, args, state, items, pairs, fill = reduced
            return (
                make,
                args,
                (fill, state, identities.identify_class(cls)),
                items,
                pairs,
                fill_class,
            )
        return reduced

    return _start_reducing(ValuePickler, sink, take)


def _start_reducing(kind: Any, sink: _Sink, take: Any) -> Pickler:
    """A pickler of a class of cloudpickle's, with our reductions before its own."""
    from collections import ChainMap

    def reduce_code(code: CodeType) -> Any:
        make, parts = kind.dispatch_table[CodeType](code)
        return name_file, (code.co_filename, make, *parts)

    table = ChainMap({**list_reductions(), CodeType: reduce_code}, kind.dispatch_table)
    reducing = type(kind.__name__, (kind,), {"dispatch_table": table})
    pickler: Pickler = reducing(sink, PROTOCOL, buffer_callback=take)
    return pickler


def is_sent_by_value(module: str) -> bool:
    """Whether what this module defines is being pickled by value right now; for ``__reduce__`` methods."""
    if module == "__main__":
        return True
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is not None and module in cloudpickle.list_registry_pickle_by_value()


def dump_result(value: object, shelf: Shelf) -> Payload:
    """A worker's result, as pickle, and what stands beside it.

    Plain pickle needs no check here: what travelled to the worker by value cannot be found by its name there,
    so plain pickle fails on it, and cloudpickle takes over.

    Raises
    ------
    UnpicklableError
        Naming the part of the value that cannot travel.
    StoreFullError
    """
    if type(value) in _ATOMS and not _has_large((value,)):
        payload = plain_dumps(value, PROTOCOL)
        if len(payload) <= INLINE_BYTES:
            return payload
    lifted = _lift_one(value)
    try:
        return _pack_result(lifted, shelf, _start_plain)
    except StoreFullError:
        raise
    except Exception:
        pass
    try:
        return _pack_result(lifted, shelf, _start_cloudpickle)
    except StoreFullError:
        raise
    except Exception as error:
        explained = _explain([("the result", value)], dump_alone, error)
        explained.is_result = True
        raise explained from None


def _pack_result(value: object, shelf: Shelf, start: Callable[[_Sink, Any], Pickler]) -> Payload:
    buffers: list[PickleBuffer] = []

    def take(buffer: PickleBuffer) -> bool:
        """Whether a buffer stays in the pickle, as small ones do: they arrive as writable as they were."""
        is_small = buffer.raw().nbytes <= INLINE_BYTES
        if not is_small:
            buffers.append(buffer)
        return is_small

    sink = _Sink()
    arrays: list[Any] = []
    refs: list[Record] = []
    outer = packing.arrays, packing.refs
    packing.arrays, packing.refs = arrays, refs
    try:
        start(sink, take).dump(value)
    finally:
        packing.arrays, packing.refs = outer
    return pack(lambda: shelf, sink.chunks, [*buffers, *reversed(arrays)], ([], refs))


def _start_plain(sink: _Sink, take: Any) -> Pickler:
    pickler = Pickler(sink, PROTOCOL, buffer_callback=take)
    pickler.dispatch_table = list_reductions()
    return pickler


def _start_cloudpickle(sink: _Sink, take: Any) -> Pickler:
    import cloudpickle

    return _start_reducing(cloudpickle.Pickler, sink, take)


def dump_alone(value: object) -> bytes:
    """A value of a worker's with all that belongs to it, as bytes for `pickle.loads`."""
    try:
        return plain_dumps(value, PROTOCOL)
    except Exception:
        import cloudpickle

        return bytes(cloudpickle.dumps(value, PROTOCOL))


def dump_apart(value: object) -> tuple[bytes, list[PickleBuffer]]:
    """The same, with its buffers beside it."""
    buffers: list[PickleBuffer] = []
    try:
        return plain_dumps(value, PROTOCOL, buffer_callback=buffers.append), buffers
    except Exception:
        import cloudpickle

        buffers.clear()
        pickle = cloudpickle.dumps(value, PROTOCOL, buffer_callback=buffers.append)
        return bytes(pickle), buffers


def _explain(
    parts: list[tuple[str, Any]], dump: Callable[[object], object], error: Exception
) -> UnpicklableError:
    """The error that names the innermost part of `parts` that `dump` cannot pickle."""
    place, culprit = _find_culprit(parts, dump)
    reason = str(error).strip().rstrip(".") or type(error).__name__
    return UnpicklableError(
        f"{place} (a {_describe_type(culprit)}) cannot be sent to another process: {reason}. Send what it is made "
        f"from (a path, a configuration, an address) and make it inside the call, or leave it out in __getstate__."
    )


def _find_culprit(
    parts: list[tuple[str, Any]], dump: Callable[[object], object]
) -> tuple[str, object]:
    """Walk down into the first part that fails, as deep as a failing part can be named."""
    seen: set[int] = set()
    place, culprit = parts[0] if parts else ("the value", None)
    level: Iterator[tuple[str, Any]] = iter(parts)
    for _ in range(20):  # deeper than anybody reads
        failing = next(((p, v) for p, v in level if id(v) not in seen and _fails(v, dump)), None)
        if failing is None:
            break
        place, culprit = failing
        seen.add(id(culprit))
        level = _iterate_parts(place, culprit)
    return place, culprit


def _fails(value: object, dump: Callable[[object], object]) -> bool:
    try:
        dump(value)
    except Exception:
        return True
    return False


def _iterate_parts(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What `value` holds, each with the words that lead to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{place}[{key!r}]", item
            yield f"key {key!r} of {place}", key
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"{place}[{index}]", item
    elif isinstance(value, (set, frozenset)):
        for item in value:
            yield f"an element of {place}", item
    elif isinstance(value, FunctionType):
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=False):
            try:
                yield f"variable {name!r} that {place} closes over", cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        for name in value.__code__.co_names:
            if name in value.__globals__:
                yield f"global {name!r} that {place} uses", value.__globals__[name]
    elif not isinstance(value, type):
        for name, item in getattr(value, "__dict__", {}).items():
            yield f"{place}.{name}", item


def _describe_type(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
