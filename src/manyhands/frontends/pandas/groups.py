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
from manyhands.frontends.pandas.pieces import IS_SAFE, cut, spell

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from manyhands.frontends.pandas.pieces import Team


GROUPINGS = (pd.api.typing.DataFrameGroupBy, pd.api.typing.SeriesGroupBy)
"""The classes of group-bys."""


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
    if callable(func) and get_cython_func(func) is None:
        hint_at_better(team, func, f"{type(grouped).__name__}.{method}")
    calls = _Calls(team, is_alone=callable(func), looks=method == "transform" and grouped.ndim == 2)
    if func is None:
        kwargs = {name: _replace(value, calls) for name, value in kwargs.items()}
    else:
        func = _replace(func, calls)
    here = copy(grouped)
    if calls.is_used and kwargs.get("engine") in (None, "cython"):
        here._grouper = _replace_splitter(grouped._grouper, calls)
    try:
        return getattr(here, method)(func, *args, **kwargs)
    finally:
        calls.close()


def _replace(func: Any, calls: _Calls) -> Any:
    """What stands in for a function, and for those in a list, a dict or a named aggregation."""
    if isinstance(func, dict):
        return {name: _replace(value, calls) for name, value in func.items()}
    if isinstance(func, list):
        return [_replace(value, calls) for value in func]
    if isinstance(func, pd.NamedAgg):
        more, named = getattr(func, "args", ()), getattr(func, "kwargs", {})
        return pd.NamedAgg(func.column, _replace(func.aggfunc, calls), *more, **named)
    if type(func) is tuple:
        return tuple(_replace(value, calls) for value in func)
    if not callable(func) or get_cython_func(func) is not None:
        return func
    calls.is_used = True
    return StandIn(func, calls)


def _replace_splitter(grouper: Any, calls: _Calls) -> Any:
    """A copy of a grouper whose splitters are ours."""
    changed = copy(grouper)

    def split(data: Any, *axis: Any, **axes: Any) -> Any:
        whole = grouper._get_splitter(data, *axis, **axes)
        # On pandas 2 columns may be grouped.
        return whole if any(axis) or any(axes.values()) else calls.add(whole, grouper)

    changed._get_splitter = split
    return changed


def _get_itself(func: Any) -> Any:
    return func


class StandIn:
    """Stands in for the user's function: of a group that comes from our splitter it gives the result of a worker.

    Anything else the function gets itself. In a worker it is the function.

    Parameters
    ----------
    func
        The user's.
    calls
        Where the groups come from.
    """

    def __init__(self, func: Callable[..., Any], calls: _Calls) -> None:
        self._func = func
        self._calls = calls
        self.__name__ = get_callable_name(func)
        self.__doc__ = func.__doc__

    def __call__(self, group: Any, *args: Any, **kwargs: Any) -> Any:
        """The result for this group."""
        if type(group) is Group:
            return group.split.answer(group.number, group, self._func, args, kwargs)
        split = self._calls.find(group)
        if split is not None:
            return split.answer(split.number, group, self._func, args, kwargs)
        return self._func(group, *args, **kwargs)

    def __reduce__(self) -> Any:
        return _get_itself, (self._func,)


class _Calls:
    """What one call of a method comes to: pandas may split more than once, and call more than one function.

    Parameters
    ----------
    is_alone
        Whether nothing but one stand-in is called with groups, so that these need not be there themselves.
    looks
        Whether pandas calls the function with the first group to see how, and not at all with groups without rows.

    Attributes
    ----------
    is_used : bool
        Whether there is a stand-in for any function.
    """

    def __init__(self, team: Team, *, is_alone: bool, looks: bool) -> None:
        self.team = team
        self.is_alone = is_alone
        self.looks = looks
        self.is_used = False
        self._splits: list[_Split] = []

    def add(self, whole: Any, grouper: Any) -> _Split:
        """Pandas splits something."""
        self._splits.append(_Split(self, whole, grouper))
        return self._splits[-1]

    def find(self, group: object) -> _Split | None:
        """The split that has just given this group; None where none has."""
        for split in reversed(self._splits):
            if split.real is group:
                return split
        return None

    def close(self) -> None:
        """Nothing more is wanted."""
        for split in self._splits:
            split.close()


class _Split:
    """Stands in for pandas' splitter: gives the groups, or a `Group` in the place of each.

    Parameters
    ----------
    whole
        pandas' splitter.
    grouper
        pandas' grouper, which knows the groups' names.

    Attributes
    ----------
    real
        The group that was given last, where groups are there themselves; `number` is its number.
    data
        All that is split, sorted by groups.
    edges
        Where each group begins, and where the last one ends.
    """

    def __init__(self, calls: _Calls, whole: Any, grouper: Any) -> None:
        self._calls = calls
        self._whole = whole
        self._grouper = grouper
        self._answers: Any = None
        self._parts: Generator[Any, None, None] | None = None
        self.real: Any = None
        self.number = 0
        self.data = whole._sorted_data
        labels = whole._slabels[whole._slabels >= 0]
        counts = np.bincount(labels, minlength=whole.ngroups)
        self.edges = np.concatenate([[0], np.cumsum(counts)]) + len(whole._slabels) - len(labels)

    def __iter__(self) -> Any:
        if self._calls.is_alone:
            return map(partial(Group, self), range(self._whole.ngroups))
        return self._iterate()

    def _iterate(self) -> Generator[Any, None, None]:
        for number, group in enumerate(self._whole):
            self.number, self.real = number, group
            yield group

    def answer(
        self, number: int, group: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What `func` returns for the group of this number; asked for one group after the other."""
        if self._answers is None:
            if self._calls.looks and number == 0:
                return func(group.make() if type(group) is Group else group, *args, **kwargs)
            numbers = np.arange(number, self._whole.ngroups)
            if self._calls.looks:
                numbers = numbers[np.diff(self.edges)[numbers] > 0]
            grouper = self._grouper
            names = getattr(grouper, "group_keys_seq", None)  # of pandas 2
            work = Groups(self.data, self.edges, grouper.result_index if names is None else names)
            self._parts = self._calls.team.start(func, work, numbers, args, kwargs)
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
        if not len(items):
            return
        # Iterating over labels gives Python's own numbers, as it does for pandas, and taking one gives NumPy's.
        for number, name in zip(items, names[items[0] : items[-1] + 1], strict=True):
            group = cut(data, edges[number] - first, edges[number + 1] - first)
            object.__setattr__(group, "name", name)
            call(group)

    def describe(self, item: int) -> str:
        """The group's name."""
        return f"group {spell(self._names[item])}"
