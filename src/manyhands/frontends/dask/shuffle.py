"""Dask's shuffles, done otherwise: each partition is cut into pieces once, and the pieces are joined.

There is one task for each partition that comes in and one for each that goes out, none between them, and no file
unless memory runs short. A shuffle of data frames is known by its node in the expression; one of bags, which is in the
graph alone, by the `partd` store that its tasks write to and read from, and for which ours stand in.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from hashlib import md5
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from dask._task_spec import List, Task, TaskRef, cull
from dask.core import flatten
from dask.sizeof import sizeof
from dask.tokenize import tokenize

from manyhands.frontends.dask.pieces import Room, keep

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    Graph = dict[Hashable, Any]
    Pieces = Any

_EMPTY = -1
"""The number of a piece without rows, which shows what columns there are."""

_ATOMS = frozenset({int, float, str, bytes, bool, type(None)})
"""Types of keys for which `_hash` may stand in for `tokenize`, if it does for the first of each type."""


def exchange(expr: Any, graph: Mapping[Any, Any], keys: Any, *, apart: bool) -> Graph:
    """Put our shuffles in the place of Dask's.

    Parameters
    ----------
    expr
        The optimised expression.
    graph
        What it gives as a graph of Dask's nodes. It is not changed.
    keys
        Those that are wanted, nested or not.
    apart
        Whether the tasks run in other processes.

    Returns
    -------
    dict
        The same graph where there is no shuffle, or none of a kind that is known; without what is not needed any more.
    """
    ours: Graph = dict(graph)
    wanted = list(flatten([keys]))
    room = None if apart else Room()
    for plan in _list_plans(expr):
        if all(key in ours for key in (*plan.inputs, *plan.outputs)):
            _exchange_frames(ours, plan, room)
    ours = cull(ours, wanted)  # so that the stores of those are gone
    dependents = _list_dependents(ours)
    for store in [key for key, node in ours.items() if _is_store(node)]:
        _exchange_store(ours, store, dependents, room)
    ours = cull(ours, wanted)
    return ours


# --- data frames ------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """A shuffle of data frames.

    Attributes
    ----------
    name : str
    inputs, outputs : list
        Keys of partitions.
    column : hashable
        Says of each row to which partition it goes.
    count : int
        Of partitions that there would be without a selection.
    parts : list of int
        Those that are selected.
    ignore_index : bool
    empty : pandas.DataFrame or None
        What a partition without rows is; None for what the data themselves look like.
    """

    name: str
    inputs: list[Hashable]
    outputs: list[Hashable]
    column: Hashable
    count: int
    parts: list[int]
    ignore_index: bool
    empty: Any


def _list_plans(expr: Any) -> Iterator[_Plan]:
    """The shuffles of an expression that we know how to do."""
    home = sys.modules.get("dask.dataframe.dask_expr._shuffle")
    if home is None or not hasattr(expr, "walk"):  # no data frames
        return
    by_disk, by_tasks = (getattr(home, name, None) for name in ("DiskShuffle", "TaskShuffle"))
    pandas = sys.modules["pandas"]
    for node in expr.walk():
        if type(node) not in (by_disk, by_tasks):
            continue
        is_by_disk = type(node) is by_disk
        try:
            meta, parts, name = node.frame._meta, list(node._partitions), node._name
            plan = _Plan(
                name=name,
                inputs=node.frame.__dask_keys__(),
                outputs=[(name, index) for index in range(len(parts))],
                column=node.partitioning_index,
                count=node.npartitions_out,
                parts=parts,
                ignore_index=node.ignore_index and not is_by_disk,
                empty=meta if is_by_disk else None,
            )
        except AttributeError:  # of another version of Dask
            continue
        if type(meta) is pandas.DataFrame and plan.column == "_partitions" in meta.columns:
            yield plan


def _exchange_frames(graph: Graph, plan: _Plan, room: Room | None) -> None:
    selected = plan.parts if len(plan.parts) < plan.count else None
    cut = partial(
        split_frame,
        column=plan.column,
        count=plan.count,
        parts=selected,
        ignore_index=plan.ignore_index,
        room=room,
    )
    splits = [(f"split-{plan.name}", index) for index in range(len(plan.inputs))]
    for split, key in zip(splits, plan.inputs, strict=True):
        graph[split] = Task(split, cut, TaskRef(key))
    join = partial(join_frames, ignore_index=plan.ignore_index, empty=plan.empty)
    all_splits = _collect(graph, f"exchange-{plan.name}", splits, room)
    for output, part in zip(plan.outputs, plan.parts, strict=True):
        graph[output] = Task(output, join, all_splits, part)


def split_frame(
    frame: Any,
    *,
    column: Hashable,
    count: int,
    parts: Sequence[int] | None,
    ignore_index: bool,
    room: Room | None,
) -> Pieces:
    """Cut a partition into the pieces for the others; rows of a piece keep their order.

    Parameters
    ----------
    frame : pandas.DataFrame
    column
        Says of each row to which partition it goes.
    count
        How many partitions there are.
    parts
        Those that are wanted; None for all.
    ignore_index
        Whether the index is not needed.
    room
        As of `keep`.
    """
    codes = frame[column].to_numpy()
    if len(codes) and (codes.min() < 0 or codes.max() >= count):
        codes = codes % count
    # Sorting by such small integers is a radix sort, and takes a third of the time of the copy.
    order = np.argsort(codes.astype(np.min_scalar_type(count)), kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=count))
    begins = ends - np.bincount(codes, minlength=count)
    if parts is not None:
        order = np.concatenate([order[begins[part] : ends[part]] for part in parts])
    rows = frame.take(order)
    if ignore_index:
        rows = rows.reset_index(drop=True)
    pieces = {_EMPTY: rows.iloc[:0]}
    begin = 0
    for part in range(count) if parts is None else parts:
        end = begin + int(ends[part] - begins[part])
        if end > begin:
            pieces[part] = rows.iloc[begin:end]
        begin = end
    return keep(pieces, sizeof(rows), room)


def join_frames(splits: Sequence[Pieces], part: int, *, ignore_index: bool, empty: Any) -> Any:
    """Join the pieces for one partition, in the order of those that they come from.

    Parameters
    ----------
    splits
        What `split_frame` made of every partition.
    part
        The number of the partition.
    ignore_index
        Whether to number the rows anew.
    empty : pandas.DataFrame or None
        The result where there is no piece; None for one of the same columns as the first partition's.
    """
    from dask.dataframe.dispatch import concat

    pieces = [piece for split in splits if (piece := split.get(part)) is not None]
    if not pieces:
        return splits[0].get(_EMPTY) if empty is None else empty
    # Of one piece a copy, since its memory may be read-only.
    joined = concat(pieces, uniform=True) if len(pieces) > 1 else pieces[0].copy()
    return joined.reset_index(drop=True) if ignore_index else joined


# --- bags -------------------------------------------------------------------------


class _Stand:
    """Stands in for a `partd` store while one of Dask's tasks writes to it or reads from it.

    Parameters
    ----------
    splits
        What to read.
    """

    def __init__(self, splits: Sequence[Pieces] = ()) -> None:
        self._splits = splits
        self.pieces: dict[int, list[Any]] = {}

    def append(self, data: Mapping[int, Any], **_: Any) -> None:
        """Add one piece for each of some partitions."""
        for part, piece in data.items():
            self.pieces.setdefault(part, []).append(piece)

    def read(self, part: int) -> Iterator[Any]:
        """The pieces for a partition."""
        for split in self._splits:
            yield from split.get(part) or ()

    def get(self, part: int, **_: Any) -> Any:
        """The same, joined: lists to a list, data frames to a data frame."""
        pieces = list(self.read(part))
        if all(type(piece) is list for piece in pieces):
            return list(chain.from_iterable(pieces))
        from dask.dataframe.dispatch import concat

        return concat(pieces, uniform=True)

    def drop(self) -> None:
        """Remove the files, of which there are none."""


class _Access:
    """Runs one of Dask's tasks with a stand-in for its store.

    Parameters
    ----------
    node
        The task.
    store
        The key of the store.
    inputs
        Keys of all else that it needs, in the order of the values.
    """

    def __init__(self, node: Any, store: Hashable, inputs: Sequence[Hashable]) -> None:
        self._node = node
        self._store = store
        self._inputs = inputs

    def _run(self, stand: _Stand, values: Sequence[Any]) -> Any:
        return self._node({**dict(zip(self._inputs, values, strict=True)), self._store: stand})


class _Writing(_Access):
    """Gives what the task writes."""

    def __call__(self, room: Room | None, *values: Any) -> Pieces:
        stand = _Stand()
        self._run(stand, values)
        return keep(stand.pieces, sizeof(stand.pieces), room)


class _Reading(_Access):
    """Gives what the task makes of the pieces; what it waited for is None."""

    def __call__(self, splits: Sequence[Pieces], *values: Any) -> Any:
        return self._run(_Stand(splits), (*values, None))


def _is_store(node: Any) -> bool:
    """Whether a node makes a `partd` store."""
    func = getattr(node, "func", None)
    if type(func).__name__ == "maybe_buffered_partd":  # of data frames
        return True
    func = getattr(func, "func", func)  # of a partial
    return (getattr(func, "__module__", None) or "").partition(".")[0] == "partd"


def _exchange_store(
    graph: Graph, store: Hashable, dependents: Mapping[Hashable, set[Hashable]], room: Room | None
) -> None:
    """Have the tasks that use a store do without it.

    Some write to it, something waits for all of these, and the others wait for that and read.
    """
    users = dependents[store]
    barriers = {
        key
        for user in users
        for key in graph[user].dependencies
        if key not in users and graph[key].dependencies & users
    }
    if len(barriers) != 1:
        return
    (barrier,) = barriers
    writers = sorted(graph[barrier].dependencies, key=_rank)
    readers = users.difference(writers)
    if (
        not users.issuperset(writers)
        or dependents[barrier] != readers
        or any(dependents[writer] != {barrier} for writer in writers)
    ):
        return
    nodes = _replace_functions({key: graph[key] for key in (*writers, *readers)})
    for writer in writers:
        inputs = sorted(nodes[writer].dependencies - {store}, key=str)
        writing = _Writing(nodes[writer], store, inputs)
        graph[writer] = Task(writer, writing, room, *map(TaskRef, inputs))
    all_splits = _collect(graph, barrier, writers, room)
    for reader in readers:
        inputs = sorted(nodes[reader].dependencies - {store, barrier}, key=str)
        reading = _Reading(nodes[reader], store, [*inputs, barrier])
        graph[reader] = Task(reader, reading, all_splits, *map(TaskRef, inputs))


def _rank(key: Hashable) -> tuple[int, str]:
    """Orders keys of one name by their numbers."""
    text = str(key)
    return len(text), text


def _replace_functions(nodes: Graph) -> Graph:
    """The nodes of a bag's `groupby` with our functions in place of Dask's; others, or of another version, as are."""
    bags = sys.modules.get("dask.bag.core")
    ours = {
        getattr(bags, "partition", None): group_elements,
        getattr(bags, "collect", None): join_groups,
    }
    replaced: Graph = {}
    for key, node in nodes.items():
        new = _replace_function(node, ours)
        if new is None:
            return nodes
        replaced[key] = new
    return replaced


def _replace_function(node: Any, ours: Mapping[Any, Any]) -> Any:
    """The node with our function; None where it is not one of those."""
    if not isinstance(node, Task):
        return None
    if node.func in ours:
        return Task(node.key, ours[node.func], *node.args, **node.kwargs)
    if not node.has_subgraph():
        return None
    inner, *others = node.args
    replaced = {key: _replace_function(part, ours) for key, part in inner.items()}
    if not any(replaced.values()):
        return None
    inner = {key: replaced[key] or part for key, part in inner.items()}
    return Task(node.key, node.func, inner, *others, **node.kwargs)


def group_elements(
    grouper: Any, elements: Iterable[Any], count: int, stand: _Stand, *_: Any
) -> None:
    """Write the groups of a partition, those for one partition together.

    Parameters
    ----------
    grouper
        Gives the key of an element.
    elements
        Of the partition.
    count
        How many partitions there will be.
    stand
        What to write to.
    """
    pieces: dict[int, dict[Any, list[Any]]] = {}
    trusted: dict[type, bool] = {}
    for key, group in _group(grouper, elements).items():
        kind = type(key)
        if kind in _ATOMS and kind not in trusted:
            trusted[kind] = _hash(key) == tokenize(key)
        token = _hash(key) if trusted.get(kind) else tokenize(key)
        pieces.setdefault(int(token, 16) % count, {})[key] = group
    stand.append(pieces)


def join_groups(_grouper: Any, part: int, stand: _Stand, *_: Any) -> list[tuple[Any, list[Any]]]:
    """The groups of one partition, each in the order of the partitions that its elements come from.

    Parameters
    ----------
    part
        The number of the partition.
    stand
        What to read from.
    """
    groups: dict[Any, list[Any]] = {}
    for piece in stand.read(part):
        for key, group in piece.items():
            if key in groups:
                groups[key] += group
            else:
                groups[key] = group.copy()  # the piece may be asked for again
    return list(groups.items())


def _group(grouper: Any, elements: Iterable[Any]) -> dict[Any, list[Any]]:
    if not callable(grouper):  # an index, or several
        from dask.bag.core import groupby

        found: dict[Any, list[Any]] = groupby(grouper, elements)
        return found
    groups: dict[Any, list[Any]] = {}
    for element in elements:
        key = grouper(element)
        if key in groups:
            groups[key].append(element)
        else:
            groups[key] = [element]
    return groups


def _hash(key: object) -> str:
    """What `tokenize` gives for numbers and texts, in a quarter of its time."""
    return md5(str((key,)).encode(), usedforsecurity=False).hexdigest()


# --- graphs -----------------------------------------------------------------------


def _collect(graph: Graph, key: Hashable, splits: Sequence[Hashable], room: Room | None) -> Any:
    """The argument that stands for the results of all `splits`.

    Between processes, each reader needs those itself. In one process they are put together once, by a task of this
    key, so that there are not as many edges in the graph as pieces.
    """
    refs = [TaskRef(split) for split in splits]
    if room is None:
        return List(*refs)
    graph[key] = Task(key, _gather, *refs)
    return TaskRef(key)


def _gather(*splits: Pieces) -> tuple[Pieces, ...]:
    return splits


def _list_dependents(graph: Graph) -> dict[Hashable, set[Hashable]]:
    dependents: dict[Hashable, set[Hashable]] = {key: set() for key in graph}
    for key, node in graph.items():
        for needed in node.dependencies:
            if needed in dependents:
                dependents[needed].add(key)
    return dependents
