"""A graph run by the session's workers: every chain of nodes is one call, whose inputs are the futures of others.

So values stay with the engine: on this machine in memory that workers share, and the program reads only what it asked
for.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from dask._task_spec import Alias

from manyhands.core.handles import find_handles
from manyhands.errors import SessionClosedError, UnpicklableError
from manyhands.frontends.dask.graph import KeptNode, load
from manyhands.frontends.dask.locks import list_locks
from manyhands.frontends.dask.node import run_chain
from manyhands.frontends.dask.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Hashable

    from dask._task_spec import GraphNode

    from manyhands.core.future import Future
    from manyhands.frontends.dask.graph import Graph
    from manyhands.frontends.dask.watch import Watch
    from manyhands.frontends.dask.wishes import Wishes
    from manyhands.session import Session

_TURN_SECONDS = 0.01
"""How much work calls that are handed over at a time shall hold, together."""

_MOST_AHEAD = 512
"""Of calls that are handed over at a time."""

_SHARED_BYTES = 1 << 16
"""Data that several calls need and that may be as large as this is stored once."""


class CallRun:
    """One computation.

    A chain whose value does not pickle, such as an open file, has no place to stay: its nodes become the beginning
    of each chain that needs it. One whose functions or arguments do not pickle runs in the caller. Of those that hold a
    lock of Dask's, which workers do not share, one runs at a time.

    Parameters
    ----------
    graph, wishes, watch
        What is computed, how, and who hears of it.
    session
    """

    def __init__(self, graph: Graph, wishes: Wishes, watch: Watch, session: Session) -> None:
        self.values: dict[Any, Any] = dict(graph.data)
        self._graph = graph
        self._wishes = wishes
        self._watch = watch
        self._session = session
        self._chains, dependencies = make_chains(graph, wishes, join=not watch.wants_nodes)
        self._needed = {key: _list_needed(chain) for key, chain in self._chains.items()}
        self._progress = Progress(
            dependencies, graph.wanted, lambda key: (-wishes.get(key).priority, graph.rank[key])
        )
        self._running: dict[Any, Future[Any]] = {}
        self._ended: deque[Any] = deque()
        self._held: set[Hashable] = set()  # locks, by chains that run
        self._aside: list[Any] = []  # chains that wait for them
        self._share_data()
        watch.start_state(graph, self._progress, self.values)

    def run(self) -> None:
        """Run all nodes; raise the first error of any, and cancel the others."""
        window = _Window(self._session.workers, self._wishes.num_workers)
        try:
            while not self._progress.is_done:
                while len(self._running) < window.size and self._progress.ready:
                    key = self._progress.take()
                    if self._watch.is_watched:
                        self._watch.before(key)
                    self._begin(key)
                if self._running:
                    self._session.wait_until(lambda: bool(self._ended), None)
                    window.note(len(self._ended))
                while self._ended:
                    self._take_in(self._ended.popleft())
        finally:
            self._session.cancel_calls(list(self._running.values()), running=True)

    def load(self, key: Any) -> Any:
        """The value of a key that is wanted."""
        return load(self.values[key])

    def stand_in(self, key: Any) -> Any:
        """A node that gives the value of a key that is wanted, on any scheduler; the value itself where it is here."""
        value = self.values[key]
        return KeptNode(key, value) if find_handles((value,), {}) else value

    def _share_data(self) -> None:
        counts: dict[Any, int] = {}
        for needed in self._needed.values():
            for key in needed & self._graph.data.keys():
                counts[key] = counts.get(key, 0) + 1
        for key, count in counts.items():
            if count > 1 and _is_large(self.values[key]):
                try:
                    self.values[key] = self._session.put(self.values[key])
                except UnpicklableError:
                    pass  # who needs it runs in the caller

    def _begin(self, key: Any) -> None:
        chain = self._chains[key]
        if len(chain) == 1 and isinstance(chain[0], Alias):
            self._finish(key, self.values[chain[0].target])
            return
        if self._is_finalizer(key):
            self._run_here(key)
            return
        locks = self._list_locks(key)
        if locks & self._held:
            self._aside.append(key)
            return
        self._held |= locks
        names = tuple(self._needed[key])
        values = [self.values[name] for name in names]
        options = self._wishes.get(key)
        future = self._session.start_call(run_chain, (chain, names, *values), {}, options)
        self._running[key] = future
        future.notify(lambda _: self._ended.append(key))

    def _take_in(self, key: Any) -> None:
        future = self._running.pop(key)
        locks = self._list_locks(key) if self._held else frozenset()
        if future.cancelled():
            raise SessionClosedError("the session was closed before Dask's graph was computed")
        error = future.peek_error()
        if error is None:
            self._finish(key, future)
        elif not isinstance(error, UnpicklableError):
            future.result()
        elif error.is_result and key not in self._graph.wanted:
            self._spread(key)
        else:
            self._run_here(key)
        if locks:
            self._held -= locks
            aside, self._aside = self._aside, []
            for other in aside:
                self._begin(other)

    def _finish(self, key: Any, value: Any) -> None:
        self.values[key] = value
        for released in self._progress.finish(key):
            del self.values[released]
        if self._watch.is_watched:
            seen = load(value) if self._watch.wants_values else None
            self._watch.after(key, seen, "manyhands")

    def _list_locks(self, key: Any) -> frozenset[Hashable]:
        data = [self._graph.data[name] for name in self._needed[key] & self._graph.data.keys()]
        return list_locks([*self._chains[key], *data])

    def _is_finalizer(self, key: Any) -> bool:
        is_free = key in self._graph.wanted and not self._wishes.has_own(key)
        return is_free and _is_finalizer(self._chains[key][-1])

    def _run_here(self, key: Any) -> None:
        """Run a chain in the caller."""
        names = self._needed[key]
        self._finish(
            key,
            run_chain(self._chains[key], tuple(names), *(load(self.values[n]) for n in names)),
        )

    def _spread(self, key: Any) -> None:
        """Have each chain that needs the value of a key make it itself."""
        chain = self._chains[key]
        for dependent in self._progress.bypass(key):
            rest = self._chains[dependent]
            known = {node.key for node in rest}
            joined = (*(node for node in chain if node.key not in known), *rest)
            self._chains[dependent] = joined
            self._needed[dependent] = _list_needed(joined)
        if self._watch.is_watched:
            self._watch.after(key, None, "manyhands")


class _Window:
    """How many calls are handed over at a time: few, that the next can be chosen late, and more where they are quick.

    Parameters
    ----------
    workers
    limit
        How many there may be at most, where that is said.
    """

    def __init__(self, workers: int, limit: int | None) -> None:
        self.size = self._least = min(2 * workers, limit or 2 * workers)
        self._most = limit or _MOST_AHEAD
        self._begin = monotonic()
        self._ended = 0

    def note(self, ended: int) -> None:
        """So many have ended."""
        self._ended += ended
        if self._ended >= self.size:
            now = monotonic()
            seconds, self._begin, self._ended = now - self._begin, now, 0
            if seconds < _TURN_SECONDS:
                self.size = min(2 * self.size, self._most)
            elif seconds > 4 * _TURN_SECONDS:
                self.size = max(self.size // 2, self._least)


def make_chains(
    graph: Graph, wishes: Wishes, *, join: bool = True
) -> tuple[dict[Any, tuple[GraphNode, ...]], dict[Any, frozenset[Any]]]:
    """Join nodes of which one needs nothing but the other, and nobody else does; without `join`, none.

    Returns
    -------
    chains, dependencies
        Both by the key of a chain's last node: its nodes in their order, and the keys of the chains that it needs.
    """
    dependencies = graph.find_dependencies()
    users: dict[Any, int] = {}
    for needed in dependencies.values():
        for key in needed:
            users[key] = users.get(key, 0) + 1
    chains: dict[Any, tuple[GraphNode, ...]] = {}
    for key in sorted(dependencies, key=graph.rank.__getitem__):
        chain: tuple[GraphNode, ...] = (graph.tasks[key],)
        needed = dependencies[key]
        can_follow = join and not wishes.has_own(key) and not _is_finalizer(graph.tasks[key])
        if can_follow and len(needed) == 1:
            (other,) = needed
            if users[other] == 1 and other not in graph.wanted and not wishes.has_own(other):
                chain = (*chains.pop(other), *chain)
                dependencies[key] = dependencies.pop(other)
        chains[key] = chain
    return chains, dependencies


def _list_needed(chain: tuple[GraphNode, ...]) -> frozenset[Any]:
    """The keys that a chain needs from others."""
    needed: frozenset[Any] = frozenset().union(*(node.dependencies for node in chain))
    return needed - {node.key for node in chain}


def _is_finalizer(node: GraphNode) -> bool:
    """Whether a node only puts together what Dask then gives its caller, who would have to read all of it again."""
    home = getattr(getattr(node, "func", None), "__module__", None) or ""
    return str(node.key).startswith("finalize-") and home.partition(".")[0] == "dask"


def _is_large(value: Any) -> bool:
    """Whether data may be so; futures and refs of it are not."""
    if find_handles((value,), {}) or isinstance(value, (int, float, str, bool, type(None))):
        return False
    return bool(getattr(value, "nbytes", _SHARED_BYTES) >= _SHARED_BYTES)
