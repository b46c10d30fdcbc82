"""Which of Dask's locks nodes hold: a `SerializableLock` holds between the threads of one process, and no further."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from dask._task_spec import DataNode, Task
from dask.utils import SerializableLock

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

_PLAIN = frozenset({int, float, str, bytes, bool, type(None)})


def list_locks(parts: Iterable[Any]) -> frozenset[Hashable]:
    """The tokens of the locks among the arguments of nodes, or in data."""
    if not getattr(SerializableLock, "_locks", True):  # there are none in this process
        return frozenset()
    return frozenset(token for part in parts for token in _find_locks(part))


def _find_locks(arg: Any) -> Iterator[Hashable]:
    if isinstance(arg, SerializableLock):
        yield arg.token
    elif isinstance(arg, (Task, partial)):
        named = arg.keywords if isinstance(arg, partial) else arg.kwargs
        for part in (arg.func, *arg.args, *named.values()):
            yield from _find_locks(part)
    elif isinstance(arg, DataNode):
        yield from _find_locks(arg.value)
    elif type(arg) in (dict, list, tuple):
        parts = arg.values() if type(arg) is dict else arg
        if not _PLAIN.issuperset(map(type, parts)):
            for part in parts:
                yield from _find_locks(part)
