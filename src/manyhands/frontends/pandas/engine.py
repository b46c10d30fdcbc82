"""What ``engine=mh.pandas`` means to pandas 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.executors import BaseExecutionEngine

from manyhands.frontends.pandas.frames import apply_frame, map_series
from manyhands.frontends.pandas.pieces import Team
from manyhands.session import get_session

if TYPE_CHECKING:
    from collections.abc import Callable


class HandsEngine(BaseExecutionEngine):  # type: ignore[misc]
    """Runs what `pandas.DataFrame.apply` and `pandas.Series.map` are given, by the workers of the current session."""

    @staticmethod
    def map(
        data: Any,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        decorator: Callable[..., Any] | None,  # noqa: ARG004 - pandas gives it
        skip_na: bool,
    ) -> Any:
        """The function over the elements of a series."""
        assert not args
        return map_series(Team(get_session()), data, func, "ignore" if skip_na else None, **kwargs)

    @staticmethod
    def apply(
        data: Any,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        decorator: Callable[..., Any],  # noqa: ARG004 - pandas gives it
        axis: Any,
    ) -> Any:
        """The function over the rows or columns of a frame, or of an array, where an array is to come of it."""
        is_raw = isinstance(data, np.ndarray)
        frame = pd.DataFrame(data) if is_raw else data
        result = apply_frame(Team(get_session()), frame, func, axis, is_raw, None, args, **kwargs)
        return result.to_numpy() if is_raw else result
