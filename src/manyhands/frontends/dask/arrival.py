"""What is done once Dask has been imported: inside a session, its collections are computed by it.

Dask asks its configuration for a scheduler, unless the user names one. There ours is a default, which counts as none
wherever no session is open.
"""

from __future__ import annotations

import sys

from manyhands.core import place
from manyhands.core.arrivals import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class DaskScheduler(str):
    """Computes Dask's collections on the current session: ``mh.dask_scheduler``.

    Inside a session Dask uses it by itself; ``scheduler=mh.dask_scheduler`` names it anywhere. `compute` and `persist`
    then take these keywords, of which the last three are annotations of Dask's too:

    on
        "threads" of this process, which share its memory; or "workers", the session's, between which values travel.
        Left out, bags and delayed functions run on workers, for they hold the interpreter's lock; all else in threads.
    num_workers
        How many nodes run at a time; left out, as many as the session has workers.
    retries, priority, resources
        As those of `manyhands.task`.

    Raises
    ------
    InvalidArgumentError
        For such keywords with values that they cannot have; for a graph that cannot be computed.
    UnsupportedError
        For ``workers`` and ``allow_other_workers``.

    Examples
    --------
    >>> import dask.array as da
    >>> import manyhands as mh
    >>> squares = da.arange(1_000_000, chunks=100_000) ** 2
    >>> with mh.Session(workers=2):
    ...     int(squares.sum().compute())
    333332833333500000
    >>> int(squares.max().compute(scheduler=mh.dask_scheduler))
    999998000001
    """

    # It is an empty text besides: Dask sends its configuration to processes of its own as JSON, in which nothing but
    # that is left of it, and to them it means that there is none.
    __slots__ = ()

    def __bool__(self) -> bool:
        """Whether this context is inside a session: in a ``with`` block, or in a call."""
        if place.in_worker or place.here.get() is not None:
            return True
        module = sys.modules.get("manyhands.session")
        return module is not None and module.is_inside()

    def __call__(self, expr: Any, keys: Any, **keywords: Any) -> Any:
        """Compute what Dask wants; called by Dask."""
        from manyhands.frontends.dask.schedule import compute

        return compute(expr, keys, **keywords)

    def persist(self, collections: Any, **keywords: Any) -> tuple[Any, ...]:
        """Compute collections and keep their parts where they are; called by Dask."""
        from manyhands.frontends.dask.schedule import persist

        return persist(collections, **keywords)

    def __repr__(self) -> str:
        return "<manyhands.dask_scheduler>"

    def __reduce__(self) -> Any:
        return _find_scheduler, ()


dask_scheduler = DaskScheduler()


def _find_scheduler() -> DaskScheduler:
    return dask_scheduler


_OURS = r"manyhands[\\/](core|engines|frontends|session\.py)"
"""Files that Dask leaves out of the tracebacks of what fails in a graph, as it does its own."""


def await_dask() -> None:
    """Make ours the default scheduler inside sessions, and collections inputs of calls: as soon as Dask is loaded."""
    when_imported("dask.config", _enter)
    when_imported("dask.base", _enter_collections)
    when_imported("dask.tokenize", _name_handles)


def _enter(config: Any) -> None:
    hidden = [*config.get("admin.traceback.shorten", []), _OURS]
    config.update_defaults(
        {"scheduler": dask_scheduler, "admin": {"traceback": {"shorten": hidden}}}
    )


def _enter_collections(base: Any) -> None:
    from manyhands.core.handles import foreign

    foreign.append((base.is_dask_collection, _start))


def _name_handles(tokenize: Any) -> None:
    from functools import partial
    from importlib import import_module

    name = partial(import_module, "manyhands.frontends.dask.tokens")
    tokenize.normalize_token.register_lazy("manyhands", name)


def _start(collection: Any) -> Any:
    """Compute a collection that is an argument of a call, aside; a future of what it is."""
    from concurrent.futures import Future
    from contextvars import copy_context
    from threading import Thread

    future: Future[Any] = Future()

    def compute() -> None:
        try:
            future.set_result(collection.compute(scheduler=dask_scheduler))
        except BaseException as error:
            future.set_exception(error)

    if place.in_worker:  # only the call's own thread can ask the session for more
        compute()
    else:
        run = copy_context().run
        Thread(target=run, args=(compute,), name="manyhands-dask", daemon=True).start()
    return future
