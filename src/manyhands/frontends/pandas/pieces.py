"""Work on something of pandas', cut into pieces: what runs a piece in a worker, and how its results travel.

Workers do not assemble anything. What the user's function has returned for each row, element or group comes back as it
is, and pandas puts it together in the program with its own code, so that what it infers never depends on the pieces.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from manyhands.core.batch import Batch
from manyhands.core.exceptions import pack_exception
from manyhands.core.functions import name_callable
from manyhands.core.mapping import MapRun
from manyhands.observe.progress import ProgressBar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Protocol

    from manyhands.session import Session

    class Work(Protocol):
        """What is done with the items of a piece."""

        def run(self, items: Any, call: Callable[[Any], None]) -> None:
            """Have `call` given what the user's function is for, once for each of `items` and in their order."""

        def describe(self, item: Any) -> str:
            """What errors call one of the items."""


IS_SAFE = int(pd.__version__.split(".")[0]) >= 3
"""Whether pandas copies what a function changes before it is changed, so that what all workers read cannot be."""


_TARGET_SECONDS = 0.1
"""Work in a piece: what a piece costs by itself, cutting it out and taking its results in, is some milliseconds."""


class Team:
    """Those who work on something of pandas', and whether progress is shown.

    Parameters
    ----------
    session
        Whose workers they are.
    progress
        Whether to show a bar.
    """

    def __init__(self, session: Session, *, progress: bool = False) -> None:
        self._session = session
        self._progress = progress

    def start(
        self,
        func: Callable[..., Any],
        work: Work,
        items: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Generator[Any, None, None]:
        """What `func` returns for the items, in their order: lists, `Numbers` and `Table`s as they come.

        Parameters
        ----------
        args, kwargs
            Further arguments of `func`.

        Raises
        ------
        Exception
            Whatever `func` has raised, after the results of the items before.
        """
        watcher = ProgressBar(name_callable(func), len(items)) if self._progress else None
        make = partial(PieceBatch, work=work, args=args, kwargs=kwargs or {})
        run = MapRun(
            self._session, func, (items,), watcher=watcher, make=make, target=_TARGET_SECONDS
        )
        return run.iterate_parts(ordered=True, in_place=True)

    def hint(self, words: str) -> None:
        """Have the session's report say so."""
        self._session.hint(words)


class PieceBatch(Batch):
    """Runs the user's function over the items of a piece.

    Parameters
    ----------
    function, name, budget
        As of `Batch`.
    work
        Where the items come from.
    args, kwargs
        Further arguments of `function`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        work: Work,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        budget: float | None,
        **_: Any,
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.budget = budget
        self.work = work
        self.__qualname__ = name

    def __call__(self, items: Any) -> Any:
        """Results, failures and seconds, as `Batch` has them."""
        values: list[Any] = []
        keep, clock = values.append, perf_counter
        function, args, kwargs = self.function, self.args, self.kwargs
        # From the first item on: what a piece costs by itself says nothing about how large it should be.
        begin = clock()
        end = begin + (self.budget or float("inf"))

        def call(item: Any) -> None:
            nonlocal begin
            if not values:
                begin = clock()
            value = function(item, *args, **kwargs)
            # pandas makes a row in the place of the row before.
            keep(value.copy(deep=False) if isinstance(value, pd.Series) else value)
            if clock() > end and len(values) < len(items):
                raise _TimeIsUpError

        try:
            self.work.run(items, call)
        except _TimeIsUpError:
            pass
        except Exception as error:
            place = len(values)
            error.add_note(f"in {self.work.describe(items[place])}")
            values.append(None)
            return values, [(place, pack_exception(error, skip=1))], clock() - begin
        return pack(values), [], clock() - begin


class _TimeIsUpError(BaseException):
    """The rest of a piece is for others."""


def spell(label: Any) -> str:
    """What errors call a row, a column or a group of this label."""
    return repr(label.item() if isinstance(label, np.generic) else label)


# --- how results travel ------------------------------------------------------------------

_NUMBERS = (np.float64, np.int64, np.bool_)
"""Scalars that come out of an array as what went in."""


class Numbers:
    """Results that all are NumPy's scalars of one type.

    Parameters
    ----------
    array
        All of them.
    """

    def __init__(self, array: Any) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array)


class Table:
    """Results that all are series of one type with the same index.

    Parameters
    ----------
    array
        A row for each of them.
    index
        Of all of them.
    names
        Of each.
    """

    def __init__(self, array: Any, index: Any, names: list[Any]) -> None:
        self.array = array
        self.index = index
        self.names = names

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        for row, name in zip(self.array, self.names, strict=True):
            yield pd.Series(row, index=self.index, name=name, copy=False)


class Stack:
    """Results that all are series, or frames, of like rows.

    Parameters
    ----------
    whole
        One below the other.
    edges
        Where each of them begins, and where the last one ends.
    names
        Of each, where they are series.
    """

    def __init__(self, whole: Any, edges: list[int], names: list[Any] | None) -> None:
        self.whole = whole
        self.edges = edges
        self.names = names

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __iter__(self) -> Iterator[Any]:
        for place, (start, stop) in enumerate(pairwise(self.edges)):
            value = cut(self.whole, start, stop)
            if self.names is not None:
                value.name = self.names[place]
            yield value


def cut(whole: Any, start: int, stop: int) -> Any:
    """Rows of a frame or a series that stand for themselves."""
    part = whole._slice(slice(start, stop))  # as `iloc` does, which takes twice as long
    if not IS_SAFE:  # else pandas warns who changes it that the whole stays as it is
        part._is_copy = None
    return part


def pack(values: list[Any]) -> Any:
    """The results of a piece in a form that travels quickly and gives the same values."""
    kinds = set(map(type, values))
    kind = kinds.pop()
    if kinds:
        return values
    if kind in _NUMBERS:
        return Numbers(np.array(values, kind))
    if kind is pd.Series:
        return _tabulate(values) or _stack(values) or values
    return (kind is pd.DataFrame and _stack(values)) or values


def _tabulate(values: list[pd.Series]) -> Table | None:
    index, dtype = values[0].index, values[0].dtype
    if type(index) not in (pd.Index, pd.RangeIndex) or dtype not in _NUMBERS:
        return None
    for value in values:
        is_like = value.index is index or value.index.identical(index)
        if value.dtype != dtype or not is_like or not _is_plain(value):
            return None
    array = np.array([value.to_numpy() for value in values], dtype)
    return Table(array, index, [value.name for value in values])


_KINDS = "iufb"
"""Kinds of NumPy's types that stay what they are when arrays of one type are put together."""


def _stack(values: list[Any]) -> Stack | None:
    first = values[0]
    is_frame = first.ndim == 2
    if not all(map(_has_plain_labels, values)) or not (is_frame or _is_number(first.dtype)):
        return None
    names = {value.index.name for value in values}
    labels = [value.index.to_numpy() for value in values]
    if len(names) > 1 or len({array.dtype for array in labels}) > 1:
        return None
    index = pd.Index(np.concatenate(labels), name=names.pop(), copy=False)
    edges = [0, *accumulate(map(len, values))]
    if not is_frame:
        if len({value.dtype for value in values}) > 1:
            return None
        array = np.concatenate([value.to_numpy() for value in values])
        whole = pd.Series(array, index=index, copy=False)
        return Stack(whole, edges, [value.name for value in values])
    columns, dtypes = first.columns, first._mgr.get_dtypes().tolist()
    for value in values:
        is_like = value.columns is columns or value.columns.identical(columns)
        if not is_like or value._mgr.get_dtypes().tolist() != dtypes:
            return None
    whole = pd.concat(values, ignore_index=True)
    whole.index = index
    return Stack(whole, edges, None)


def _has_plain_labels(value: Any) -> bool:
    index = value.index
    return type(index) is pd.Index and _is_number(index.dtype) and _is_plain(value)


def _is_number(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in _KINDS


def _is_plain(value: Any) -> bool:
    return not value.attrs and value.flags.allows_duplicate_labels
