import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed

import manyhands as mh
from manyhands.testing.checks import wait_for

LARGE, MIDDLE, SMALL = 400_000, 10_000, 10
"""Elements of eight bytes: above joblib's limit, above ours for messages, below both."""


def parallel(**options: Any) -> Parallel:
    return Parallel(**{"n_jobs": 2, "backend": "manyhands", **options})


def describe(array: Any) -> tuple[bool, float]:
    return array.flags.writeable, float(array.sum())


@pytest.mark.parametrize("size", [SMALL, MIDDLE])
def test_arrays_up_to_the_limit_are_copies_that_calls_may_write(size: int) -> None:
    def fill(array: Any) -> float:
        array[:] = 2
        return float(array.sum())

    values = np.ones(size)
    assert parallel()(delayed(fill)(values) for _ in range(3)) == [2.0 * size] * 3
    assert values.sum() == size


def test_larger_ones_can_only_be_read() -> None:
    values = np.ones(LARGE)
    found = parallel()(delayed(describe)(values) for _ in range(3))
    assert found == [(False, float(LARGE))] * 3


@pytest.mark.parametrize("options", [{"max_nbytes": None}, {"mmap_mode": None}])
def test_without_a_limit_all_are_copies(options: dict[str, Any]) -> None:
    values = np.ones(LARGE)
    found = parallel(**options)(delayed(describe)(values) for _ in range(2))
    assert found == [(True, float(LARGE))] * 2


def test_the_limit_can_be_lower() -> None:
    values = np.ones(SMALL)
    assert (
        parallel(max_nbytes=8)(delayed(describe)(values) for _ in range(2)) == [(False, 10.0)] * 2
    )


def add_one(array: Any, place: int) -> float:
    array[place] += 1
    return float(array[place])


def test_in_mode_c_each_call_changes_a_copy_of_its_own() -> None:
    values = np.ones(LARGE)
    found = parallel(mmap_mode="c")(delayed(add_one)(values, 0) for _ in range(4))
    assert found == [2.0] * 4
    assert values[0] == 1


@pytest.mark.parametrize("mode", ["r+", "w+"])
def test_in_mode_r_plus_calls_see_what_others_write(mode: str) -> None:
    values = np.ones(LARGE)
    tasks = (delayed(add_one)(values, 0) for _ in range(4))
    assert max(parallel(mmap_mode=mode, pre_dispatch=1)(tasks)) == 5.0
    assert values[0] == 1


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_calls_write_to_a_file_that_is_mapped_for_writing(tmp_path: Path, size: int) -> None:
    file = np.memmap(tmp_path / "out", dtype="f8", mode="w+", shape=(size,))
    parallel()(delayed(add_one)(file, i) for i in range(5))
    assert file[:6].tolist() == [1, 1, 1, 1, 1, 0]
    read = np.memmap(tmp_path / "out", dtype="f8", mode="r", shape=(size,))
    assert parallel()(delayed(describe)(read) for _ in range(2)) == [(False, 5.0)] * 2


def test_an_array_in_many_calls_is_stored_once_and_freed_after_them() -> None:
    values = np.ones(LARGE)

    def measure(array: Any, other: dict[str, Any]) -> tuple[int, int]:
        return array.__array_interface__["data"][0], other["x"].__array_interface__["data"][0]

    with mh.Session(workers=2) as session:
        with joblib.parallel_config("manyhands", session=session):
            tasks = (delayed(measure)(values, {"x": values}) for _ in range(20))
            found = set(Parallel(batch_size=1)(tasks))
        assert {one == other for one, other in found} == {True}
        assert len(found) <= 2  # each worker has it at an address of its own
        wait_for(lambda: not session.memory().values, "nothing is stored any more")


def test_a_change_between_two_calls_is_seen_by_the_second() -> None:
    values = np.ones(LARGE)
    with parallel() as kept:
        assert kept(delayed(describe)(values) for _ in range(2)) == [(False, float(LARGE))] * 2
        values[:] = 2
        assert kept(delayed(describe)(values) for _ in range(2)) == [(False, 2.0 * LARGE)] * 2


def test_parts_made_anew_for_each_call_are_as_they_were_then() -> None:
    values = np.zeros(LARGE)

    def make() -> Any:
        for i in range(6):
            values[:] = i
            yield delayed(describe)(values[:-1])

    found = parallel(pre_dispatch=1, batch_size=1)(make())
    # joblib takes the first task alone, and then as many at a time as there are jobs.
    assert [total / (LARGE - 1) for _, total in found] == [0, 2, 2, 4, 4, 5]


@pytest.mark.parametrize("size", [100, 700])
def test_layout_and_elements_stay(size: int) -> None:
    def look(array: Any) -> tuple[Any, ...]:
        return array.dtype, array.shape, array.flags.f_contiguous, array.tolist()

    for values in (
        np.arange(size * size, dtype=">i4").reshape(size, size),
        np.asfortranarray(np.arange(size * size).reshape(size, size)),
        np.arange(size * size).reshape(size, size)[::2, ::3],
        np.arange(size).astype("M8[D]"),
        np.array(["a", "bc"] * size, dtype=object),
        np.zeros((0, 3)),
        np.array(1.5),
    ):
        order = values.flags.f_contiguous
        (found,) = set(map(str, parallel()(delayed(look)(values) for _ in range(2))))
        assert found == str((values.dtype, values.shape, order, values.tolist()))


def test_arrays_inside_of_objects_are_shared_too() -> None:
    class Holder:
        def __init__(self, values: Any) -> None:
            self.values = values

    def look(holder: Any) -> tuple[bool, float]:
        return describe(holder.values)

    holder = Holder(np.ones(LARGE))
    assert parallel()(delayed(look)(holder) for _ in range(4)) == [(False, float(LARGE))] * 4


def test_what_a_call_gives_can_be_written() -> None:
    for array in parallel()(delayed(np.ones)(size) for size in (SMALL, MIDDLE, LARGE)):
        array[:] = 2
        assert array.sum() == 2 * len(array)


def test_no_folder_is_used(tmp_path: Path) -> None:
    values = np.ones(LARGE)
    parallel(temp_folder=str(tmp_path))(delayed(describe)(values) for _ in range(2))
    assert os.listdir(tmp_path) == []  # noqa: PTH208
