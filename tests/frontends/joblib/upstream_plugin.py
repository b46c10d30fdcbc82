"""Loaded by pytest in a process of its own: joblib's tests meet our backend where they mean loky."""

from typing import Any

import joblib._parallel_backends
import joblib.parallel
import pytest

from manyhands.frontends.joblib import ManyhandsBackend

LEFT_OUT: dict[str, str] = {}


class LokyBackend(ManyhandsBackend):
    """Ours, by the name that the tests expect in messages."""


joblib.parallel.BACKENDS["loky"] = LokyBackend
joblib._parallel_backends.LokyBackend = LokyBackend

OTHERS = ("multiprocessing", "sequential", "threading")


def is_of_other_backends(item: pytest.Item) -> bool:
    """Whether none of the backends that a test is called for is ours."""
    params: dict[str, Any] = getattr(item, "callspec").params if hasattr(item, "callspec") else {}
    backends = [value for name, value in params.items() if "backend" in name and "n_jobs" not in name]
    return bool(backends) and not any(
        value in (None, "loky") or isinstance(value, ManyhandsBackend) for value in backends
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, dropped = [], []
    for item in items:
        name = item.name.partition("[")[0]
        is_out = name in LEFT_OUT or item.name in LEFT_OUT or is_of_other_backends(item)
        (dropped if is_out else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)
