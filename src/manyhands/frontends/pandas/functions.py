"""Which functions are for workers, and which pandas itself is quicker with."""

from __future__ import annotations

from types import BuiltinFunctionType
from typing import TYPE_CHECKING

import numpy as np
from pandas.api.types import is_list_like

if TYPE_CHECKING:
    from manyhands.frontends.pandas.pieces import Team


_CASTS = (bool, float, int, str)


def is_for_workers(func: object) -> bool:
    """Whether pandas would call `func` again and again; texts, lists, dicts and ufuncs it understands as a whole."""
    return callable(func) and not is_list_like(func) and not isinstance(func, np.ufunc)


def hint_at_better(team: Team, func: object, what: str) -> None:
    """Have the report say so where pandas has a form that is quicker than any number of workers."""
    name = getattr(func, "__name__", None)
    module = getattr(func, "__module__", None) or ""
    is_plain = isinstance(func, (BuiltinFunctionType, np.ufunc)) or any(
        func is kind for kind in _CASTS
    )
    if isinstance(name, str) and (is_plain or module.partition(".")[0] in ("numpy", "pandas")):
        team.hint(
            f"{what} was given {name}: where pandas has a method or an operator for it, that does all at once, and is "
            f"quicker than any number of workers"
        )
