"""A function over rolling and expanding windows, also of groups."""

from __future__ import annotations

from copy import copy
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas._libs.window.aggregations import roll_apply

from manyhands.frontends.pandas.functions import hint_at_better

if TYPE_CHECKING:
    from collections.abc import Callable

    from manyhands.frontends.pandas.pieces import Team

_CLASSES = vars(pd.api.typing)
WINDOWS = tuple(
    _CLASSES[name]
    for name in (
        *("Rolling", "Expanding", "RollingGroupBy", "ExpandingGroupBy"),
        *("RollingGroupby", "ExpandingGroupby"),  # what pandas 2 calls them
    )
    if name in _CLASSES
)
"""The classes of windows that a function can be applied to."""


def apply_windows(
    team: Team,
    window: Any,
    func: Any,
    raw: bool = False,
    engine: str | None = None,
    engine_kwargs: dict[str, bool] | None = None,
    args: tuple[Any, ...] | None = None,
    kwargs: dict[str, Any] | None = None,
) -> Any:
    """``apply`` of pandas' rolling and expanding windows."""
    hint_at_better(team, func, f"{type(window).__name__}.apply")
    here = copy(window)

    def generate(
        args: tuple[Any, ...], kwargs: dict[str, Any], raw: bool, function: Callable[..., Any]
    ) -> Callable[..., Any]:
        """What pandas calls with each column's values and the edges of its windows."""

        def compute(values: Any, begin: Any, end: Any, min_periods: int) -> Any:
            def run_all(answer: Callable[[Any], Any]) -> Any:
                return roll_apply(values, begin, end, min_periods, answer, True, (), {})

            # Windows with too few values are not called for, and which these are pandas knows.
            numbers = np.flatnonzero(~np.isnan(run_all(_say_one)))
            work = Windows(values, None if raw else here._on, begin, end)
            parts = team.start(function, work, numbers, args, kwargs)
            try:
                return run_all(partial(next, chain.from_iterable(parts)))
            finally:
                parts.close()

        return compute

    here._generate_cython_apply_func = generate
    return here.apply(func, raw, engine, engine_kwargs, args, kwargs)


def _say_one(_: object) -> float:
    return 1.0


class Windows:
    """The windows of a column.

    Parameters
    ----------
    values
        The column's, as numbers.
    labels
        Of all rows; None where windows are arrays.
    begin, end
        Where each window begins and ends.
    """

    def __init__(self, values: Any, labels: Any, begin: Any, end: Any) -> None:
        self._values = values
        self._labels = labels
        self._begin = begin
        self._end = end

    def run(self, items: Any, call: Callable[[Any], None]) -> None:
        """Give `call` the windows of these numbers."""
        begin, end = self._begin[items], self._end[items]
        first, last = begin.min(), end.max()
        piece: Any = self._values[first:last].copy()  # functions may write to arrays
        edges = zip((begin - first).tolist(), (end - first).tolist(), strict=True)
        with np.errstate(all="ignore"):  # as pandas has it
            if self._labels is None:
                for start, stop in edges:
                    call(piece[start:stop])
                return
            slices = pd.Series(piece, index=self._labels[first:last], copy=False).iloc
            for start, stop in edges:
                call(slices[start:stop])

    def describe(self, item: int) -> str:
        """Where the window stands."""
        return f"window {item}, of the rows from {self._begin[item]} to before {self._end[item]}"
