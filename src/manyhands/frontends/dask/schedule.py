"""Computing an expression of Dask's on a session: where its nodes run, and what is given back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from manyhands.frontends.dask.calls import CallRun
from manyhands.frontends.dask.graph import Graph, give_nested, list_keys, load, read_nodes
from manyhands.frontends.dask.shuffle import exchange
from manyhands.frontends.dask.threads import ThreadRun
from manyhands.frontends.dask.watch import watch
from manyhands.frontends.dask.wishes import Wishes
from manyhands.session import get_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ON_WORKERS = ("dask.bag", "dask.delayed")
"""Where collections come from whose functions are mostly Python's own, and hold the global lock."""


def compute(expr: Any, keys: Any, *, keep: bool = False, **keywords: Any) -> Any:
    """The values of keys; with `keep` those that workers made stay with them, and come as futures."""
    annotate = getattr(expr, "__dask_annotations__", None)
    nodes = read_nodes(expr)
    wishes = Wishes(keywords, annotate() if annotate is not None else {})
    session = get_session()
    wanted = list_keys(keys)
    with watch(wishes.callbacks) as watching:
        on_workers = (wishes.on or choose_place(expr, wishes)) == "workers"
        nodes = exchange(expr, nodes, wanted, apart=on_workers and session.capabilities.pickles)
        watching.start(nodes)
        graph = Graph(nodes, wanted)
        give: Callable[[Any], Any]
        if on_workers:
            run = CallRun(graph, wishes, watching, session)
            run.run()
            give = run.stand_in if keep else run.load
        else:
            values = {key: load(value) for key, value in graph.data.items()}
            shared = ThreadRun(graph, values, wishes, watching)
            shared.run(session)
            give = values.__getitem__
        return give_nested(keys, give)


def persist(collections: Any, *, optimize_graph: bool = True, **keywords: Any) -> tuple[Any, ...]:
    """The collections, computed; what workers made of them stays in the memory they share."""
    from dask.base import persist as persist_by

    scheduler = partial(compute, keep=True)
    found: tuple[Any, ...] = persist_by(
        *collections,
        traverse=False,
        optimize_graph=optimize_graph,
        scheduler=scheduler,
        **keywords,
    )
    return found


def choose_place(expr: Any, wishes: Wishes) -> str:
    """Where an expression is computed fastest, as Dask's own defaults have it.

    Kernels of arrays and frames release the global lock, so threads share their memory and run them at once. Bags and
    delayed functions are Python's own.
    """
    if wishes.names_resources:
        return "workers"
    homes = set(_list_homes(expr))
    return "workers" if homes and all(map(_is_python, homes)) else "threads"


def _is_python(home: str) -> bool:
    return home.startswith(_ON_WORKERS)


def _list_homes(expr: Any) -> Iterator[str]:
    """The modules that the collections in an expression come from, where they tell: "" for others."""
    for operand in [expr] if not _is_sequence(expr) else expr.operands:
        told = getattr(operand, "postcompute", None)
        for step in told if isinstance(told, list) else [told]:
            yield getattr(step[0], "__module__", "") if step else ""


def _is_sequence(expr: Any) -> bool:
    return type(expr).__name__ in ("_ExprSequence", "_HLGExprSequence")
