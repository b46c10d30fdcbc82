"""Dask's collections, computed by a session."""

import gc
import os
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from manyhands.testing.checks import wait_for

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


def add(*numbers: Any) -> Any:
    return sum(numbers)


def test_calls_take_collections(session: mh.Session) -> None:
    bag = db.range(5, npartitions=2)
    assert session.submit(add, da.arange(4, chunks=2).sum(), bag.sum(), 1).result() == 17
    assert session.submit(add, *[delayed(abs)(-4)] * 2).result() == 8
    assert session.submit(sum, [delayed(abs)(-4), mh.submit(abs, -1)]).result() == 5
    stream = mh.task(iter).stream(delayed(list)("ab"))
    assert list(stream) == ["a", "b"]


def test_a_collection_that_fails_fails_the_call(session: mh.Session) -> None:
    with pytest.raises(mh.DependencyError) as caught:
        session.submit(abs, delayed(int)("x")).result()
    assert isinstance(caught.value.__cause__, ValueError)


def test_delayed_functions_take_futures_and_refs(session: mh.Session) -> None:
    future, ref = session.submit(abs, -2), mh.put(np.arange(3))
    total = delayed(add)(future, delayed(len)(ref), delayed(sum)([future, {"a": 1}["a"]]))
    assert total.compute() == 8
    assert total.compute(on="threads") == 8
    nested = delayed(lambda table: table["x"][0])({"x": [future]})
    assert nested.compute() == 2
    assert delayed(future).compute() == 2


def test_what_workers_made_stays_with_them(session: mh.Session) -> None:
    bag = db.range(6, npartitions=3).map(lambda x: x * x).persist()
    parts = list(dict(bag.__dask_graph__()).values())
    assert len(parts) == 3 and all(isinstance(part.value, mh.Future) for part in parts)
    assert bag.sum().compute() == 55
    assert bag.map(str).compute() == ["0", "1", "4", "9", "16", "25"]
    array = da.ones((4, 4), chunks=2).persist()
    assert all(isinstance(part, np.ndarray) for part in dict(array.__dask_graph__()).values())
    kept = da.ones((4, 4), chunks=2).persist(on="workers")
    assert (kept + 1).sum().compute() == 32


def compute_inside() -> tuple[int, int]:
    array = da.ones((10, 10), chunks=3).sum().compute()
    return int(array), db.range(5, npartitions=2).sum().compute()


def test_calls_and_nodes_compute_collections(session: mh.Session) -> None:
    calls = [session.submit(compute_inside) for _ in range(4)]
    assert mh.gather(calls) == [(100, 10)] * 4
    nodes = [delayed(compute_inside)() for _ in range(4)]
    assert dask.compute(*nodes) == ((100, 10),) * 4
    assert dask.compute(*nodes, on="threads") == ((100, 10),) * 4


def test_the_configuration_still_travels() -> None:
    """Dask sends it to processes as JSON, where ours is the empty text, and pickles and refreshes it."""
    assert dask.config.get("scheduler") is mh.dask_scheduler
    assert pickle.loads(pickle.dumps(mh.dask_scheduler)) is mh.dask_scheduler
    sent = dask.config.deserialize(dask.config.serialize(dask.config.global_config))
    assert sent["scheduler"] == ""
    with dask.config.set(scheduler="sync"):
        dask.config.refresh()
    assert dask.config.get("scheduler") is mh.dask_scheduler


@pytest.mark.parametrize("on", ["threads", "workers"])
def test_a_session_that_is_closed_meanwhile_ends_the_wait(on: str) -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()

    def block(_: int) -> None:
        begun.release()
        may_end.wait(60)

    session = mh.Session("threads", workers=2)
    errors: list[BaseException] = []

    def compute() -> None:
        lazy = [delayed(block)(index) for index in range(4)]
        with session:
            try:
                dask.compute(*lazy, scheduler=mh.dask_scheduler, on=on)
            except mh.SessionClosedError as error:
                errors.append(error)

    thread = threading.Thread(target=compute)
    thread.start()
    assert begun.acquire(timeout=60) and begun.acquire(timeout=60)
    closer = threading.Thread(target=session.close, kwargs={"grace": 0})
    closer.start()
    wait_for(lambda: session._is_closed, "the session closes")
    may_end.set()
    closer.join(60)
    thread.join(60)
    assert not thread.is_alive()
    assert len(errors) == 1


def compute_aside(_: int) -> int:
    with ThreadPoolExecutor(1) as pool:
        return int(pool.submit(da.arange(10, chunks=5).sum().compute).result())


def test_a_call_may_compute_in_a_thread_of_its_own() -> None:
    """All workers may be busy with such calls."""
    with mh.Session("threads", workers=2) as session:
        assert session.map(compute_aside, range(4)) == [45] * 4


def finalize(_: int) -> int:
    return os.getpid()


def test_only_dasks_own_finalizers_run_in_the_caller() -> None:
    with mh.Session("local", workers=2):
        assert os.getpid() not in dask.compute(*[delayed(finalize)(n) for n in range(4)])


def test_an_error_keeps_no_value_alive(session: mh.Session) -> None:
    class Chunk:
        pass

    chunks: list[weakref.ref[Chunk]] = []

    def make() -> Chunk:
        chunk = Chunk()
        chunks.append(weakref.ref(chunk))
        return chunk

    def fail(chunk: Chunk) -> None:
        raise ValueError

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ValueError):
            delayed(fail)(delayed(make)()).compute(on="threads")
        wait_for(lambda: chunks[0]() is None, "the thread that failed lets go")
    finally:
        gc.enable()
