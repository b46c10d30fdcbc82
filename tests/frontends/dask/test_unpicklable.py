"""On workers, values that do not pickle stay where they are made; what needs them is made there too, or here."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TextIO

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pytest
from dask import delayed
from dask.utils import SerializableLock

import manyhands as mh


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[mh.Session]:
    with mh.Session("local", workers=2) as session:
        yield session


def compute(*lazy: Any) -> Any:
    found = dask.compute(*lazy, on="workers")
    return found[0] if len(found) == 1 else found


def count_up(stop: int) -> Iterator[int]:
    yield from range(stop)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book"
    path.write_text("one\ntwo\nthree\n")
    return path


def open_to_read(path: Path) -> TextIO:
    return path.open()


def read_lines(file: TextIO) -> list[str]:
    with file:
        return [*file]


def get_pid(*_: object) -> int:
    return os.getpid()


def test_a_generator_is_used_up_where_it_is_made() -> None:
    assert compute(delayed(sum)(delayed(count_up)(5))) == 10


def test_several_nodes_each_have_the_generator_anew() -> None:
    numbers = delayed(count_up)(5)
    assert compute(delayed(sum)(numbers), delayed(max)(numbers), delayed(list)(numbers)) == (
        10, 4, [0, 1, 2, 3, 4]
    )  # fmt: skip


def test_what_is_made_anew_may_depend_on_others() -> None:
    stop = delayed(len)([0] * 5)
    numbers = delayed(count_up)(stop)
    shifted = delayed(map)(delayed(abs), numbers)
    assert compute(delayed(sum)(shifted), delayed(list)(shifted), stop) == (
        10, [0, 1, 2, 3, 4], 5
    )  # fmt: skip


def read_first(file: TextIO) -> str:
    with file:
        return file.readline()


def test_an_open_file_is_opened_for_each_that_reads_it(book: Path) -> None:
    file = delayed(open_to_read)(book)
    lines = delayed(read_lines)(file)
    found = compute(lines, delayed(len)(lines), delayed(read_first)(file))
    assert found == (["one\n", "two\n", "three\n"], 3, "one\n")


def test_a_lock_among_the_arguments_of_a_node() -> None:
    lock = threading.Lock()

    def hold(x: int, lock: Any) -> int:
        with lock:
            return x + 1

    parts = [delayed(hold)(index, lock) for index in range(5)]
    assert compute(delayed(sum)(parts)) == 15
    assert not lock.locked()


def test_a_function_that_holds_what_does_not_pickle_runs_in_the_caller() -> None:
    lock = threading.Lock()

    def hold(x: int) -> int:
        with lock:
            return get_pid(x)

    assert compute(delayed(hold)(1)) == os.getpid()


def test_what_pickles_still_runs_on_workers_beside_it() -> None:
    numbers = delayed(count_up)(5)
    total, pid = compute(delayed(sum)(numbers), delayed(get_pid)(numbers))
    assert total == 10
    assert pid != os.getpid()


def test_lambdas_and_local_classes_pickle_here() -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    assert compute(delayed(lambda point: point.x)(delayed(Point)(3))) == 3
    assert db.from_sequence([1, 2, 3]).map(lambda x: x**2).sum().compute(on="workers") == 14


def test_a_wanted_value_that_does_not_pickle_is_made_in_the_caller() -> None:
    assert list(compute(delayed(count_up)(3))) == [0, 1, 2]
    assert compute(delayed(lambda: (x for x in "ab"))().send(None)) == "a"


def test_lazy_bags_work(tmp_path: Path) -> None:
    numbers = db.range(100, npartitions=4).map_partitions(lambda part: (x + 1 for x in part))
    assert numbers.sum().compute(on="workers") == 5050
    both = db.zip(numbers, numbers.map(str))
    assert both.count().compute(on="workers") == 100
    (paths,) = dask.compute(
        numbers.map(str).to_textfiles(str(tmp_path), compute=False), on="workers"
    )
    assert len(paths) == 4
    read = db.read_text(str(tmp_path / "*.part")).map(int).sum().compute(on="workers")
    assert read == 5050


def test_an_error_while_it_is_pickled_comes_as_itself() -> None:
    class Stubborn:
        def __reduce__(self) -> str:
            raise LookupError("in __reduce__")

    found = compute(delayed(lambda x: type(x).__name__)(delayed(Stubborn)()))
    assert found == "Stubborn"


@pytest.mark.parametrize("lock", [True, False, threading.Lock()])
@pytest.mark.parametrize("on", ["threads", None])
def test_arrays_are_stored_under_a_lock(lock: Any, on: str | None) -> None:
    array = np.arange(64.0).reshape(8, 8)
    target = np.zeros((8, 8))
    keywords = {} if on is None else {"on": on}
    da.store(da.from_array(array, chunks=2), target, lock=lock, **keywords)
    assert np.array_equal(target, array)


def test_workers_do_not_write_into_a_copy_that_nobody_sees() -> None:
    target = np.zeros((8, 8))
    with pytest.raises(ValueError, match="read-only"):
        da.store(da.ones((8, 8), chunks=4), target, on="workers")
    assert not target.any()


class OnDisk:
    """A target of `store` that each process may write to, as files are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __setitem__(self, index: Any, block: Any) -> None:
        target = np.load(self.path, mmap_mode="r+")
        target[index] = block
        target.flush()


@pytest.mark.parametrize("lock", [False, True])
def test_workers_store_into_what_they_share(tmp_path: Path, lock: bool) -> None:
    array = np.arange(64.0).reshape(8, 8)
    path = tmp_path / "target.npy"
    np.save(path, np.zeros((8, 8)))
    da.store(da.from_array(array, chunks=4), OnDisk(path), lock=lock, on="workers")
    assert np.array_equal(np.load(path), array)


class Notes:
    """What is stored to: it notes whether two processes are at it at the same time, and gives a second one the time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __setitem__(self, place: Any, block: Any) -> None:
        mark = self._folder / f"inside-{place[0].start}-{place[1].start}"
        mark.touch()
        until = monotonic() + 0.1
        while monotonic() < until:
            if len(list(self._folder.glob("inside-*"))) > 1:
                (self._folder / "overlap").touch()
                break
            sleep(0.005)
        mark.unlink()


@pytest.mark.parametrize("is_fused", [True, False])
def test_a_lock_of_dasks_holds_between_workers(
    session: mh.Session, tmp_path: Path, is_fused: bool
) -> None:
    target: Any = Notes(tmp_path)
    stored = da.store(da.ones((16, 16), chunks=4), target, lock=True, compute=False)
    stored.compute(on="workers", optimize_graph=is_fused)
    assert not (tmp_path / "overlap").exists()


def note_and_return(folder: Path, locks: list[Any], index: int) -> Any:
    with locks[0]:
        Notes(folder)[slice(index, 1), slice(0, 1)] = None
    return (item for item in [index])  # does not pickle


def test_nor_do_nodes_overlap_that_run_here_in_the_end(session: mh.Session, tmp_path: Path) -> None:
    lock = SerializableLock()
    made = [delayed(note_and_return)(tmp_path, [lock], index) for index in range(4)]
    assert [list(items) for items in dask.compute(*made, on="workers")] == [[0], [1], [2], [3]]
    assert not (tmp_path / "overlap").exists()
