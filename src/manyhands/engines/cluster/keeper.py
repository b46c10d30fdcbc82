"""Refs of values that a cluster keeps."""

from __future__ import annotations

from weakref import WeakValueDictionary

from manyhands.core.refs import Record, Ref
from manyhands.core.sizes import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from manyhands.engines.cluster.packed import Packed, Stub


class ClusterKeeper:
    """See `manyhands.core.roles.Keeper`.

    Parameters
    ----------
    fetch
        Gives the value behind a handle of the cluster.
    hold
        Gives a handle that keeps the value there, for one that has come here.
    """

    def __init__(self, fetch: Callable[[Any], Packed], hold: Callable[[Any], Any]) -> None:
        self._fetch = fetch
        self._hold = hold
        self._refs: WeakValueDictionary[int, Ref[Any]] = WeakValueDictionary()

    def adopt(self, stub: Stub) -> Record:
        """The record of a ref that has come here."""
        number, native, type_name, nbytes = stub
        stub = number, self._hold(native), type_name, nbytes
        return Record(self, number, stub, type_name, nbytes)

    def read(self, record: Record) -> Any:
        return self._fetch(record.content[1]).load(self.adopt)

    def locate(self, record: Record) -> str:  # noqa: ARG002 - the cluster decides
        return "memory"

    def describe(self, record: Record) -> str:
        return f"{format_size(record.nbytes)} in the cluster"

    def hand_out(self, record: Record) -> Ref[Any]:
        ref = self._refs.get(record.id)
        if ref is None:
            ref = self._refs[record.id] = Ref(record)
        return ref
