"""Values kept as the objects that they are: for engines whose workers share the caller's memory."""

from __future__ import annotations

from itertools import count

from manyhands.core import place
from manyhands.core.model import MemoryFacts
from manyhands.core.refs import Record, Ref, name_type
from manyhands.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class ObjectStore:
    """What an engine does about values that has no memory to share and nothing to copy.

    In a worker of another session, values go to that session's store, so that a call can return their refs.
    """

    _numbers = count(1)

    def load(self, value: Any) -> tuple[Any, BaseException | None]:
        return value, None

    def put(self, value: Any, *, writable: bool, copy: bool) -> Ref[Any]:
        if writable and copy:
            raise InvalidArgumentError(
                "writable=True and copy=True exclude each other: a change is seen by all, or by nobody else"
            )
        if place.putter is not None:
            return place.putter.put(value, writable=writable, copy=copy)
        return Ref(Record(_KEEPER, next(self._numbers), (value, copy), name_type(value), 0))

    def allocate(self, size: int) -> Any:
        return None if place.putter is None else place.putter.allocate(size)

    def forward(self, value: Any) -> Any:
        return value.keeper.read(value) if isinstance(value, Record) else value

    def describe_memory(self) -> MemoryFacts:
        return MemoryFacts()


class _ObjectKeeper:
    """See `manyhands.core.roles.Keeper`."""

    def read(self, record: Record) -> Any:
        value, is_private = record.content
        if is_private:
            from copy import deepcopy

            return deepcopy(value)
        return value

    def locate(self, record: Record) -> str:  # noqa: ARG002 - the same for all
        return "memory"

    def describe(self, record: Record) -> str:  # noqa: ARG002 - the same for all
        return "kept as the object that it is"

    def hand_out(self, record: Record) -> Ref[Any]:
        return Ref(record)


_KEEPER = _ObjectKeeper()


class Snapshot:
    """A value as it is now, whatever becomes of the objects that it is made of.

    What cannot be pickled is kept as it is.

    Examples
    --------
    >>> names = ["a"]
    >>> kept = Snapshot(names)
    >>> names.append("b")
    >>> kept.restore()
    ['a']
    """

    __slots__ = ("_content", "_read")

    def __init__(self, value: Any) -> None:
        from pickle import dumps, loads

        self._content: Any = value
        self._read: Callable[[Any], Any] | None = None
        try:
            self._content, self._read = dumps(value, 5), loads
        except Exception:
            pass  # pickling may fail in any way, and then there is nothing to read

    def restore(self) -> Any:
        """The value, another copy each time."""
        return self._content if self._read is None else self._read(self._content)
