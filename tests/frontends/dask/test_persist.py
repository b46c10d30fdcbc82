"""What is persisted is there when `persist` returns, is not computed again, and stays where it was made."""

import os
from collections.abc import Iterator
from pathlib import Path
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


@pytest.fixture(params=["inline", "threads", "local"])
def session(request: pytest.FixtureRequest) -> Iterator[mh.Session]:
    with mh.Session(request.param, workers=2) as session:
        yield session


@pytest.fixture(params=["threads", "workers"])
def on(request: pytest.FixtureRequest) -> str:
    place: str = request.param
    return place


def mark(folder: Path, value: Any) -> Any:
    """The value; each time it runs there is one file more."""
    (folder / f"{os.getpid()}-{len(list(folder.iterdir()))}").touch()
    return value


def list_parts(collection: Any) -> list[Any]:
    return list(dict(collection.__dask_graph__()).values())


def test_delayed_functions_run_once(session: mh.Session, on: str, tmp_path: Path) -> None:
    kept = delayed(mark)(tmp_path, 5).persist(on=on)
    assert len(list(tmp_path.iterdir())) == 1
    assert kept.compute() == 5
    assert delayed(abs)(kept).compute(on="threads") == 5
    assert delayed(abs)(kept).compute(on="workers") == 5
    assert len(list(tmp_path.iterdir())) == 1


def test_parts_are_futures_that_have_ended(session: mh.Session) -> None:
    kept = db.range(6, npartitions=3).map(lambda x: x + 1).persist(on="workers")
    parts = list_parts(kept)
    futures = [part.value for part in parts]
    assert all(isinstance(future, mh.Future) and future.done() for future in futures)
    assert sum(mh.gather([mh.submit(sum, future) for future in futures])) == 21


def test_other_schedulers_load_what_is_kept(session: mh.Session) -> None:
    kept = db.range(6, npartitions=3).map(lambda x: x + 1).persist(on="workers")
    assert kept.sum().compute(scheduler="sync") == 21
    array = da.ones((4, 4), chunks=2).persist(on="workers")
    assert (array + 1).sum().compute(scheduler="threads") == 32
    assert delayed(abs)(-3).persist(on="workers").compute(scheduler="threads") == 3


def test_kinds_are_kept(session: mh.Session, on: str) -> None:
    table = pd.DataFrame({"a": range(10), "b": [0, 1] * 5})
    array = da.arange(10, chunks=3).persist(on=on)
    frame = dd.from_pandas(table, npartitions=3).persist(on=on)
    bag = db.range(10, npartitions=3).persist(on=on)
    assert (array + 1).sum().compute() == 55
    pd.testing.assert_frame_equal(frame.compute(), table)
    assert frame.groupby("b").a.sum().compute().to_dict() == {0: 20, 1: 25}
    assert bag.filter(lambda x: x % 2).compute() == [1, 3, 5, 7, 9]


def test_several_are_persisted_together(session: mh.Session, on: str, tmp_path: Path) -> None:
    shared = delayed(mark)(tmp_path, 3)
    one, two = dask.persist(delayed(abs)(shared), delayed(str)(shared), on=on)
    assert dask.compute(one, two) == (3, "3")
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_persisted_is_persisted_again(session: mh.Session, on: str) -> None:
    first = da.ones((6, 6), chunks=2).persist(on=on)
    second = (first * 2).persist(on=on)
    del first
    assert second.sum().compute() == 72
    assert second.persist(on=on).sum().compute(on="threads") == 72


def test_an_error_comes_at_once(session: mh.Session, on: str) -> None:
    with pytest.raises(ZeroDivisionError):
        delayed(lambda x: 1 / x)(0).persist(on=on)


def test_names_tell_what_was_persisted_apart(session: mh.Session) -> None:
    """Dask names what it makes of collections by what is in them: futures of ours too, then."""
    frames = [
        dd.from_pandas(pd.DataFrame({"a": [start, start + 1]}), npartitions=1).persist(on="workers")
        for start in (0, 10)
    ]
    sums = [frame.a.sum() for frame in frames]
    assert sums[0]._name != sums[1]._name
    assert sums[0]._name == frames[0].a.sum()._name
    assert dask.compute(*sums) == (1, 21)


@pytest.mark.parametrize("handle", ["future", "ref"])
def test_futures_and_refs_have_names(session: mh.Session, handle: str) -> None:
    make = session.submit if handle == "future" else lambda fn, x: session.put(x)
    one, other = make(abs, 1), make(abs, 1)
    with dask.config.set({"tokenize.ensure-deterministic": True}):
        assert dask.tokenize.tokenize(one) == dask.tokenize.tokenize([one][0])
        assert dask.tokenize.tokenize(one) != dask.tokenize.tokenize(other)
        assert delayed(abs, pure=True)(one).key == delayed(abs, pure=True)(one).key


def test_arrays_stay_with_the_workers() -> None:
    with mh.Session("local", workers=2) as session:
        kept = da.ones((2000, 1000), chunks=(500, 1000)).persist(on="workers")
        assert session.memory().used >= 2000 * 1000 * 8
        total = kept.sum().compute(on="workers")
        assert total == 2_000_000
        block = kept.blocks[0].compute(on="workers")
        assert np.array_equal(block, np.ones((500, 1000)))
        del kept, block
