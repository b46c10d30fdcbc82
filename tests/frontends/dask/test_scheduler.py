"""Dask's collections, computed by a session."""

from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed

import manyhands as mh
from manyhands.frontends.dask import calls, threads

ENGINES = ["inline", "threads", "local"]


@pytest.fixture(params=ENGINES)
def session(request: pytest.FixtureRequest) -> Iterator[mh.Session]:
    with mh.Session(request.param, workers=2) as session:
        yield session


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where computations ran."""
    found: list[str] = []
    for module, name in ((threads, "ThreadRun"), (calls, "CallRun")):
        run = getattr(module, name).run

        def note(self: Any, *args: Any, run: Any = run, name: str = name) -> None:
            found.append(name)
            run(self, *args)

        monkeypatch.setattr(getattr(module, name), "run", note)
    return found


def test_collections_run_where_they_are_fastest(session: mh.Session, places: list[str]) -> None:
    assert da.ones((20, 20), chunks=5).sum().compute() == 400
    frame = dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=3)
    assert frame.a.sum().compute() == 45
    assert places == ["ThreadRun"] * 2
    assert db.range(10, npartitions=3).map(lambda x: x + 1).sum().compute() == 55
    assert delayed(sum)([delayed(abs)(-1), 2]).compute() == 3
    assert places == ["ThreadRun"] * 2 + ["CallRun"] * 2


@pytest.mark.parametrize("on", ["threads", "workers"])
def test_a_place_can_be_chosen(session: mh.Session, places: list[str], on: str) -> None:
    array = np.arange(24).reshape(4, 6)
    lazy = da.from_array(array, chunks=2)
    assert np.array_equal((lazy @ lazy.T).compute(on=on), array @ array.T)
    assert places == [{"threads": "ThreadRun", "workers": "CallRun"}[on]]


def test_outside_of_a_session_dask_is_as_it_was(places: list[str]) -> None:
    total = da.ones(4, chunks=2).sum()
    assert total.compute() == 4
    assert not dask.config.get("scheduler")
    assert places == []
    assert total.compute(scheduler=mh.dask_scheduler) == 4
    assert places == ["ThreadRun"]


def test_users_may_name_another_scheduler(session: mh.Session, places: list[str]) -> None:
    with dask.config.set(scheduler="sync"):
        assert da.ones(4, chunks=2).sum().compute() == 4
    assert places == []
