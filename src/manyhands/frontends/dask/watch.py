"""Dask's callbacks: progress bars, profilers and caches that want to hear of each node."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dask.callbacks import local_callbacks, normalize_callback, unpack_callbacks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from manyhands.frontends.dask.graph import Graph
    from manyhands.frontends.dask.progress import Progress


class Watch:
    """Calls back what is active as a computation begins.

    Nested computations call nobody back, as with Dask's own schedulers.

    Attributes
    ----------
    is_watched : bool
        Whether there are callbacks.
    wants_nodes : bool
        Whether any of them looks at which node it hears of.
    wants_values : bool
        Whether any of them uses the values of nodes.
    """

    def __init__(self, callbacks: Any) -> None:
        self._callbacks = [normalize_callback(callback) for callback in callbacks]
        self._started: list[Any] = []
        _, _, self._before, self._after, _ = unpack_callbacks(self._callbacks)
        self._nodes: dict[Any, Any] = {}
        self._state: Mapping[str, Any] = {}
        self.is_watched = bool(self._callbacks)
        self.wants_nodes = not all(map(_ignores_nodes, [*self._before, *self._after]))
        self.wants_values = not all(map(_ignores_values, self._after))

    def start(self, nodes: dict[Any, Any]) -> None:
        """The computation begins; callbacks may put values in the place of nodes."""
        self._nodes = nodes
        for callback in self._callbacks:
            if callback[0]:
                callback[0](nodes)
            self._started.append(callback)

    def start_state(self, graph: Graph, progress: Progress, values: dict[Any, Any]) -> None:
        """Nothing has run yet."""
        self._state = {
            "cache": values,
            "dependencies": {**dict.fromkeys(graph.data, frozenset()), **progress.dependencies},
            "dependents": progress.dependents,
            "finished": progress.finished,
            "ready": progress.ready,
            "released": progress.released,
            "running": progress.running,
            "waiting": progress.waiting,
        }
        for callback in self._callbacks:
            if callback[1]:
                callback[1](self._nodes, self._state)

    def before(self, key: Any) -> None:
        """A node is about to run."""
        for call in self._before:
            call(key, self._nodes, self._state)

    def after(self, key: Any, value: Any, worker: object) -> None:
        """A node has run."""
        for call in self._after:
            call(key, value, self._nodes, self._state, worker)

    def finish(self, *, failed: bool) -> None:
        """The computation is over, for those that heard of its beginning."""
        for callback in self._started:
            if callback[4]:
                callback[4](self._nodes, self._state, failed)


@contextmanager
def watch(callbacks: Any) -> Iterator[Watch]:
    """A `Watch` of these callbacks, or where that is None, of all that are active."""
    with local_callbacks(callbacks) as active:
        watching = Watch(active)
        failed = True
        try:
            yield watching
            failed = False
        finally:
            watching.finish(failed=failed)


def _ignores_nodes(fn: Any) -> bool:
    """Whether a callback is one of Dask's own that only counts nodes, which can then be joined."""
    return _name_owner(fn) in {"dask.diagnostics.progress.ProgressBar", _RESOURCES}


def _ignores_values(fn: Any) -> bool:
    """Whether a callback is one of Dask's own that do not look at values, which then need not be fetched."""
    return _ignores_nodes(fn) or _name_owner(fn) == "dask.diagnostics.profile.Profiler"


_RESOURCES = "dask.diagnostics.profile.ResourceProfiler"


def _name_owner(fn: Any) -> str:
    owner = type(getattr(fn, "__self__", None))
    return f"{owner.__module__}.{owner.__qualname__}"
