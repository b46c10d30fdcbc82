"""Which buffers of the program are in the store already, so that the same one is not copied for every call."""

from __future__ import annotations

from weakref import ref as weak

from manyhands.engines.local.heap import find_address
from manyhands.engines.local.room import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from manyhands.engines.local.room import StoredValue

_SOURCES = 1024
"""Buffers remembered at once."""


class Sources:
    """The copies that were made of themselves, without anybody's asking, by the buffers that they were made of.

    A buffer that comes again at the same address is the same if its content is, which a digest tells in a third of
    the time of a copy. A `bytes` cannot change and needs none. A copy is remembered as long as the buffer's owner
    lives, and until `clear`, which the store calls when the session idles or memory runs short.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], _Source] = {}

    def find(self, raw: memoryview) -> StoredValue | None:
        """The value that holds what `raw` holds now, if `raw` came before."""
        owner = find_owner(raw)
        key = _locate(raw, owner)
        source = self._known.pop(key, None)
        if source is None:
            return None
        value = source.value
        # A whole one: of parts, nobody may be able to tell which is which.
        is_whole = isinstance(owner, bytes) and len(owner) == raw.nbytes
        is_same = is_whole and source.owner() is owner
        if not is_same and digest(raw) != value.content_key:
            return None
        self._known[key] = source  # the latest last
        return value

    def remember(self, raw: memoryview, value: StoredValue) -> None:
        """`value` is a copy of `raw`."""
        owner = find_owner(raw)
        key = _locate(raw, owner)
        known = self._known

        def forget(_: object) -> None:
            known.pop(key, None)

        known[key] = _Source(_refer_to(owner, forget), value)
        if len(known) > _SOURCES:
            known.pop(next(iter(list(known))), None)

    def list_values(self) -> list[StoredValue]:
        """The copies that are remembered."""
        return [source.value for source in list(self._known.values())]

    def clear(self) -> None:
        """Forget all, so that copies that nobody else needs are freed."""
        self._known.clear()


class _Source:
    __slots__ = ("owner", "value")

    def __init__(self, owner: Callable[[], Any], value: StoredValue) -> None:
        self.owner = owner
        self.value = value


def _locate(raw: memoryview, owner: object) -> tuple[int, int]:
    """Where a buffer is and how long: libraries wrap the same memory in a new object each time."""
    address = find_address(raw)
    return (id(owner) if address is None else address), raw.nbytes


def _refer_to(owner: Any, forget: Callable[[object], None]) -> Callable[[], Any]:
    """A weak reference, or where the class allows none, a strong one."""
    try:
        return weak(owner, forget)
    except TypeError:
        return lambda: owner


def find_owner(raw: memoryview) -> Any:
    """The object whose memory a buffer is: an array's views come and go, the array stays."""
    owner: Any = raw.obj
    while (base := getattr(owner, "base", None)) is not None and type(base) is type(owner):
        owner = base
    return owner
