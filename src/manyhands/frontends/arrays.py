"""How arrays among the arguments of `joblib.Parallel` travel: as joblib's users know it, by our store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref as weak

from manyhands.core.parcels import packing
from manyhands.core.reductions import reduce_mapped, share_array

if TYPE_CHECKING:
    from manyhands.core.refs import Ref
    from manyhands.session import Session


class Items(list[Any]):
    """The items of a batch; the arrays among their arguments travel as joblib's users know it."""

    def __init__(self, items: list[Any], arrays: Arrays | None) -> None:
        super().__init__(items)
        self._reduce_array = arrays

    def __reduce__(self) -> Any:
        packing.reduce_array = self._reduce_array
        return list, (tuple(self),)


class Arrays:
    """How the arrays among the arguments of one `Parallel` travel.

    Up to `limit` bytes they are copied, and calls may write to them. Larger ones are stored once, and known again by
    being the same object: their content is not looked at a second time. Those of files are mapped from there.

    Parameters
    ----------
    session
        Where they are stored.
    limit
        In bytes.
    mode
        As of `numpy.memmap`, of those that are stored.
    """

    def __init__(self, session: Session, limit: float, mode: str | None) -> None:
        self._session = session
        self._limit = limit
        self._access = {"copy": mode == "c", "writable": mode in ("r+", "w+")}
        self._known: dict[int, tuple[weak[Any], Ref[Any] | None]] = {}

    def __call__(self, array: Any) -> Any:
        """What pickle's ``__reduce__`` gives."""
        mapped = reduce_mapped(array, writable=True)
        if mapped is not None:
            return mapped
        if array.dtype.hasobject:
            return share_array(array)
        if array.nbytes <= self._limit:
            return _copy, (_Shared(array),)
        ref = self._store(array)
        return share_array(array) if ref is None else (_read, (ref,))

    def clear(self) -> None:
        """Let go of all, at once and not when a cycle of references is found."""
        self._known.clear()

    def _store(self, array: Any) -> Ref[Any] | None:
        known, key = self._known, id(array)
        entry = known.get(key)
        is_new = entry is None or entry[0]() is not array
        if not is_new and entry is not None and entry[1] is not None:
            return entry[1]
        # Parts of an array are often made anew for each call: the store knows them by address and content.
        is_part = type(array.base) is type(array) and not any(self._access.values())
        ref = None if is_new and is_part else self._session.put(array, **self._access)

        def forget(_: object) -> None:
            known.pop(key, None)

        known[key] = weak(array, forget), ref
        return ref


class _Shared:
    """Stands for an array that goes the usual way: a large one is sent once, as long as its content is the same."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __reduce__(self) -> Any:
        return share_array(self.array)


def _copy(array: Any) -> Any:
    """While the items are read in a worker: an array that the call may write to."""
    return array.copy("K")


def _read(ref: Ref[Any]) -> Any:
    """While the items are read in a worker: the array that was stored."""
    return ref.get()
