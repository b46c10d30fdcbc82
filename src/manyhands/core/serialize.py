"""Values to bytes and back: plain pickle first, cloudpickle only where it must be.

Used on both sides of a process boundary, so importing it loads C modules alone; cloudpickle (24 ms) is loaded
when the first value needs it.
"""

from __future__ import annotations

import sys
from _pickle import Pickler, loads
from _pickle import dumps as plain_dumps
from io import BytesIO
from types import FunctionType, ModuleType

from manyhands.core.namespaces import (
    CACHED,
    Identities,
    Namespace,
    Values,
    fill_class,
    rebuild_cached,
)
from manyhands.errors import UnpicklableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Arguments = tuple[tuple[Any, ...], dict[str, Any] | None]

PROTOCOL = 5

_ATOMS = frozenset({int, float, str, bytes, bool, type(None), complex})
"""Types whose values plain pickle always handles and that name no class or function."""


class _ByValueNeededError(Exception):
    """A class or function in the value cannot be found by its name on the other side."""


class _ReferencePickler(Pickler):
    """Plain pickle that gives up at the first class or function that has to travel by value."""

    def __init__(self, file: BytesIO, by_value: Callable[[str], bool]) -> None:
        super().__init__(file, PROTOCOL)
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

    Examples
    --------
    >>> serializer = Serializer(lambda module: module == "__main__")
    >>> load_arguments(serializer.dump_arguments((1, "x"), {}))
    ((1, 'x'), {})
    """

    def __init__(self, by_value: Callable[[str], bool]) -> None:
        self._by_value = by_value
        self._identities = Identities(self._dump)

    @property
    def version(self) -> int:
        """Of the globals that travelled by value so far; a pickle of an earlier one is out of date."""
        return self._identities.version

    def dump_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """One call's arguments as bytes for `load_arguments`.

        Raises
        ------
        UnpicklableError
            Naming the argument, and the part of it, that cannot travel.
        """
        if not kwargs and _ATOMS.issuperset(map(type, args)):
            return plain_dumps((args, None), PROTOCOL)
        try:
            return self._dump((args, kwargs))
        except Exception as error:
            parts = [(f"argument {index}", arg) for index, arg in enumerate(args)]
            parts += [(f"argument {name!r}", arg) for name, arg in kwargs.items()]
            raise _explain(parts, self._dump, error) from error

    def dump(self, value: object, what: str) -> bytes:
        """One value as bytes for `loads`; `what` names it in an error.

        Raises
        ------
        UnpicklableError
            Naming the part of the value that cannot travel.
        """
        try:
            return self._dump(value)
        except Exception as error:
            raise _explain([(what, value)], self._dump, error) from error

    def _dump(self, value: object) -> bytes:
        buffer = BytesIO()
        try:
            _ReferencePickler(buffer, self._by_value).dump(value)
        except Exception:
            return self._dump_by_value(value)
        return buffer.getvalue()

    def _dump_by_value(self, value: object) -> bytes:
        import cloudpickle

        buffer = BytesIO()
        registered: list[ModuleType] = []
        try:
            _make_value_pickler(buffer, self._by_value, registered, self._identities).dump(value)
        finally:
            # Other libraries of this process that use cloudpickle must not notice.
            for module in registered:
                cloudpickle.unregister_pickle_by_value(module)
        return buffer.getvalue()


def _make_value_pickler(
    buffer: BytesIO,
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

    pickler: Pickler = ValuePickler(buffer, protocol=PROTOCOL)
    return pickler


def is_sent_by_value(module: str) -> bool:
    """Whether what this module defines is being pickled by value right now; for ``__reduce__`` methods."""
    if module == "__main__":
        return True
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is not None and module in cloudpickle.list_registry_pickle_by_value()


def load_arguments(payload: bytes) -> Arguments:
    """Undo `Serializer.dump_arguments`."""
    arguments: Arguments = loads(payload)
    return arguments


def dump_result(value: object) -> bytes:
    """A worker's result as bytes for `loads`.

    Plain pickle needs no check here: what travelled to the worker by value cannot be found by its name there,
    so plain pickle fails on it, and cloudpickle takes over.

    Raises
    ------
    UnpicklableError
        Naming the part of the value that cannot travel.
    """
    try:
        return plain_dumps(value, PROTOCOL)
    except Exception:
        try:
            return _dump_with_cloudpickle(value)
        except Exception as error:
            raise _explain([("the result", value)], _dump_with_cloudpickle, error) from None


def _dump_with_cloudpickle(value: object) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps(value, PROTOCOL))


def _explain(
    parts: list[tuple[str, Any]], dump: Callable[[object], bytes], error: Exception
) -> UnpicklableError:
    """The error that names the innermost part of `parts` that `dump` cannot pickle."""
    place, culprit = _find_culprit(parts, dump)
    reason = str(error).strip() or type(error).__name__
    return UnpicklableError(
        f"{place} (a {_describe_type(culprit)}) cannot be sent to another process: {reason}. Send what it is made "
        f"from (a path, a configuration, an address) and make it inside the call, or leave it out in __getstate__."
    )


def _find_culprit(
    parts: list[tuple[str, Any]], dump: Callable[[object], bytes]
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


def _fails(value: object, dump: Callable[[object], bytes]) -> bool:
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
