"""The accessor: ``df.mh`` and ``series.mh``, with pandas' methods that take a function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyhands.frontends.pandas.frames import apply_frame, apply_series, map_frame, map_series
from manyhands.frontends.pandas.groups import GROUPINGS, call_grouped
from manyhands.frontends.pandas.pieces import Team
from manyhands.frontends.pandas.windows import WINDOWS, apply_windows
from manyhands.session import get_session

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Hands:
    """What frames and series have in common.

    Parameters
    ----------
    whole
        The frame or the series.
    """

    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def groupby(self, *args: Any, **kwargs: Any) -> GroupByHands:
        """``groupby`` of pandas, whose functions are run by workers."""
        return GroupByHands(self._whole.groupby(*args, **kwargs))

    def rolling(self, *args: Any, **kwargs: Any) -> WindowHands:
        """``rolling`` of pandas, whose functions are run by workers."""
        return WindowHands(self._whole.rolling(*args, **kwargs))

    def expanding(self, *args: Any, **kwargs: Any) -> WindowHands:
        """``expanding`` of pandas, whose functions are run by workers."""
        return WindowHands(self._whole.expanding(*args, **kwargs))


class FrameHands(_Hands):
    """``df.mh``: pandas' methods by the workers of the current session."""

    def apply(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """`pandas.DataFrame.apply`, with its parameters."""
        return apply_frame(_gather(), self._whole, func, *args, **kwargs)

    def map(self, func: Any, na_action: str | None = None, **kwargs: Any) -> Any:
        """`pandas.DataFrame.map`, with its parameters."""
        return map_frame(_gather(), self._whole, func, na_action, **kwargs)


class SeriesHands(_Hands):
    """``series.mh``: pandas' methods by the workers of the current session."""

    def apply(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """`pandas.Series.apply`, with its parameters."""
        return apply_series(_gather(), self._whole, func, *args, **kwargs)

    def map(self, func: Any = None, na_action: str | None = None, **kwargs: Any) -> Any:
        """`pandas.Series.map`, with its parameters."""
        return map_series(_gather(), self._whole, func, na_action, **kwargs)


class _Wrapped:
    """Something of pandas'; what is not told here is its own.

    Parameters
    ----------
    inner
        That of pandas.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getitem__(self, key: Any) -> Any:
        return type(self)(self._inner[key])

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # while it is copied
            raise AttributeError(name)
        found = getattr(self._inner, name)
        return type(self)(found) if isinstance(found, _WRAPPED[type(self)]) else found

    def __iter__(self) -> Iterator[Any]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._inner!r}>"


class GroupByHands(_Wrapped):
    """A group-by whose functions are run by workers; all else is that of pandas."""

    def apply(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """``apply`` of pandas' group-by, with its parameters."""
        return call_grouped(_gather(), self._inner, "apply", func, args, kwargs)

    def agg(self, func: Any = None, *args: Any, **kwargs: Any) -> Any:
        """``agg`` of pandas' group-by, with its parameters."""
        return call_grouped(_gather(), self._inner, "agg", func, args, kwargs)

    aggregate = agg

    def transform(self, func: Any = None, *args: Any, **kwargs: Any) -> Any:
        """``transform`` of pandas' group-by, with its parameters."""
        return call_grouped(_gather(), self._inner, "transform", func, args, kwargs)

    def rolling(self, *args: Any, **kwargs: Any) -> WindowHands:
        """``rolling`` of pandas' group-by, whose functions are run by workers."""
        return WindowHands(self._inner.rolling(*args, **kwargs))

    def expanding(self, *args: Any, **kwargs: Any) -> WindowHands:
        """``expanding`` of pandas' group-by, whose functions are run by workers."""
        return WindowHands(self._inner.expanding(*args, **kwargs))


class WindowHands(_Wrapped):
    """Windows whose functions are run by workers; all else is that of pandas."""

    def apply(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """``apply`` of pandas' windows, with its parameters."""
        return apply_windows(_gather(), self._inner, func, *args, **kwargs)


_WRAPPED = {GroupByHands: GROUPINGS, WindowHands: WINDOWS}
"""What is wrapped where pandas gives it for a column's name."""


def _gather() -> Team:
    return Team(get_session())
