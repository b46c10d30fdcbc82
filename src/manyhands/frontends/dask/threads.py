"""A graph run by threads of this process: nothing is copied, and kernels that release the global lock run at once."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from manyhands.core import place
from manyhands.errors import CallInterrupted, SessionClosedError
from manyhands.frontends.dask.contention import Contention
from manyhands.frontends.dask.progress import Progress

if TYPE_CHECKING:
    from manyhands.frontends.dask.graph import Graph
    from manyhands.frontends.dask.watch import Watch
    from manyhands.frontends.dask.wishes import Wishes
    from manyhands.session import Session

_HINT = (
    "threads that computed Dask's nodes waited for one another, as their functions are Python's and hold the "
    "interpreter's lock: with compute(on='workers') more cores are used"
)

_thread = threading.local()
"""``is_draining`` where a thread is at a graph: computations inside nodes have no threads of their own."""


class ThreadRun:
    """One computation.

    Parameters
    ----------
    graph, wishes, watch
        What is computed, how, and who hears of it.
    values
        What there is already.
    """

    def __init__(self, graph: Graph, values: dict[Any, Any], wishes: Wishes, watch: Watch) -> None:
        self.values = values
        self._tasks = graph.tasks
        self._wishes = wishes
        self._watch = watch
        self._progress = Progress(
            graph.find_dependencies(),
            graph.wanted,
            lambda key: (-wishes.get(key).priority, graph.rank[key]),
        )
        self._change = threading.Condition()
        self._idle = 0
        self._is_over = False
        self._failure: BaseException | None = None
        watch.start_state(graph, self._progress, values)

    def run(self, session: Session) -> None:
        """Run all nodes on as many threads as the session has workers; raise the first error of any."""
        limit = self._wishes.num_workers or session.workers
        count = min(session.workers, limit, len(self._tasks))
        if session.engine == "inline" or place.in_worker or getattr(_thread, "is_draining", False):
            count = 1
        contention = Contention()
        try:
            self._begin(session, count)
            with self._change:
                contention.wait(self._change, lambda: self._progress.is_done or self._is_over)
        except BaseException as interrupt:
            self._fail(interrupt)
            raise
        if count > 1 and contention.is_likely():
            session.hint(_HINT)
        # Not kept: its traceback leads to this run, and to all values that there were.
        failure, self._failure = self._failure, None
        if isinstance(failure, CallInterrupted):
            raise SessionClosedError("the session was closed before Dask's graph was computed")
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    def _begin(self, session: Session, count: int) -> None:
        if count <= 1:
            self.drain()
        elif session.engine != "threads":
            for number in range(count):
                threading.Thread(
                    target=copy_context().run,
                    args=(self.drain,),
                    name=f"manyhands-dask-{number}",
                    daemon=True,
                ).start()
        else:  # whose workers may be busy, perhaps waiting for this very thread
            helpers = [session.submit(self.drain) for _ in range(count - 1)]
            self.drain()
            session.cancel_calls(helpers)

    def drain(self) -> None:
        """Run nodes until none is left."""
        was_draining = getattr(_thread, "is_draining", False)
        _thread.is_draining = True
        try:
            self._drain()
        except BaseException as error:
            self._fail(error)
        finally:
            _thread.is_draining = was_draining

    def _drain(self) -> None:
        values, worker = self.values, threading.get_ident()
        with self._change:
            key = self._take()
        while key is not None:
            value = self._compute(key)
            with self._change:
                values[key] = value
                for released in self._progress.finish(key):
                    del values[released]
                if self._watch.is_watched:
                    self._watch.after(key, value, worker)
                del value
                key = self._take()

    def _compute(self, key: Any) -> Any:
        node, values = self._tasks[key], self.values
        retries = self._wishes.get(key).policy.retries
        while True:
            try:
                return node({other: values[other] for other in node.dependencies})
            except Exception:
                if not retries:
                    raise
                retries -= 1

    def _take(self) -> Any:
        """The next key, when there is one; None when there is nothing more to do."""
        progress = self._progress
        while not self._is_over and not progress.is_done:
            if progress.ready:
                key = progress.take()
                if self._watch.is_watched:
                    self._watch.before(key)
                if self._idle and progress.ready:
                    self._change.notify()
                return key
            self._idle += 1
            self._change.wait()
            self._idle -= 1
        self._change.notify_all()
        return None

    def _fail(self, error: BaseException) -> None:
        with self._change:
            if not self._is_over:
                self._is_over, self._failure = True, error
            self._change.notify_all()
