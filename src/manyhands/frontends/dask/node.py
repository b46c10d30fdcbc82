"""What a worker runs for a graph; it is all that a worker imports of this door."""

from __future__ import annotations

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
    for node in chain:
        known[node.key] = node({key: known[key] for key in node.dependencies})
    return known[chain[-1].key]
