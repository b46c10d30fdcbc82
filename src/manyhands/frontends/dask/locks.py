"""Which of Dask's locks nodes hold: a `SerializableLock` holds between the threads of one process, and no further."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from dask._task_spec import GraphNode, Task
from dask.utils import SerializableLock

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator


def list_locks(nodes: Iterable[GraphNode]) -> frozenset[Hashable]:
    """The tokens of the locks among the arguments of nodes."""
    if not getattr(SerializableLock, "_locks", True):  # there are none in this process
        return frozenset()
    return frozenset(token for node in nodes for token in _find_locks(node))


def _find_locks(arg: Any) -> Iterator[Hashable]:
    if isinstance(arg, SerializableLock):
        yield arg.token
    elif isinstance(arg, (Task, partial)):
        named = arg.keywords if isinstance(arg, partial) else arg.kwargs
        for part in (arg.func, *arg.args, *named.values()):
            yield from _find_locks(part)
    elif type(arg) is dict:  # keywords, or nodes that Dask has fused
        for part in arg.values():
            yield from _find_locks(part)
