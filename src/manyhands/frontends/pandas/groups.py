"""A function over the groups of a group-by.

pandas' own method runs in the program, on a copy of the group-by whose splitter gives stand-ins for the groups. The
function that pandas calls with them stands in too: it takes the results from the workers, who have the groups. So all
that pandas does around the calls, and all that it makes of the results, is its own code.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.core.common import get_callable_name, get_cython_func

from manyhands.frontends.pandas.functions import hint_at_better
from manyhands.frontends.pandas.pieces import IS_SAFE

GROUPINGS = (pd.api.typing.DataFrameGroupBy, pd.api.typing.SeriesGroupBy)
"""The classes of group-bys."""

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from manyhands.frontends.pandas.pieces import Team


def call_grouped(
    team: Team, grouped: Any, method: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A method of a pandas group-by that takes a function, such as ``apply``.

    Parameters
    ----------
    grouped
        The group-by.
    func
        A function, or what else the method takes; texts and what pandas has built in it does itself.
    """
    hint_at_better(team, func, f"{type(grouped).__name__}.{method}")
    here = copy(grouped)
    here._grouper = grouper = copy(grouped._grouper)
    splits: list[_Split] = []
    is_frame = isinstance(grouped._selected_obj, pd.DataFrame)

    def split(data: Any, *axis: Any, **axes: Any) -> Any:
        whole = type(grouper)._get_splitter(grouper, data, *axis, **axes)
        if any(axis) or any(axes.values()):
            return whole  # columns, on pandas 2
        # pandas looks at the first group to see how a function of frames is to be called, and skips those without rows.
        splits.append(_Split(team, whole, grouper, looks=is_frame and method == "transform"))
        return splits[-1]

    grouper._get_splitter = split
    try:
        return getattr(here, method)(
            _replace(func), *args, **{k: _replace_named(v) for k, v in kwargs.items()}
        )
    finally:
        for one in splits:
            one.close()


def _replace(func: Any) -> Any:
    """What stands in for a function, and for those in a list or a dict of them."""
    if isinstance(func, dict):
        return {name: _replace(value) for name, value in func.items()}
    if isinstance(func, list):
        return [_replace(value) for value in func]
    if not callable(func) or get_cython_func(func) is not None:
        return func
    return StandIn(func)


def _replace_named(value: Any) -> Any:
    """The same of what a keyword gives: pandas takes a pair of column and function for a named aggregation."""
    if isinstance(value, tuple) and len(value) == 2:
        changed = value[0], _replace(value[1])
        return type(value)(*changed) if hasattr(value, "_fields") else changed
    return value


def _get_itself(func: Any) -> Any:
    return func


class StandIn:
    """Stands in for the user's function; given a stand-in for a group, it gives the result that a worker found.

    In a worker it is the function itself.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = func
        self.__name__ = get_callable_name(func)
        self.__doc__ = func.__doc__

    def __call__(self, group: Any, *args: Any, **kwargs: Any) -> Any:
        if type(group) is Group:
            return group.split.answer(group, self._func, args, kwargs)
        return self._func(group, *args, **kwargs)

    def __reduce__(self) -> Any:
        return _get_itself, (self._func,)


class _Split:
    """Stands in for pandas' splitter: gives a `Group` for each group.

    Parameters
    ----------
    whole
        pandas' splitter.
    grouper
        pandas' grouper, which knows the groups' names.
    looks
        Whether pandas calls the function with the first group to see how, and not at all with groups without rows.
    """

    def __init__(self, team: Team, whole: Any, grouper: Any, *, looks: bool) -> None:
        self._team = team
        self._looks = looks
        self._whole = whole
        self._grouper = grouper
        self.data = whole._sorted_data
        counts = np.bincount(whole._slabels[whole._slabels >= 0], minlength=whole.ngroups)
        first = len(whole._slabels) - counts.sum()
        self.edges = np.concatenate([[0], np.cumsum(counts)]) + first
        self._answers: Any = None
        self._parts: Generator[Any, None, None] | None = None

    def __iter__(self) -> Any:
        return map(partial(Group, self), range(len(self.edges) - 1))

    def answer(self, group: Group, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `func` returns for a group; asked for one group after the other."""
        if self._answers is None:
            if self._looks and group.number == 0:
                return func(group.make(), *args, **kwargs)
            numbers = np.arange(group.number, len(self.edges) - 1)
            if self._looks:
                numbers = numbers[np.diff(self.edges)[numbers] > 0]
            names = getattr(self._grouper, "group_keys_seq", None)
            work = Groups(
                self.data, self.edges, self._grouper.result_index if names is None else names
            )
            self._parts = self._team.start(func, work, numbers, args, kwargs)
            self._answers = chain.from_iterable(self._parts)
        return next(self._answers)

    def close(self) -> None:
        """Nothing more is wanted."""
        if self._parts is not None:
            self._parts.close()


class Group:
    """Stands in for a group where pandas calls the function, and becomes it where pandas looks into it."""

    __slots__ = ("__dict__", "_real", "number", "split")

    def __init__(self, split: _Split, number: int) -> None:
        self.split = split
        self.number = number
        self._real: Any = None

    @property
    def size(self) -> int:
        """How many elements it has."""
        edges, shape = self.split.edges, self.split.data.shape
        return int(np.prod(shape[1:], initial=edges[self.number + 1] - edges[self.number]))

    @property
    def index(self) -> Any:
        """The group's labels."""
        edges = self.split.edges
        return self.split.data.index[edges[self.number] : edges[self.number + 1]]

    @property
    def axes(self) -> Any:
        """The labels of all axes, of which pandas often needs no more than the number."""
        return _Axes(self)

    def make(self) -> Any:
        """The group itself."""
        if self._real is None:
            edges = self.split.edges
            self._real = cut(self.split.data, edges[self.number], edges[self.number + 1])
        for name, value in vars(self).items():  # the group's name, which pandas has pinned
            object.__setattr__(self._real, name, value)
        return self._real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.make(), name)


class _Axes:
    """The axes of a group, made when they are looked at."""

    __slots__ = ("_group",)

    def __init__(self, group: Group) -> None:
        self._group = group

    def __len__(self) -> int:
        return int(self._group.split.data.ndim)

    def __getitem__(self, place: int) -> Any:
        return self._group.index if place == 0 else self._group.split.data.axes[place]


class Groups:
    """The groups of a frame or a series.

    Parameters
    ----------
    data
        All of it, sorted by groups.
    edges
        Where each group begins, and where the last one ends.
    names
        Of the groups.
    """

    def __init__(self, data: Any, edges: Any, names: Any) -> None:
        self._data = data
        self._edges = edges
        self._names = names

    def run(self, items: Sequence[int], call: Callable[[Any], None]) -> None:
        """Give `call` the groups of these numbers."""
        edges, names = self._edges, self._names
        data, first = self._data, 0
        if not IS_SAFE and len(items):
            first = edges[items[0]]
            data = data.iloc[first : edges[items[-1] + 1]].copy()
        for number in items:
            group = cut(data, edges[number] - first, edges[number + 1] - first)
            object.__setattr__(group, "name", names[number])
            call(group)

    def describe(self, item: int) -> str:
        """The group's name."""
        return f"group {self._names[item]!r}"


def cut(data: Any, start: int, stop: int) -> Any:
    """The rows of one group."""
    group = data.iloc[start:stop]
    if (
        not IS_SAFE
    ):  # it is meant as it is, and not taken for a part of something that was to be changed
        group._is_copy = None
    return group
