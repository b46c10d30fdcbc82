"""A function over the rows, the columns or the elements of a frame or a series."""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from manyhands.frontends.pandas.functions import hint_at_better, is_for_workers
from manyhands.frontends.pandas.pieces import IS_SAFE, Numbers, Table, spell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from manyhands.frontends.pandas.pieces import Team

_ROWS = (1, "columns")
_COLUMNS = (0, "index", "rows")
_PLAIN = (float, int, bool, str, type(None), np.generic)
"""Results of rows that pandas makes a series of, whatever the frame was."""


def apply_frame(
    team: Team,
    frame: Any,
    func: Any,
    axis: Any = 0,
    raw: bool = False,
    result_type: str | None = None,
    args: tuple[Any, ...] = (),
    **kwargs: Any,
) -> Any:
    """`pandas.DataFrame.apply`."""
    itself = partial(frame.apply, func, axis, raw, result_type, args, **kwargs)
    hint_at_better(team, func, "DataFrame.apply")
    own = {
        name: kwargs.pop(name) for name in ("by_row", "engine", "engine_kwargs") if name in kwargs
    }
    is_usual = axis in _ROWS or axis in _COLUMNS
    if (
        not is_for_workers(func)
        or not is_usual
        or result_type == "broadcast"
        or own.get("engine") not in (None, "python")
    ):
        return itself()
    items = range(frame.shape[0 if axis in _ROWS else 1])
    if len(items) < 2 or not all(frame.shape):
        return itself()
    if raw:
        work: Any = Lines(frame.to_numpy(), by_row=axis in _ROWS)
    else:
        work = Rows(frame) if axis in _ROWS else Columns(frame)
    parts: Any = team.start(func, work, items, args, kwargs)
    again = partial(frame.apply, axis=axis, raw=raw, result_type=result_type)
    if axis in _ROWS:
        collected = list(parts)
        result = None if raw else _assemble_rows(frame, collected, result_type)
        if result is not None:
            return result
        parts = iter(collected)
        again = partial(_outline(frame).apply, axis=1, raw=raw, result_type=result_type)
    result = again(_Answers(parts))
    return result.__finalize__(frame, method="apply")


class _Answers:
    """Stands in for the user's function where its results are known: gives one after the other."""

    def __init__(self, parts: Any) -> None:
        self._next = chain.from_iterable(parts).__next__

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self._next()


def _outline(frame: Any) -> Any:
    """A frame of the same labels without content: what becomes of the results of rows depends on no more."""
    zeros = np.broadcast_to(np.float64(0), frame.shape)
    return frame._constructor(zeros, index=frame.index, columns=frame.columns, copy=False)


def _assemble_rows(frame: Any, parts: list[Any], result_type: str | None) -> Any:
    """What pandas makes of the results of rows, in the cases where that is quickly said; None in others."""
    first = next(iter(parts[0]))
    kinds = set(map(type, parts))
    if isinstance(first, _PLAIN):
        if kinds == {Numbers} and len({part.array.dtype for part in parts}) == 1:
            values: Any = np.concatenate([part.array for part in parts])
        else:
            values = dict(enumerate(chain.from_iterable(parts)))
        result = frame._constructor_sliced(values)
        result.index = frame.index
    elif kinds == {Table} and result_type in (None, "expand") and _are_alike(parts):
        array = np.concatenate([part.array for part in parts])
        result = frame._constructor(array, columns=parts[0].index, copy=False)
        result.index = frame.index
    else:
        return None
    return result.__finalize__(frame, method="apply")


def _are_alike(tables: list[Any]) -> bool:
    first = tables[0]
    return all(
        table.array.dtype == first.array.dtype and table.index.identical(first.index)
        for table in tables
    )


class Rows:
    """The rows of a frame, as pandas makes them.

    Parameters
    ----------
    frame
        All of it.
    """

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def run(self, items: range, call: Callable[[Any], None]) -> None:
        """Give `call` the rows of these numbers."""
        piece = self._frame.iloc[items.start : items.stop]
        (piece if IS_SAFE else piece.copy()).apply(call, axis=1)

    def describe(self, item: int) -> str:
        """The row's label."""
        return f"row {spell(self._frame.index[item])}"


class Columns:
    """The columns of a frame.

    Parameters
    ----------
    frame
        All of it.
    """

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def run(self, items: range, call: Callable[[Any], None]) -> None:
        """Give `call` the columns of these numbers."""
        piece = self._frame.iloc[:, items.start : items.stop]
        (piece if IS_SAFE else piece.copy()).apply(call)

    def describe(self, item: int) -> str:
        """The column's label."""
        return f"column {spell(self._frame.columns[item])}"


class Lines:
    """The rows or columns of a frame as arrays: those of one type that all of the frame has in common.

    Parameters
    ----------
    array
        All of it.
    by_row
        Whether rows are meant.
    """

    def __init__(self, array: Any, *, by_row: bool) -> None:
        self._array = array
        self._by_row = by_row

    def run(self, items: range, call: Callable[[Any], None]) -> None:
        """Give `call` the lines of these numbers."""
        lines = self._array if self._by_row else self._array.T
        piece = lines[items.start : items.stop]
        for line in piece if IS_SAFE else piece.copy():
            call(line)

    def describe(self, item: int) -> str:
        """Where the line stands."""
        return f"{'row' if self._by_row else 'column'} {item}"


# --- elements ----------------------------------------------------------------------------


class Elements:
    """Elements, each by itself."""

    def run(self, items: Sequence[Any], call: Callable[[Any], None]) -> None:
        """Give `call` these elements."""
        for item in items:
            call(item)

    def describe(self, item: object) -> str:
        """The element."""
        return f"element {spell(item)}"


def _visit_twice(
    team: Team,
    visit: Callable[[Callable[[Any], Any]], Any],
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """What `visit(func)` gives, which calls its argument with elements.

    It is called to see what these are, and once more when their results are known.
    """
    elements: list[Any] = []

    def note(element: Any) -> Any:
        elements.append(element)
        return element

    visit(note)
    if len(elements) < 2:
        return visit(lambda element: func(element, *args, **kwargs))
    parts = team.start(func, Elements(), elements, args, kwargs)
    return visit(partial(next, chain.from_iterable(parts)))


def map_series(
    team: Team, series: Any, func: Any = None, na_action: str | None = None, **kwargs: Any
) -> Any:
    """`pandas.Series.map`."""
    hint_at_better(team, func, "Series.map")
    if not is_for_workers(func) or kwargs.get("engine") is not None:
        return series.map(func, na_action=na_action, **kwargs)
    kwargs.pop("engine", None)
    return _visit_twice(team, partial(series.map, na_action=na_action), func, (), kwargs)


def apply_series(
    team: Team, series: Any, func: Any, args: tuple[Any, ...] = (), **kwargs: Any
) -> Any:
    """`pandas.Series.apply`."""
    hint_at_better(team, func, "Series.apply")
    own = {name: kwargs.pop(name) for name in ("convert_dtype", "by_row") if name in kwargs}
    if not is_for_workers(func) or own.get("by_row") is False:
        return series.apply(func, args=args, **own, **kwargs)
    return _visit_twice(team, partial(series.apply, **own), func, args, kwargs)


def map_frame(
    team: Team, frame: Any, func: Any, na_action: str | None = None, **kwargs: Any
) -> Any:
    """`pandas.DataFrame.map`."""
    hint_at_better(team, func, "DataFrame.map")
    if not is_for_workers(func):
        return frame.map(func, na_action, **kwargs)
    return _visit_twice(team, partial(frame.map, na_action=na_action), func, (), kwargs)
