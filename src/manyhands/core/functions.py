"""Functions on their way to workers: pickled once, sent once per worker, pickled anew when they have changed."""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from itertools import count
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from weakref import WeakValueDictionary
from weakref import ref as weak

from manyhands.core.acting import ActorMethod
from manyhands.core.batch import Batch
from manyhands.core.parcels import get_key, measure
from manyhands.errors import NotCallableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from manyhands.core.parcels import Payload
    from manyhands.core.serialize import Serializer

_KEPT = 1024
"""Functions remembered at once; a program that makes a lambda per call must not grow."""

_KEPT_LARGE = 16
"""Of these, functions whose pickles have large values beside them."""

_UNCHANGING = (
    int,
    float,
    complex,
    str,
    bytes,
    bool,
    type(None),
    type,
    ModuleType,
    BuiltinFunctionType,
)
"""Types of values that stay what they are as long as they are the same object. Classes count among them: a
notebook that runs a class statement again makes a new object."""


class Function:
    """A function as workers get it.

    Attributes
    ----------
    key : int
        Its name between parent and worker.
    name : str
        What errors and reports call it.
    payload : bytes
        Its pickle.
    seconds : float or None
        Mean time of a call in a worker, followed with a memory of some tens of calls; None before the first.
    is_async : bool
        Whether its calls run on an event loop, many at a time.
    """

    __slots__ = ("__weakref__", "is_async", "key", "name", "payload", "seconds", "table")

    def __init__(
        self,
        key: int,
        name: str,
        payload: Payload,
        table: FunctionTable | None = None,
        *,
        is_async: bool = False,
    ) -> None:
        self.key = key
        self.name = name
        self.payload = payload
        self.seconds: float | None = None
        self.table = table
        self.is_async = is_async

    def __del__(self) -> None:
        if self.table is not None:
            self.table.departed.append(self.key)

    def observe(self, seconds: float, calls: int) -> None:
        """Take in the mean time `seconds` of `calls` calls."""
        if self.seconds is None:
            self.seconds = seconds
        else:
            # One slow first call must not count for long: what is far quicker is believed at once.
            weight = 0.5 if seconds < 0.5 * self.seconds else min(0.5, 0.1 * calls)
            self.seconds += weight * (seconds - self.seconds)

    def __repr__(self) -> str:
        return f"<Function {self.key} {self.name}, {measure(self.payload)} bytes>"


class FunctionTable:
    """Every function that this session's workers were given.

    Attributes
    ----------
    departed
        Keys of functions that are needed no more.
    """

    def __init__(self, serializer: Serializer, by_value: Callable[[str], bool]) -> None:
        self._serializer = serializer
        self._by_value = by_value
        self._keys = count(1)
        self._known: OrderedDict[int, tuple[Callable[[], object], Function, _Watch, int]] = (
            OrderedDict()
        )
        self._by_content: WeakValueDictionary[Any, Function] = WeakValueDictionary()
        self._small: deque[Function] = deque(maxlen=_KEPT)
        self._large: OrderedDict[int, None] = OrderedDict()  # of what is known
        self.departed: deque[int] = deque()

    def register(self, fn: Callable[..., Any]) -> Function:
        """The travelling form of `fn`, as it is now.

        Raises
        ------
        NotCallableError
        UnpicklableError
            Naming what the function holds or uses that cannot travel.
        """
        known = self._known.get(id(fn))
        if (
            known is not None
            and known[0]() is fn
            and known[3] == self._serializer.version
            and known[2].is_unchanged()
        ):
            return known[1]
        return self._pickle(fn)

    def clear(self) -> None:
        """Forget all functions, and let go of what belongs to them."""
        self._known.clear()
        self._small.clear()
        self._large.clear()

    def _pickle(self, fn: Callable[..., Any]) -> Function:
        check_callable(fn)
        name = name_callable(fn)
        payload = self._serializer.dump(fn, f"the function {name}")
        version = self._serializer.version
        function = self.adopt(name, payload, is_async=is_coroutine_function(fn))
        is_large = not isinstance(payload, bytes)
        watch = watch_function(fn, self._by_value)
        if watch is not None:
            self._known[id(fn)] = (self._refer_to(fn), function, watch, version)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
            if is_large:
                self._large[id(fn)] = None
                if len(self._large) > _KEPT_LARGE:
                    self._known.pop(self._large.popitem(last=False)[0], None)
        return function

    def adopt(self, name: str, payload: Payload, *, is_async: bool) -> Function:
        """The travelling form of a function that is pickled already; one and the same for the same content."""
        content = get_key(payload), self._serializer.version
        function = self._by_content.get(content)
        if function is None:
            function = Function(next(self._keys), name, payload, self, is_async=is_async)
            self._by_content[content] = function
            if isinstance(payload, bytes):  # it may come again, as lambdas in loops do
                self._small.append(function)
        return function

    def rest(self) -> None:
        """Let go of functions with large values, which are kept only in case that they come again."""
        while self._large:
            self._known.pop(self._large.popitem()[0], None)

    def _refer_to(self, fn: object) -> Callable[[], object]:
        """A way to get `fn`: a map's batch, whose watch does not need it, goes when the map has ended."""
        if isinstance(fn, Batch):
            key, known = id(fn), self._known
            return weak(fn, lambda _: known.pop(key, None))
        return lambda: fn


def check_callable(fn: object) -> None:
    """Raise `NotCallableError` unless `fn` can be called."""
    if not callable(fn):
        hint = (
            " It looks like a call's result: pass the function itself, without ()."
            if fn is None
            else ""
        )
        raise NotCallableError(
            f"expected a function or another callable, got {fn!r} ({type(fn).__name__}).{hint}"
        )


def is_coroutine_function(fn: object) -> bool:
    """Whether calling `fn` gives a coroutine; seen through partials, methods, tasks and streams."""
    while not isinstance(fn, FunctionType):
        inner = (
            getattr(fn, "__func__", None) or getattr(fn, "func", None) or getattr(fn, "fn", None)
        ) or getattr(fn, "__wrapped__", None)
        if inner is None or inner is fn:
            return False
        fn = inner
    return bool(fn.__code__.co_flags & _ASYNC_FLAGS)


_ASYNC_FLAGS = (
    0x80 | 0x200
)  # inspect.CO_COROUTINE and CO_ASYNC_GENERATOR, whose module takes 8 ms to import


def name_callable(fn: object) -> str:
    """What errors and reports call `fn`."""
    name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None)
    if name is None and hasattr(fn, "func"):  # functools.partial
        return f"partial({name_callable(fn.func)})"
    return str(name or type(fn).__qualname__)


class _Watch:
    """What a function's pickle was made from: the same objects now mean the same pickle."""

    __slots__ = ("_cells", "_functions", "_names")

    def __init__(self) -> None:
        self._functions: list[tuple[FunctionType, CodeType, Any, Any, int]] = []
        self._names: list[
            tuple[Mapping[str, Any], str, Any]
        ] = []  # globals, and functions' attributes
        self._cells: list[tuple[Any, Any]] = []

    def is_unchanged(self) -> bool:
        for fn, code, defaults, kwdefaults, attributes in self._functions:
            if (
                fn.__code__ is not code
                or fn.__defaults__ is not defaults
                or fn.__kwdefaults__ is not kwdefaults
                or len(fn.__dict__) != attributes
            ):
                return False
        for namespace, name, value in self._names:
            if namespace.get(name, _MISSING) is not value:
                return False
        try:
            for cell, value in self._cells:
                if cell.cell_contents is not value:
                    return False
        except ValueError:  # a variable that was deleted
            return False
        return True

    def add(self, fn: FunctionType, by_value: Callable[[str], bool]) -> bool:
        """Take in all that `fn` is made from; False where something of it may change unseen."""
        if any(entry[0] is fn for entry in self._functions):
            return True
        self._functions.append(
            (fn, fn.__code__, fn.__defaults__, fn.__kwdefaults__, len(fn.__dict__))
        )
        self._names += [(fn.__dict__, name, value) for name, value in fn.__dict__.items()]
        values = [
            *(fn.__defaults__ or ()),
            *(fn.__kwdefaults__ or {}).values(),
            *fn.__dict__.values(),
        ]
        for name in _iterate_names(fn.__code__):
            value = fn.__globals__.get(name, _MISSING)
            self._names.append((fn.__globals__, name, value))
            if value is not _MISSING:
                values.append(value)
        for cell in fn.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet; the pickle fails or the call does
                return False
            self._cells.append((cell, value))
            values.append(value)
        return all(self._is_stable(value, by_value) for value in values)

    def _is_stable(self, value: object, by_value: Callable[[str], bool]) -> bool:
        if isinstance(value, type) and by_value(value.__module__):
            attributes = vars(value)
            self._names += [(attributes, name, attribute) for name, attribute in attributes.items()]
            return True
        if isinstance(value, FunctionType):
            return _is_found_by_name(value, by_value) or self.add(value, by_value)
        if type(value) in (tuple, frozenset):
            return all(self._is_stable(item, by_value) for item in value)  # type: ignore[attr-defined]
        return isinstance(value, _UNCHANGING)


_MISSING = object()


def watch_function(fn: object, by_value: Callable[[str], bool]) -> _Watch | None:
    """A watch over what `fn` was pickled from, or None where a change could go unseen.

    What travels by its name needs no watching. A function that travels by value is watched through its code,
    defaults, closure and globals, as far as these are unchanging themselves; one that uses a list, a dictionary
    or an object is pickled at every use, so that a worker always sees what the caller sees.
    """
    watch = _Watch()
    if isinstance(fn, (type, BuiltinFunctionType)):
        owner = getattr(
            fn, "__self__", None
        )  # a built-in method, such as [].append, carries its object
        return watch if owner is None or isinstance(owner, ModuleType) else None
    # A batch is made for one map, which uses the function as it was at its start; and an actor's class is where the
    # actor is.
    if isinstance(fn, (Batch, ActorMethod)):
        return watch
    if not isinstance(fn, FunctionType):
        return watch if _is_found_by_name(fn, by_value) else None
    return watch if _is_found_by_name(fn, by_value) or watch.add(fn, by_value) else None


def _is_found_by_name(fn: object, by_value: Callable[[str], bool]) -> bool:
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or by_value(module):
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is fn


def _iterate_names(code: CodeType) -> Iterator[str]:
    """Names of globals that the code may use, those of the functions inside it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _iterate_names(constant)
