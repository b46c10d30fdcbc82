"""Computations inside calls inside computations, more of them than there are workers: none waits for ever."""

import threading
from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import pytest
from dask import delayed

import manyhands as mh

pytestmark = pytest.mark.timeout(100)


@pytest.fixture(params=["inline", "threads", "local"])
def session(request: pytest.FixtureRequest) -> Iterator[mh.Session]:
    with mh.Session(request.param, workers=2) as session:
        yield session


def descend(depth: int, on: str) -> int:
    """How many leaves there are below: three at each node, two at each call."""
    if depth == 0:
        return 1
    if depth % 2:
        parts = [delayed(descend)(depth - 1, on) for _ in range(3)]
        total: int = delayed(sum)(parts).compute(on=on)
        return total
    return sum(mh.gather([mh.submit(descend, depth - 1, on) for _ in range(2)]))


@pytest.mark.parametrize("on", ["threads", "workers"])
def test_nodes_and_calls_may_be_nested(session: mh.Session, on: str) -> None:
    assert descend(3, on) == 18


@pytest.mark.parametrize("on", ["threads", "workers"])
def test_more_nodes_compute_than_there_are_workers(session: mh.Session, on: str) -> None:
    def total(stop: int) -> int:
        found: int = db.range(stop, npartitions=3).map(abs).sum().compute()
        return found + int(da.arange(stop, chunks=2).sum().compute())

    assert dask.compute(*(delayed(total)(5) for _ in range(9)), on=on) == (20,) * 9


def test_an_error_deep_inside_comes_as_itself(session: mh.Session) -> None:
    def fail() -> Any:
        return delayed(lambda: 1 / 0)().compute()

    with pytest.raises(ZeroDivisionError):
        delayed(fail)().compute()
    with pytest.raises(ZeroDivisionError):
        session.submit(fail).result()


def test_a_call_may_persist_for_itself(session: mh.Session) -> None:
    def keep() -> tuple[int, int]:
        kept = db.range(6, npartitions=2).map(abs).persist()
        return kept.sum().compute(), kept.max().compute()

    assert session.submit(keep).result() == (15, 5)


def test_threads_of_the_program_compute_at_the_same_time(session: mh.Session) -> None:
    found: list[Any] = []

    def compute(number: int) -> None:
        bag = db.range(20, npartitions=4).map(lambda x: x + number)
        array = da.full((20, 20), number, chunks=5)
        found.append(
            (number, *dask.compute(bag.sum(), array.sum(), on=["threads", "workers"][number % 2]))
        )

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(n, 190 + 20 * n, 400 * n) for n in range(8)]
