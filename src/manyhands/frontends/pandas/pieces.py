"""Work on something of pandas', cut into pieces: what runs a piece in a worker, and how its results travel.

Workers do not assemble anything. What the user's function has returned for each row, element or group comes back as it
is, and pandas puts it together in the program with its own code, so that what it infers never depends on the pieces.
"""

from __future__ import annotations

from functools import partial
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
    from collections.abc import Callable, Generator, Iterator, Sequence
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


_TARGET_SECONDS = 0.02
"""Work in a piece: cutting it out and handing it to pandas takes some tenths of a millisecond."""


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
        items: Sequence[Any],
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

    def __call__(self, items: Any) -> Any:  # type: ignore[override]
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


def pack(values: list[Any]) -> Any:
    """The results of a piece in a form that travels quickly and gives the same values."""
    kinds = set(map(type, values))
    if len(kinds) != 1:
        return values
    kind = kinds.pop()
    if kind in _NUMBERS:
        return Numbers(np.array(values, kind))
    return _tabulate(values) if kind is pd.Series else values


def _tabulate(values: list[Any]) -> Any:
    index, dtype = values[0].index, values[0].dtype
    if type(index) not in (pd.Index, pd.RangeIndex) or dtype not in _NUMBERS:
        return values
    for value in values:
        is_like = value.index is index or value.index.identical(index)
        if value.dtype != dtype or not is_like or value.attrs or value.flags != values[0].flags:
            return values
    array = np.array([value.to_numpy() for value in values], dtype)
    return Table(array, index, [value.name for value in values])
