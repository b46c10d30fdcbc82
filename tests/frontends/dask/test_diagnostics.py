"""Dask's progress bar, profilers and cache, and callbacks of users, watch what a session computes."""

from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from dask import delayed
from dask.callbacks import Callback
from dask.diagnostics import CacheProfiler, Profiler, ProgressBar, ResourceProfiler

import manyhands as mh


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[mh.Session]:
    with mh.Session("local", workers=2) as session:
        yield session


@pytest.fixture(params=["threads", "workers"])
def on(request: pytest.FixtureRequest) -> str:
    place: str = request.param
    return place


def make_total() -> Any:
    """Four parts and what puts them together; none of the names are Dask's, so that each is one node."""
    parts = [delayed(abs)(-i, dask_key_name=f"part-{i}") for i in range(4)]
    return delayed(sum)(parts, dask_key_name="total")


KEYS = {"part-0", "part-1", "part-2", "part-3", "total"}


class Diary(Callback):  # type: ignore[misc]
    """Writes down all that it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def _start(self, dsk: Any) -> None:
        self.events.append(("start", set(dsk)))

    def _start_state(self, dsk: Any, state: Any) -> None:
        self.events.append(("state", len(state["ready"]), len(state["waiting"])))

    def _pretask(self, key: Any, dsk: Any, state: Any) -> None:
        assert key in state["running"]
        self.events.append(("before", key))

    def _posttask(self, key: Any, value: Any, dsk: Any, state: Any, worker: Any) -> None:
        assert key in state["finished"]
        self.events.append(("after", key, value))

    def _finish(self, dsk: Any, state: Any, failed: bool) -> None:
        self.events.append(("finish", failed))


def test_callbacks_hear_of_all(on: str) -> None:
    with Diary() as diary:
        assert make_total().compute(on=on) == 6
    kinds = [event[0] for event in diary.events]
    assert kinds[:2] == ["start", "state"] and kinds[-1] == "finish"
    assert diary.events[0][1] >= KEYS
    assert diary.events[1] == ("state", 4, 1)
    assert diary.events[-1] == ("finish", False)
    values = {"part-0": 0, "part-1": 1, "part-2": 2, "part-3": 3, "total": 6}
    assert {e[1]: e[2] for e in diary.events if e[0] == "after"} == values
    for key in KEYS:
        assert diary.events.index(("before", key)) < diary.events.index(("after", key, values[key]))
    assert kinds.count("before") == kinds.count("after") == 5


def test_callbacks_hear_of_a_failure(on: str) -> None:
    with Diary() as diary, pytest.raises(ZeroDivisionError):
        delayed(lambda x: 1 / x)(0).compute(on=on)
    assert diary.events[-1] == ("finish", True)


def test_callbacks_may_be_given_and_are_then_the_only_ones(on: str) -> None:
    given = Diary()
    with Diary() as active:
        make_total().compute(on=on, callbacks=[given])
    assert given.events and not active.events


def test_callbacks_do_not_hear_of_computations_inside_nodes() -> None:
    def compute_inside() -> int:
        inner: int = make_total().compute(on="threads")
        return inner

    with Diary() as diary:
        assert delayed(compute_inside)().compute(on="threads") == 6
    assert [event[0] for event in diary.events].count("start") == 1


def test_callbacks_may_put_values_in_the_place_of_nodes(on: str) -> None:
    class Knows(Callback):  # type: ignore[misc]
        def _start(self, dsk: Any) -> None:
            dsk["part-1"] = 100

    with Knows():
        assert make_total().compute(on=on) == 105


def test_an_error_of_a_callback_ends_the_computation(on: str) -> None:
    class Refuses(Callback):  # type: ignore[misc]
        def _posttask(self, key: Any, *args: Any) -> None:
            raise LookupError(key)

    with Refuses(), pytest.raises(LookupError):
        make_total().compute(on=on)
    assert make_total().compute(on=on) == 6


def test_the_progress_bar_is_drawn(on: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(dt=0.01):
        da.ones((6, 6), chunks=2).sum().compute(on=on)
    assert "100% Completed" in capsys.readouterr().out


def test_the_progress_bar_is_drawn_where_it_failed(
    on: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressBar(dt=0.01), pytest.raises(ZeroDivisionError):
        delayed(lambda x: 1 / x)(0).compute(on=on)
    printed = capsys.readouterr().out
    assert "Completed" in printed and "100%" not in printed


def test_the_profiler_has_a_line_for_each_node(on: str) -> None:
    with Profiler() as profiler:
        make_total().compute(on=on)
    assert {line.key for line in profiler.results} == KEYS
    assert all(line.start_time <= line.end_time for line in profiler.results)


def test_the_resource_profiler_measures(on: str) -> None:
    with ResourceProfiler(dt=0.01) as profiler:
        make_total().compute(on=on)
    assert profiler.results
    assert all(line.mem > 0 for line in profiler.results)


def test_the_cache_profiler_sees_values_come_and_go(on: str) -> None:
    with CacheProfiler(metric=lambda value: value + 1) as profiler:
        make_total().compute(on=on)
    assert {line.key: line.metric for line in profiler.results} == {
        "part-0": 1, "part-1": 2, "part-2": 3, "part-3": 4, "total": 7
    }  # fmt: skip
    freed = {line.key: line.free_time for line in profiler.results}
    assert all(freed[f"part-{i}"] <= freed["total"] for i in range(4))


class Kept(Callback):  # type: ignore[misc]
    """What `dask.cache.Cache` does, whose package is an optional one: keep values, and give them again."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self.ran: list[Any] = []

    def _start(self, dsk: Any) -> None:
        dsk.update({key: self.values[key] for key in self.values.keys() & dsk.keys()})

    def _posttask(self, key: Any, value: Any, dsk: Any, state: Any, worker: Any) -> None:
        self.values[key] = value
        self.ran.append(key)


def test_what_a_cache_has_kept_is_not_computed_again(on: str) -> None:
    array = da.from_array(np.arange(12), chunks=3)
    with Kept() as cache:
        first = (array + 1).sum().compute(on=on, optimize_graph=False)
        count = len(cache.ran)
        again = (array + 1).max().compute(on=on, optimize_graph=False)
    assert (first, again) == (78, 12)
    assert not any("add" in str(key) for key in cache.ran[count:])
    assert any("add" in str(key) for key in cache.ran[:count]) or on == "workers"


def test_the_cache_of_dask_works(on: str) -> None:
    pytest.importorskip("cachey")
    from dask.cache import Cache

    ran: list[int] = []

    def note(x: int) -> int:
        ran.append(x)
        return x

    part = delayed(note)(1, dask_key_name="part")
    with Cache(1e6):
        for _ in range(2):
            assert dask.compute(part, on=on) == (1,)
    assert len(ran) <= 1
