"""Globals of code that travels by value: in a worker, the functions of one module share one namespace.

cloudpickle gives every pickle a namespace of its own. An initializer that sets a global would then set it for
nobody else. Here the functions of a module (or of another dictionary of globals) meet in one dictionary per worker,
and a value that comes again, as it came before, leaves alone what the worker has made of it meanwhile.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count
from types import CodeType, FunctionType, ModuleType

from manyhands.core.parcels import get_key, measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from manyhands.core.parcels import Payload

CACHED = type(lru_cache(lambda: None))
"""The type of what `functools.cache` and `lru_cache` make."""

_serials = count()

_UNCHANGING = (FunctionType, type, ModuleType, CACHED)
_FIXED = (*_UNCHANGING, CodeType, int, float, complex, str, bytes, type(None))


class Identities:
    """Tells values apart: the same token twice means the same value, unchanged.

    Parameters
    ----------
    dump
        Pickles a value.
    serial
        Different for any two that send to the same workers.

    Attributes
    ----------
    version : int
        Counts changes of globals that were pickled before. A pickle of an earlier version must not be used again:
        a worker may have got other values since.
    """

    def __init__(self, dump: Callable[[Any], Payload], serial: object = None) -> None:
        self._dump = dump
        self._serial = next(_serials) if serial is None else serial
        self._known: dict[int, tuple[object, list[object], int]] = {}
        self._numbers = count()
        self._last: dict[tuple[str, str], object] = {}
        self.version = 0

    def name_namespace(self, space: dict[str, Any]) -> str:
        """The key of a dictionary of globals, the same as long as it lives, and that by which it came if it did."""
        entered = _entered.get(id(space))
        if entered is not None and _namespaces.get(entered) is space:
            return entered
        return f"{self._serial}:{space.get('__name__')}:{id(space)}"

    def identify_class(self, cls: type) -> object:
        """A token of a class as it is now, or as it came."""
        return _made.get(cls) or (self._serial, self.identify(cls))

    def identify_all(self, key: str, values: dict[str, object]) -> dict[str, object]:
        """Tokens of the values of globals of the namespace `key`; of those that came, the tokens they came with."""
        known, came = _tokens.get(key, {}), _arrived.get(key, {})
        tokens = {
            name: known[name] if name in came else self.identify(value)
            for name, value in values.items()
        }
        for name, token in tokens.items():
            if self._last.setdefault((key, name), token) != token:
                self._last[key, name] = token
                self.version += 1
        return tokens

    def identify(self, value: object) -> object:
        """A token that pickles: a number for what does not change in place, else the pickle's length and hash."""
        if not isinstance(value, _UNCHANGING):
            try:
                payload = self._dump(value)
            except Exception:  # pickling the function will say what is wrong
                return next(self._numbers)
            return measure(payload), hash(get_key(payload))
        parts = _list_parts(value)
        if not isinstance(value, type) and not all(isinstance(part, _FIXED) for part in parts):
            return next(self._numbers)  # a list among its defaults, say, changes unseen
        known = self._known.get(id(value))
        if known is None or known[0] is not value or not _are_same(known[1], parts):
            known = self._known[id(value)] = (value, parts, next(self._numbers))
        return known[2]


def _list_parts(value: object) -> list[object]:
    """What of a function or class can be replaced while it stays the same object."""
    if isinstance(value, type):
        return list(vars(value).values())
    if not isinstance(value, FunctionType):
        return []
    parts = [value.__code__, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    parts += value.__dict__.values()
    for cell in value.__closure__ or ():
        try:
            parts.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            parts.append(None)
    return parts


def _are_same(old: list[object], new: list[object]) -> bool:
    return len(old) == len(new) and all(a is b for a, b in zip(old, new, strict=True))


class Namespace(dict[str, object]):
    """Stands in a pickle for the dictionary of globals `key`, which is filled by `Values`."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def __reduce__(self) -> Any:
        return enter_namespace, (self.key, dict(self))


class Values(dict[str, object]):
    """Stands in a pickle for values of globals, of which a worker takes those that are new to it.

    What came to this process by value is sent on as it came: what an initializer or a call has made of it since is
    this process's own.
    """

    def __init__(self, key: str, values: dict[str, object], identities: Identities) -> None:
        came = _arrived.get(key, {})
        super().__init__({name: came.get(name, value) for name, value in values.items()})
        self.key = key
        self.tokens = identities.identify_all(key, values)

    def __reduce__(self) -> Any:
        return select_new, (self.key, dict(self), self.tokens)


_namespaces: dict[str, dict[str, object]] = {}
_entered: dict[int, str] = {}  # their keys, by identity
_tokens: dict[str, dict[str, object]] = {}
_arrived: dict[str, dict[str, object]] = {}  # values as they came


def enter_namespace(key: str, attributes: dict[str, object]) -> dict[str, object]:
    """In a worker: the dictionary of globals `key`, made with `attributes` at the first use."""
    space = _namespaces.setdefault(key, attributes)
    _entered[id(space)] = key
    return space


def select_new(key: str, values: dict[str, object], tokens: dict[str, object]) -> dict[str, object]:
    """In a worker: those of `values` that did not come before as they come now."""
    known = _tokens.setdefault(key, {})
    new = {name: value for name, value in values.items() if known.get(name, known) != tokens[name]}
    known.update(tokens)
    _arrived.setdefault(key, {}).update(new)
    return new


_made: dict[type, object] = {}


def fill_class(cls: type, state: tuple[Callable[[type, Any], object], Any, object]) -> type:
    """In a worker: fill a class that came by value, unless it came before as it comes now."""
    fill, content, token = state
    if _made.get(cls, _made) != token:
        _made[cls] = token
        fill(cls, content)
    return cls


def rebuild_cached(function: Callable[..., Any], parameters: dict[str, Any]) -> object:
    """A function with a cache of its own, as `functools.lru_cache` makes it."""
    return lru_cache(**parameters)(function)


def name_file(file: str, make: Callable[..., CodeType], *parts: Any) -> CodeType:
    """Code that says where its source is, for tracebacks; cloudpickle leaves that out."""
    return make(*parts).replace(co_filename=file)
