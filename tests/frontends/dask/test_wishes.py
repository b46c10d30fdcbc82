"""What users say of how a graph is to be computed: by annotations, and by keywords of `compute`."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from dask import delayed

import manyhands as mh
from manyhands.errors import InvalidArgumentError, UnsupportedError
from manyhands.frontends.dask.wishes import Wishes


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[mh.Session]:
    with mh.Session("local", workers=2, resources={"licence": 1}) as session:
        yield session


@pytest.fixture(params=["threads", "workers"])
def on(request: pytest.FixtureRequest) -> str:
    place: str = request.param
    return place


def fail_first(marks: Path, times: int) -> int:
    """How often it has run, which fails as many times; what is on disk lasts, wherever it runs."""
    count = len(list(marks.iterdir()))
    (marks / str(count)).touch()
    if count < times:
        raise OSError(f"attempt {count}")
    return count


def note_overlap(marks: Path, index: int) -> int:
    """Leave a mark while it runs, and count those of others."""
    mark = marks / str(index)
    mark.touch()
    try:
        return len(list(marks.iterdir()))
    finally:
        mark.unlink()


def test_retries_are_annotations(on: str, tmp_path: Path) -> None:
    with dask.annotate(retries=2):
        unsteady = delayed(fail_first)(tmp_path, 2)
    assert unsteady.compute(on=on) == 2


def test_retries_are_keywords(on: str, tmp_path: Path) -> None:
    assert delayed(fail_first)(tmp_path, 1).compute(on=on, retries=1) == 1


def test_an_annotation_counts_before_a_keyword(on: str, tmp_path: Path) -> None:
    with dask.annotate(retries=0):
        unsteady = delayed(fail_first)(tmp_path, 1)
    with pytest.raises(OSError, match="attempt 0"):
        unsteady.compute(on=on, retries=5)


def test_without_retries_the_first_failure_counts(on: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="attempt 0"):
        delayed(fail_first)(tmp_path, 1).compute(on=on)
    assert len(list(tmp_path.iterdir())) == 1


def test_arrays_may_be_retried(on: str, tmp_path: Path) -> None:
    def fail_once(block: Any) -> Any:
        fail_first(tmp_path, 1)
        return block

    array = da.ones(4, chunks=4).map_blocks(fail_once, dtype=float, meta=np.empty(0))
    assert array.sum().compute(on=on, retries=1) == 4


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 1, 5, 0, 2, 4]])
def test_what_has_priority_runs_first(order: list[int], on: str, tmp_path: Path) -> None:
    def mark(index: int) -> None:
        (tmp_path / f"{len(list(tmp_path.iterdir()))} {index}").touch()

    parts = []
    for index in range(6):
        with dask.annotate(priority=-order.index(index)):
            parts.append(delayed(mark)(index, dask_key_name=f"part-{index}"))
    dask.compute(*parts, on=on, num_workers=1)
    ran = sorted(path.name for path in tmp_path.iterdir())
    assert ran == [f"{place} {index}" for place, index in enumerate(order)]


@pytest.mark.parametrize("how", ["annotation", "keyword"])
def test_named_resources_are_held_and_so_run_on_workers(how: str, tmp_path: Path) -> None:
    with dask.annotate(**({"resources": {"licence": 1}} if how == "annotation" else {})):
        parts = [delayed(note_overlap)(tmp_path, index) for index in range(12)]
    keywords = {"resources": {"licence": 1}} if how == "keyword" else {}
    assert dask.compute(*parts, **keywords) == (1,) * 12


def test_resources_that_nobody_has_are_refused() -> None:
    with pytest.raises(mh.errors.ManyhandsError, match="magic"):
        delayed(abs)(-1).compute(resources={"magic": 1})


@pytest.mark.parametrize("place", [{"workers": ["alice"]}, {"allow_other_workers": True}])
def test_workers_cannot_be_named(place: dict[str, Any], on: str) -> None:
    with dask.annotate(**place):
        lazy = delayed(abs)(-1)
    with pytest.raises(UnsupportedError, match=next(iter(place))):
        lazy.compute(on=on)
    with pytest.raises(UnsupportedError, match=next(iter(place))):
        delayed(abs)(-1).compute(**place)


def test_no_more_than_num_workers_run_at_a_time(on: str, tmp_path: Path) -> None:
    parts = [delayed(note_overlap)(tmp_path, index) for index in range(20)]
    assert dask.compute(*parts, on=on, num_workers=1) == (1,) * 20


def test_as_many_run_at_a_time_as_there_are_workers() -> None:
    both = threading.Barrier(2, timeout=60)
    dask.compute(*(delayed(both.wait)() for _ in range(2)), on="threads")


def test_num_workers_may_be_configured(on: str, tmp_path: Path) -> None:
    parts = [delayed(note_overlap)(tmp_path, index) for index in range(20)]
    with dask.config.set(num_workers=1):
        assert dask.compute(*parts, on=on) == (1,) * 20


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"on": "moon"}, "threads, workers"), ({"num_workers": 0}, "at least one")],
)
def test_what_has_no_meaning_is_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        delayed(abs)(-1).compute(**keywords)


def test_keywords_of_other_schedulers_have_no_effect() -> None:
    """Dask lets anything pass, and its own tests hold schedulers to that."""
    keywords = {"pool": object(), "chunksize": 3, "whatever": True}
    assert delayed(abs)(-1).compute(**keywords) == 1


def test_wishes_are_of_single_keys() -> None:
    wishes = Wishes({"retries": 1}, {"retries": {"a": 3}, "priority": {"a": 2.0, "b": 1}})
    assert wishes.get("a").policy.retries == 3
    assert wishes.get("a").priority == 2
    assert wishes.get("b").policy.retries == wishes.get("c").policy.retries == 1
    assert [wishes.has_own(key) for key in "abc"] == [True, True, False]
