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
    InvalidArgumentError, TypeError
        For keywords that it does not know; for a graph that cannot be computed.
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

    def __reduce__(self) -> str:
        return "dask_scheduler"


dask_scheduler = DaskScheduler()


def await_dask() -> None:
    """Make our scheduler the default one inside sessions: now, if Dask is loaded, else when it is."""
    when_imported(
        "dask.config", lambda config: config.update_defaults({"scheduler": dask_scheduler})
    )
    when_imported(
        "dask.tokenize",
        lambda tokenize: tokenize.normalize_token.register_lazy("manyhands", _import_tokens),
    )


def _import_tokens() -> None:
    from importlib import import_module

    import_module("manyhands.frontends.dask.tokens")
