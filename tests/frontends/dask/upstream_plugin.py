"""Loaded by pytest in a process of its own: all of Dask's schedulers are ours, whatever a test names.

Its tests name theirs where they compare (`assert_eq` says "sync"), and by functions as well as by names; so both are
replaced, before the collections are imported, which keep them as defaults. One session is open for the whole run.
"""

from typing import Any

import dask
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded
import pytest

import manyhands as mh
from manyhands.frontends.dask import schedule

counts = {"threads": 0, "workers": 0}
"""The computations that reached us, by where they ran."""


def replace_schedulers() -> None:
    dask.get = dask.base.get = dask.local.get_sync = mh.dask_scheduler
    dask.threaded.get = dask.multiprocessing.get = mh.dask_scheduler
    dask.base.named_schedulers.update(dict.fromkeys(dask.base.named_schedulers, mh.dask_scheduler))


replace_schedulers()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on", required=True, choices=list(counts))


def pytest_configure(config: pytest.Config) -> None:
    compute = schedule.compute

    def count(expr: Any, keys: Any, **keywords: Any) -> Any:
        on = keywords.setdefault("on", config.getoption("--on"))
        found = compute(expr, keys, **keywords)
        counts[on] += 1
        return found

    schedule.compute = count


@pytest.fixture(scope="session", autouse=True)
def session() -> Any:
    with mh.Session("local", workers=2) as session:
        yield session


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for place, count in counts.items():
        terminalreporter.write_line(f"computed on {place}: {count}")
