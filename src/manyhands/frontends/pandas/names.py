"""The names that pandarallel's users know, on pandas' classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from manyhands.core import place
from manyhands.errors import InvalidArgumentError
from manyhands.frontends.keeping import Recipe, borrow
from manyhands.frontends.pandas.frames import apply_frame, apply_series, map_frame, map_series
from manyhands.frontends.pandas.groups import GROUPINGS, call_grouped
from manyhands.frontends.pandas.pieces import Team
from manyhands.frontends.pandas.windows import WINDOWS, apply_windows
from manyhands.session import get_session

if TYPE_CHECKING:
    from collections.abc import Callable


def _apply_groups(team: Team, grouped: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
    """``apply`` of pandas' group-by."""
    return call_grouped(team, grouped, "apply", func, args, kwargs)


_METHODS: dict[str, tuple[tuple[Callable[..., Any], tuple[type, ...]], ...]] = {
    "parallel_apply": (
        (apply_frame, (pd.DataFrame,)),
        (apply_series, (pd.Series,)),
        (_apply_groups, GROUPINGS),
        (apply_windows, WINDOWS),
    ),
    "parallel_map": ((map_frame, (pd.DataFrame,)), (map_series, (pd.Series,))),
    "parallel_applymap": ((map_frame, (pd.DataFrame,)),),
}
"""What stands behind each name, by class."""


class _Wish:
    """What was asked for.

    Parameters
    ----------
    nb_workers
        How many workers; None for those of the current session.
    progress
        Whether to show a bar.
    """

    def __init__(self, nb_workers: int | None, *, progress: bool) -> None:
        self._nb_workers = nb_workers
        self._progress = progress

    def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Have those workers do it."""
        is_in_call = place.in_worker or place.here.get() is not None
        if self._nb_workers is None or is_in_call:  # a call uses the workers that there are
            return work(Team(get_session(), progress=self._progress), *args, **kwargs)
        claim = borrow(Recipe(self._nb_workers, None, None, (), {}))
        try:
            return work(Team(claim.session, progress=self._progress), *args, **kwargs)
        finally:
            claim.give_back()


_wish = _Wish(None, progress=False)


def install(nb_workers: int | None, *, progress_bar: bool) -> None:
    """`manyhands.pandas.install`."""
    global _wish
    is_number = isinstance(nb_workers, int) and not isinstance(nb_workers, bool)
    if nb_workers is not None and (not is_number or nb_workers < 1):
        raise InvalidArgumentError(
            f"nb_workers={nb_workers!r}: it is a number of workers, 1 or more, or left out for those of the session"
        )
    _wish = _Wish(nb_workers, progress=bool(progress_bar))
    for name, entries in _METHODS.items():
        for work, classes in entries:
            for owner in classes:
                setattr(owner, name, _make_method(name, work))


def _make_method(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        return _wish.run(work, self, func, *args, **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"{work.__doc__} By workers of manyhands."
    return method
