"""`mh.bag`: the elements in their order, in partitions whose number is measured."""

import builtins
import sys

import dask.bag as db
import numpy as np
import pytest

import manyhands as mh
from manyhands.frontends.dask import bags
from manyhands.frontends.dask.bags import choose_partitions, measure


class Moved:
    """Counts how often it is pickled."""

    times = 0

    def __reduce__(self):
        self.times += 1
        return Moved, ()


@pytest.fixture(params=["local", "threads", "inline"])
def session(request):
    workers = {} if request.param == "inline" else {"workers": 2}
    with mh.Session(request.param, **workers) as session:
        yield session


@pytest.mark.parametrize(
    "make",
    [
        lambda: [3, 1, 2],
        lambda: (3, 1, 2),
        lambda: range(3),
        lambda: (x for x in "abc"),
        lambda: {"a": 1, "b": 2},
        lambda: np.arange(5.0),
        lambda: "text",
        list,
    ],
)
def test_a_bag_has_the_elements_in_order(session, make):
    made = mh.bag(make())
    assert isinstance(made, db.Bag)
    assert made.compute() == list(make())
    assert made.map(lambda x: [x]).compute() == [[x] for x in make()]
    assert made.count().compute() == len(list(make()))


@pytest.mark.parametrize(("partitions", "lengths"), [(1, [7]), (3, [2, 2, 3]), (9, [1] * 7)])
def test_partitions_are_of_about_equal_length(partitions, lengths):
    parts = mh.bag(list(range(7)), partitions=partitions).to_delayed()
    assert [len(part.compute(scheduler="sync")) for part in parts] == lengths


@pytest.mark.parametrize("partitions", [0, -1, 2.0, True, "4"])
def test_a_wrong_number_of_partitions(partitions):
    with pytest.raises(mh.InvalidArgumentError, match="from 1 on"):
        mh.bag([1, 2], partitions=partitions)


def test_what_cannot_be_iterated_over():
    with pytest.raises(mh.InvalidArgumentError, match="not int"):
        mh.bag(5)


def test_an_error_of_the_iterator_is_the_callers():
    def count():
        yield 1
        raise TypeError("of mine")

    with pytest.raises(TypeError, match="of mine"):
        mh.bag(count())


def test_elements_that_are_like_keys_stay_as_they_are():
    first = mh.bag(["a", "b"], partitions=1)
    (key,) = first.__dask_keys__()
    joined = db.concat([first, mh.bag([key, ("x", 1)], partitions=1)])
    assert joined.compute(scheduler="sync") == ["a", "b", key, ("x", 1)]


def test_the_number_follows_workers_cost_and_size():
    assert choose_partitions(1000, workers=2, seconds=0.0, size=0) == 4 * 2
    assert choose_partitions(1000, workers=3, seconds=0.0, size=0) == 4 * 3
    assert choose_partitions(3, workers=2, seconds=0.0, size=0) == 3
    assert choose_partitions(0, workers=2, seconds=0.0, size=0) == 1
    middle = choose_partitions(10**6, workers=2, seconds=0.3, size=10**7)
    assert 4 * 2 < middle < 16 * 2
    assert choose_partitions(10**6, workers=2, seconds=9.0, size=10**7) == 16 * 2
    assert choose_partitions(10**6, workers=2, seconds=9.0, size=100 << 26) == 100


def test_a_session_has_its_say():
    with mh.Session("threads", workers=5):
        assert mh.bag(range(1000)).npartitions == 4 * 5


def test_elements_are_measured_by_some_of_them():
    seconds, size = measure(["x" * 1000] * 5000)
    assert 0 < seconds < 5
    assert size > 5000 * 3  # equal texts are pickled once
    seconds, size = measure([bytes([n % 256]) * 10_000 for n in range(300)])
    assert 300 * 10_000 < size < 300 * 11_000
    _, size = measure([np.ones(100_000)] * 3)
    assert size > 800_000
    assert measure(range(10**9)) == measure([]) == (0.0, 0.0)
    assert measure([lambda: 0] * 9) == (0.0, 0.0)


def test_a_large_element_is_moved_once(monkeypatch):
    times = iter(range(100))
    monkeypatch.setattr(bags, "perf_counter", lambda: next(times))
    elements = [Moved() for _ in range(50)]
    assert measure(elements)[0] == 50
    assert sum(element.times for element in elements) == 1


def test_a_range_is_not_made_into_a_list():
    made = mh.bag(range(10**12))
    assert made.map(lambda x: x).take(2, npartitions=1) == (0, 1)


def test_without_dask(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args):
        if name.startswith("dask"):
            raise ModuleNotFoundError(name=name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(mh.DoorNotInstalledError, match="manyhands\\[dask\\]"):
        mh.bag([1])


def test_importing_the_module_loads_no_dask():
    import subprocess

    code = "import sys, manyhands as mh; mh.bag; sys.exit('dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
