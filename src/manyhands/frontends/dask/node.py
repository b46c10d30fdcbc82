"""What a worker runs for a graph; it is all that a worker imports of this door."""

from __future__ import annotations

from traceback import clear_frames

from manyhands.core import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run_chain(chain: tuple[Any, ...], names: tuple[Any, ...], *values: Any) -> Any:
    """Run nodes one after the other; the value of the last.

    Parameters
    ----------
    chain
        Dask's nodes, each of which may need those before it.
    names, values
        The keys of what they need besides, and what it is.
    """
    known = dict(zip(names, values, strict=True))
    del values
    try:
        for node in chain:
            known[node.key] = node({key: known[key] for key in node.dependencies})
    except BaseException as error:
        known.clear()
        if (
            place.in_worker
        ):  # of the error only its text goes on, but its frames would hold what they were given
            clear_frames(error.__traceback__)
        raise
    return known[chain[-1].key]


def run_fused(inner: dict[Any, Any], outkey: Any, inkeys: tuple[Any, ...], *values: Any) -> Any:
    """Run nodes that Dask has fused into one; the value of one of them.

    Dask's own function for that finds the best order of the nodes anew each time, which takes longer than most of them.

    Parameters
    ----------
    inner, outkey
        The nodes, and which of them is asked for.
    inkeys, values
        The keys of what they need besides, and what it is.
    """
    known = dict(zip(inkeys, values, strict=True))
    users: dict[Any, int] = {}
    for node in inner.values():
        for key in node.dependencies:
            users[key] = users.get(key, 0) + 1
    stack = [outkey]
    while stack:
        key = stack[-1]
        if key not in known:
            needed = inner[key].dependencies
            missing = [other for other in needed if other not in known]
            if missing:
                stack += missing
                continue
            known[key] = inner[key]({other: known[other] for other in needed})
            for other in needed:
                users[other] -= 1
                if not users[other]:
                    del known[other]
        stack.pop()
    return known[outkey]
