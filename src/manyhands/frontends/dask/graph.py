"""What a computation of Dask's consists of, read from its expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask._task_spec import (
    DataNode,
    GraphNode,
    Task,
    TaskRef,
    convert_legacy_graph,
    parse_input,
)
from dask.core import flatten
from dask.order import order

from manyhands.core.handles import find_handles, replace_handles
from manyhands.core.refs import Ref
from manyhands.errors import InvalidArgumentError
from manyhands.frontends.dask.node import run_fused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Nodes = dict[Any, GraphNode]


def read_nodes(expr: Any) -> Nodes:
    """The nodes of an expression, or of a plain mapping of keys to tasks."""
    graph = expr.__dask_graph__() if hasattr(expr, "__dask_graph__") else expr
    nodes: Nodes = convert_legacy_graph(dict(graph))
    return nodes


def list_keys(keys: Any) -> list[Any]:
    """The keys in what Dask wants: one, or a list, perhaps of lists."""
    return list(flatten(keys)) if isinstance(keys, list) else [keys]


def give_nested(keys: Any, give: Callable[[Any], Any]) -> Any:
    """What is given for each key, nested as the keys are, in tuples."""
    if isinstance(keys, list):
        return tuple(give_nested(key, give) for key in keys)
    return give(keys)


class KeptNode(DataNode):  # type: ignore[misc]
    """A part of a persisted collection, which workers have: any scheduler in this process can load it.

    Parameters
    ----------
    key
    value
        A future or a ref of ours.
    """

    __slots__ = ()

    def __call__(self, values: Any = ()) -> Any:  # noqa: ARG002 - it needs none
        """Load it."""
        return load(self.value)

    def result(self) -> Any:
        """Load it; Dask takes values in graphs that have this method for futures."""
        return load(self.value)

    def copy(self) -> KeptNode:
        """Another of the same."""
        return KeptNode(self.key, self.value)

    def substitute(self, subs: Any, key: Any = None) -> KeptNode:  # noqa: ARG002 - it needs none
        """The same under another key."""
        return KeptNode(key, self.value) if key is not None and key != self.key else self


class Graph:
    """The nodes that are needed for what is wanted.

    Parameters
    ----------
    nodes
        Of `read_nodes`; futures and refs of ours may be among their arguments.
    wanted
        Keys whose values are asked for.

    Attributes
    ----------
    wanted : frozenset
    tasks : dict
        Nodes that are to be run: tasks, and aliases of them.
    data : dict
        Values that are there already, or futures and refs that stand for them.
    rank : dict
        Dask's order of all keys, by which chunks can be freed early.

    Raises
    ------
    KeyError
        The graph has not what is wanted.
    InvalidArgumentError
        A node needs one that is not there, or nodes need each other in a circle.
    """

    def __init__(self, nodes: Nodes, wanted: list[Any]) -> None:
        self.wanted = frozenset(wanted)
        self.tasks: Nodes = {}
        self.data: dict[Any, Any] = {}
        kept = _Adoption().take_in(_cull(nodes, wanted))
        for key, node in kept.items():
            if isinstance(node, DataNode):
                self.data[key] = node.value
            else:
                self.tasks[key] = _quicken(node)
        try:
            self.rank = order(kept)
        except RuntimeError as error:  # a circle
            raise InvalidArgumentError(f"the graph cannot be computed: {error}") from None

    def find_dependencies(self) -> dict[Any, frozenset[Any]]:
        """Of each task, the other tasks that it needs."""
        data = self.data
        return {
            key: node.dependencies
            if data.keys().isdisjoint(node.dependencies)
            else node.dependencies - data.keys()
            for key, node in self.tasks.items()
        }


def _cull(nodes: Mapping[Any, Any], wanted: list[Any]) -> Nodes:
    """The nodes that are needed; a value where a node was, as callbacks may leave it, becomes data."""
    kept: Nodes = {}
    stack: list[tuple[Any, Any]] = [(key, None) for key in reversed(wanted)]
    while stack:
        key, user = stack.pop()
        if key in kept:
            continue
        try:
            node = nodes[key]
        except KeyError:
            if user is None:
                raise
            raise InvalidArgumentError(
                f"the graph has no {key!r}, which is needed by {user!r}. A collection that was persisted elsewhere "
                f"can only be computed there"
            ) from None
        if not isinstance(node, GraphNode):
            node = DataNode(key, node)
        kept[key] = node
        stack += [(other, key) for other in node.dependencies if other not in kept]
    return kept


def _quicken(node: GraphNode) -> GraphNode:
    """The node, run by us where Dask has fused it of several."""
    if not isinstance(node, Task) or not node.has_subgraph():
        return node
    inner, *rest = node.args
    return Task(node.key, run_fused, {key: _quicken(part) for key, part in inner.items()}, *rest)


class _Adoption:
    """Futures and refs of ours among the arguments of nodes become nodes themselves, on which those depend."""

    def __init__(self) -> None:
        self._made: Nodes = {}
        self._referred: set[Any] = set()  # of those made, the ones that the node at hand needs

    def take_in(self, nodes: Nodes) -> Nodes:
        """The nodes, with such arguments replaced, and the new ones."""
        adopted = {
            key: node if _is_bare(node) else self._adopt(node) for key, node in nodes.items()
        }
        return {**adopted, **self._made}

    def _adopt(self, node: GraphNode) -> GraphNode:
        if isinstance(node, DataNode):
            return Task(node.key, _give, self._replace(node.value))
        if not isinstance(node, Task):
            return node
        if node.has_subgraph():
            return self._adopt_fused(node)
        args = [self._replace(arg) for arg in node.args]
        kwargs = {name: self._replace(arg) for name, arg in node.kwargs.items()}
        return Task(node.key, node.func, *args, **kwargs)

    def _adopt_fused(self, node: Task) -> Task:
        """Nodes that Dask has fused are an argument of one, which hands them the values of those outside."""
        inner, outkey, inkeys, *values = node.args
        outer, self._referred = self._referred, set()
        inner = {
            key: self._adopt(part) if _holds_handles(part) else part for key, part in inner.items()
        }
        more = tuple(self._referred)
        self._referred = outer
        return Task(
            node.key, node.func, inner, outkey, (*inkeys, *more), *values, *map(TaskRef, more)
        )

    def _replace(self, arg: Any) -> Any:
        if isinstance(arg, GraphNode):
            return arg if _is_bare(arg) else self._adopt(arg)
        return parse_input(replace_handles(arg, self._refer))

    def _refer(self, handle: Any) -> TaskRef:
        key = ("manyhands-input", id(handle))
        self._made[key] = DataNode(key, handle)
        self._referred.add(key)
        return TaskRef(key)


def _is_bare(node: GraphNode) -> bool:
    """Whether a node is taken as it is: it has no futures or refs among its arguments, or is nothing but one."""
    if isinstance(node, DataNode):
        return type(node.value) not in _CONTAINERS or not find_handles((node.value,), {})
    if not isinstance(node, Task):
        return True
    return not any(map(_holds_handles, (*node.args, *node.kwargs.values())))


_CONTAINERS = (list, tuple, dict)


def _holds_handles(arg: Any) -> bool:
    if isinstance(arg, DataNode):
        return bool(find_handles((arg.value,), {}))
    if isinstance(arg, GraphNode):
        return not _is_bare(arg)
    if type(arg) is dict and any(isinstance(value, GraphNode) for value in arg.values()):
        return any(map(_holds_handles, arg.values()))
    return type(arg) is not TaskRef and bool(find_handles((arg,), {}))


def _give(value: Any) -> Any:
    return value


def load(value: Any) -> Any:
    """What a value is, or what the future or ref in its place stands for."""
    if isinstance(value, Ref):
        return value.get()
    return value.result() if hasattr(value, "add_done_callback") else value
