"""Arrays in memory that processes share: who may write them, who sees it, and that they are not copied."""

import gc
import os
import pickle
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.checks import LIMIT, wait_for

LARGE = 100_000
MIB = 1024 * 1024


def write_first(array: Any, value: float = 1) -> float:
    array[0] = value
    return float(array[0])


def change_and_sum(array: Any, value: float) -> float:
    array += value
    return float(array.sum())


def count_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def find_mapping(address: int) -> str:
    """What of /proc/self/maps an address belongs to: rights, file offset, inode, name."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= address < last:
            return line
    raise AssertionError("no such address")


def find_place(array: Any) -> tuple[int, int]:
    """The file behind an array and the offset of its first byte in it: equal for the same memory in any process."""
    address = array.__array_interface__["data"][0]
    line = find_mapping(address)
    first = int(line.partition("-")[0], 16)
    _, _, offset, _, inode, *name = line.split()
    assert any("manyhands" in part for part in name), f"not shared: {line}"
    return int(inode), int(offset, 16) + address - first


def is_shared(array: Any) -> bool:
    return "manyhands" in find_mapping(array.__array_interface__["data"][0])


def count_private_bytes() -> int:
    """Memory that is this process's own: a copy would add to it, and reading shared memory does not."""
    text = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"^Anonymous:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("size", [4, 3000, LARGE])
def test_arguments_are_read_only_whatever_their_size(size: int) -> None:
    with mh.Session("local", workers=1) as session:
        array = np.arange(float(size))
        for argument in (array, session.put(array)):
            error = session.submit(write_first, argument).exception(LIMIT)
            assert isinstance(error, ValueError), "the user's own error"
            assert "read-only" in str(error)
            notes = " ".join(error.__notes__)
            assert "writable=True" in notes and "copy" in notes, notes
        assert array[0] == 0
        assert session.submit(lambda a: write_first(a.copy()), array).result(LIMIT) == 1
        found = session.map(write_first, [array[:3]], on_error="return")
        assert isinstance(found[0], ValueError)


@pytest.mark.parametrize("size", [4, 3000, LARGE])
def test_results_as_arguments_are_read_only(size: int) -> None:
    with mh.Session("local", workers=1) as session:
        submit: Any = session.submit
        made = submit(np.arange, float(size))
        error = submit(write_first, made).exception(LIMIT)
        assert isinstance(error, ValueError) and "writable=True" in " ".join(error.__notes__)
        assert submit(np.sum, made).result(LIMIT) == sum(range(size))


def test_other_errors_get_no_note() -> None:
    def fail(array: Any) -> None:
        raise ValueError("read only what you need")

    with mh.Session("local", workers=1) as session:
        error = session.submit(fail, np.arange(LARGE)).exception(LIMIT)
        assert "writable=True" not in " ".join(getattr(error, "__notes__", ()))


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("size", [8, LARGE])
def test_writable_is_seen_by_all(start_method: str, size: int) -> None:
    with mh.Session("local", workers=2, start_method=start_method) as session:
        source = np.zeros(size)
        ref = session.put(source, writable=True)
        here = ref.get()
        assert here.flags.writeable

        def put_mark(array: Any, x: int) -> int:
            array[x] = x + 1
            return os.getpid()

        pids = {session.submit(put_mark, ref, x).result(LIMIT) for x in range(8)}
        assert os.getpid() not in pids
        assert here[:8].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
        assert session.map(lambda a: float(a[:8].sum()), [ref] * 8) == [36] * 8
        here[0] = 101
        assert session.submit(lambda a: float(a[0]), ref).result(LIMIT) == 101
        assert ref.get()[0] == 101
        assert not source.any(), "what was put was a copy"
        del here


@pytest.mark.parametrize("size", [8, LARGE])
def test_copy_is_private(size: int) -> None:
    with mh.Session("local", workers=2) as session:
        source = np.ones(size)
        ref = session.put(source, copy=True)
        for _ in range(6):
            assert session.submit(change_and_sum, ref, 1).result(LIMIT) == 2 * size
        assert session.map(lambda a: change_and_sum(a, 2), [ref] * 6) == [3 * size] * 6
        first, second = ref.get(), ref.get()
        first[:] = 50
        assert second.sum() == size == source.sum() == ref.get().sum()
        del first, second

        def change_what_it_got_twice(a: Any, b: Any) -> tuple[float, float]:
            a[:] = 9
            return float(a.sum()), float(b.sum())

        found = session.submit(change_what_it_got_twice, ref, ref).result(LIMIT)
        assert found in ((9 * size, size), (9 * size, 9 * size))


def test_copy_copies_only_what_is_changed() -> None:
    with mh.Session("local", workers=1) as session:
        ref = session.put(np.zeros(64 * MIB, "u1"), copy=True)

        def change_one(array: Any) -> tuple[int, int]:
            before = count_private_bytes()
            array[MIB] = 1
            return int(array[MIB]), count_private_bytes() - before

        changed, grown = session.submit(change_one, ref).result(LIMIT)
        assert changed == 1 and grown < MIB


def test_writable_needs_something_to_write() -> None:
    with mh.Session("local", workers=1) as session:
        for value in (3, "text", [1, 2], {}):
            with pytest.raises(mh.InvalidArgumentError, match="writable"):
                session.put(value, writable=True)
        with pytest.raises(mh.InvalidArgumentError):
            session.put(np.zeros(3), writable=True, copy=True)
        error = session.submit(lambda: mh.put(np.zeros(3), writable=True)).exception(LIMIT)
        assert isinstance(error, mh.InvalidArgumentError)
        frame = session.put({"a": np.zeros(3), "b": 1}, writable=True)
        session.submit(lambda d: write_first(d["a"], 7), frame).result(LIMIT)
        assert frame.get()["a"].tolist() == [7, 0, 0]


def test_arrays_born_shared() -> None:
    with mh.Session("local", workers=1):
        for made, expected in (
            (mh.empty((3, 4), "f4"), None),
            (mh.zeros((2, 3), "i8", order="F"), np.zeros((2, 3), "i8", order="F")),
            (mh.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]])),
            (mh.array(np.arange(6).reshape(2, 3).T), np.arange(6).reshape(2, 3).T),
            (mh.array("2020-01-01", "M8[D]"), np.array("2020-01-01", "M8[D]")),
            (mh.array(["a", "bcd"]), np.array(["a", "bcd"])),
            (mh.zeros(5, [("a", "i4"), ("b", "f8")]), np.zeros(5, [("a", "i4"), ("b", "f8")])),
            (mh.empty((0, 3)), np.empty((0, 3))),
            (mh.zeros(()), np.zeros(())),
        ):
            assert type(made) is np.ndarray and made.flags.writeable
            assert made.__array_interface__["data"][0] % 64 == 0 or not made.size
            if made.nbytes:
                assert is_shared(made)
            if expected is not None:
                assert made.dtype == expected.dtype and made.shape == expected.shape
                assert (made == expected).all()
                assert made.flags.f_contiguous == expected.flags.f_contiguous
        for refused in (
            lambda: mh.empty(3, object),
            lambda: mh.array([None]),
            lambda: mh.zeros(2, "O"),
        ):
            with pytest.raises(mh.InvalidArgumentError, match="objects"):
                refused()
        with pytest.raises(ValueError):
            mh.zeros(-1)
        del made


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_what_was_born_shared_is_sent_without_a_copy(start_method: str) -> None:
    with mh.Session("local", workers=2, start_method=start_method) as session:
        array = mh.zeros((1000, 1000))
        place = find_place(array)
        assert session.submit(find_place, array).result(LIMIT) == place
        assert session.submit(find_place, array[10:]).result(LIMIT) == (place[0], place[1] + 80_000)
        assert session.submit(find_place, session.put(array)).result(LIMIT) == place
        assert session.submit(find_place, session.put(array, writable=True)).result(LIMIT) == place
        assert (
            session.submit(lambda d: find_place(d["a"][0]), {"a": [array]}).result(LIMIT) == place
        )
        assert session.map(find_place, [array] * 6) == [place] * 6
        assert session.memory().used < 8_100_000
        private = count_private_bytes()
        total = session.submit(np.sum, array).result(LIMIT)
        assert total == 0 and count_private_bytes() - private < 2 * MIB
        del array


def test_a_view_is_live() -> None:
    """A call sees what the program has written up to then, and the program what calls write."""
    with mh.Session("local", workers=1) as session:
        array = mh.zeros(LARGE)
        for x in range(5):
            array[:] = x
            assert session.submit(np.sum, array).result(LIMIT) == x * LARGE
            assert session.submit(np.sum, array[::2]).result(LIMIT) == x * LARGE / 2
        ref = session.put(array, writable=True)
        session.submit(write_first, ref, 1000).result(LIMIT)
        assert array[0] == 1000 == ref.get()[0]
        error = session.submit(write_first, array, 1).exception(LIMIT)
        assert isinstance(error, ValueError), "by itself it is read-only in calls"
        assert array[0] == 1000
        del array
        gc.collect()
        assert session.submit(np.sum, ref).result(LIMIT) == 1000 + 4 * (LARGE - 1)


def test_a_result_that_was_born_shared_is_not_copied() -> None:
    with mh.Session("local", workers=1) as session:

        def make(size: int) -> Any:
            array = mh.empty(size)
            array[:] = 5
            return array, find_place(array)

        array, there = session.submit(make, LARGE).result(LIMIT)
        assert find_place(array) == there
        assert array.flags.writeable and array.sum() == 5 * LARGE
        array += 1
        assert session.submit(np.sum, array).result(LIMIT) == 6 * LARGE
        assert session.memory().used < 2 * (8 * LARGE + 8192) + 4096
        del array
        gc.collect()
        wait_for(lambda: not session.memory().used, "it is freed", 10)


def test_a_result_feeds_another_worker_without_a_copy() -> None:
    with mh.Session("local", workers=2) as session:
        submit: Any = session.submit

        def make(size: int) -> Any:
            return mh.array(np.full(size, 3.0))

        made = submit(make, LARGE)
        places = session.map(find_place, [made] * 8, batch=1)
        assert len(set(places)) == 1
        assert find_place(made.result(LIMIT))[1] % 4096 == places[0][1] % 4096


def test_parts_of_one_array_are_one_value() -> None:
    with mh.Session("local", workers=2) as session:
        array = mh.array(np.arange(float(LARGE)).reshape(100, -1))
        totals = session.map(np.sum, array)
        assert np.allclose(totals, array.sum(axis=1))
        assert session.memory().used <= 8 * LARGE + 65536
        del array


def test_a_stencil() -> None:
    """Every call reads the old grid and writes its rows of the new one; then they change places."""

    def smooth(source: Any, target: Any, first: int, last: int) -> None:
        target[first:last] = (source[first - 1 : last - 1] + source[first + 1 : last + 1]) / 2

    rows, columns, rounds = 200, 100, 20
    expected = np.zeros((rows, columns))
    expected[rows // 2] = 1
    with mh.Session("local", workers=2) as session:
        old, new = mh.array(expected), mh.array(expected)
        refs = [session.put(old, writable=True), session.put(new, writable=True)]
        edges = [1, 50, 100, 150, rows - 1]
        used = session.memory().used
        for _ in range(rounds):
            other = expected.copy()
            smooth(expected, other, 1, rows - 1)
            expected = other
            parts = pairwise(edges)
            mh.gather([session.submit(smooth, *refs, *part) for part in parts], timeout=LIMIT)
            refs.reverse()
        assert np.array_equal(refs[0].get(), expected)
        assert session.memory().used == used
        assert np.array_equal(new if rounds % 2 else old, expected)
        del old, new


def test_results_are_writable_and_independent() -> None:
    with mh.Session("local", workers=2) as session:
        for size in (10, 3000, LARGE):
            first = session.submit(np.ones, size)
            one, two = first.result(LIMIT), session.submit(np.ones, size).result(LIMIT)
            one += 5
            assert two.sum() == size
            two[:] = 0
            assert one.sum() == 6 * size
        results = session.map(np.ones, [LARGE] * 10)
        for x, array in enumerate(results):
            np.multiply(array, x, out=array)
        assert [array.sum() for array in results] == [x * LARGE for x in range(10)]
        assert session.map(np.sum, results) == [x * LARGE for x in range(10)]
        del array, results, one, two, first


def test_one_array_twice_in_a_result() -> None:
    """What is one array in a worker is one here, and what is two stays two."""
    with mh.Session("local", workers=1) as session:

        def make() -> Any:
            array = np.ones(LARGE)
            return array, array, array[:50_000], array.copy()

        one, same, part, other = session.submit(make).result(LIMIT)
        assert one is same
        one += 1
        assert other.sum() == LARGE
        other += 10
        assert one.sum() == 2 * LARGE
        assert part.sum() in (50_000, 100_000)


@pytest.mark.parametrize("size", [400, LARGE])
def test_a_returned_argument_is_the_callers_own(size: int) -> None:
    """To write into a result does not change what it was made from, here or in the store."""
    source = np.ones(size)
    with mh.Session("local", workers=1) as session:
        ref = session.put(source)
        for argument in (source, ref):
            for fn in (work.echo, lambda a: a[::-1], lambda a: a[100:]):
                found = session.submit(fn, argument).result(LIMIT)
                assert found.flags.writeable
                found += 7
                assert source.sum() == size
                assert session.submit(np.sum, argument).result(LIMIT) == size
        shared = mh.array(source)
        found = session.submit(work.echo, shared).result(LIMIT)
        found += 7
        assert found.sum() == 8 * size
        assert session.submit(np.sum, ref).result(LIMIT) == size
        del shared, found


def test_a_result_that_others_use_may_be_changed_here() -> None:
    with mh.Session("local", workers=2) as session:
        submit: Any = session.submit
        for _ in range(3):
            made = submit(np.ones, LARGE)
            before = submit(np.sum, made)
            mine = made.result(LIMIT)
            mine += 1  # the input of calls that may run now, or not yet have begun
            after = [submit(np.sum, made) for _ in range(4)]
            assert before.result(LIMIT) == LARGE
            assert mine.sum() == 2 * LARGE
            own = submit(np.sum, mine)
            assert own.result(LIMIT) == 2 * LARGE
            # A future is an input as its value is: as it came, or as the program has made it.
            assert {future.result(LIMIT) for future in after} in ({LARGE}, {2 * LARGE})


def test_a_kept_result_is_not_overwritten_by_later_ones() -> None:
    with mh.Session("local", workers=1) as session:
        kept = []
        for x in range(60):
            array = session.submit(np.full, LARGE, float(x)).result(LIMIT)
            array += 0.5
            if x % 3 == 0:
                kept.append(array)
        assert [array.sum() for array in kept] == [(x + 0.5) * LARGE for x in range(0, 60, 3)]
        assert all(array.std() == 0 for array in kept)


def test_hundreds_of_results_at_once() -> None:
    """More than are mapped: all are there, all can be written, and descriptors stay few."""
    with mh.Session("local", workers=2) as session:
        submit: Any = session.submit
        made = [submit(np.full, 5000, float(x)) for x in range(600)]
        sums = [submit(np.sum, future) for future in made]  # so that none is handed over
        assert [future.result(LIMIT) for future in sums] == [5000.0 * x for x in range(600)]
        before = count_descriptors()
        arrays = [future.result(LIMIT) for future in made]
        assert count_descriptors() - before <= 260
        for array in arrays:
            np.add(array, 1, out=array)
        assert [array.sum() for array in arrays] == [5000.0 * (x + 1) for x in range(600)]
        again = [submit(np.sum, future) for future in made]
        assert len(mh.gather(again, timeout=LIMIT)) == 600


def test_a_changed_array_is_sent_as_it_is() -> None:
    array = np.zeros(LARGE)
    small = np.zeros(10)
    with mh.Session("local", workers=2) as session:
        for x in range(50):
            array[x * 7] += 1
            small[0] = x
            assert session.submit(np.sum, array).result(LIMIT) == x + 1
            assert session.submit(np.sum, small).result(LIMIT) == x
        futures = []
        for x in range(50):  # changed while earlier calls wait
            array[:] = x
            futures.append(session.submit(np.sum, array))
        assert mh.gather(futures, timeout=LIMIT) == [x * LARGE for x in range(50)]
        view = array[: LARGE // 2].view()
        for x in range(20):
            array[0] = x - array[1 : LARGE // 2].sum()
            assert session.submit(np.sum, view).result(LIMIT) == x


def test_a_changed_array_in_a_map() -> None:
    array = np.zeros(LARGE)

    def give_changing() -> Any:
        for x in range(40):
            array[-1] = x
            yield array

    with mh.Session("local", workers=2) as session:
        assert session.map(np.sum, give_changing(), batch=1) == list(range(40))
        assert list(session.imap(np.max, give_changing(), batch=1)) == list(range(40))
        for x in range(20):
            array[:] = x
            assert session.map(lambda i: float(array[i]), range(4)) == [x] * 4


def test_a_changed_bytearray_is_sent_as_it_is() -> None:
    content = bytearray(LARGE)
    view = memoryview(content)
    with mh.Session("local", workers=1) as session:
        for x in range(20):
            content[x] = 1
            assert session.submit(sum, content).result(LIMIT) == x + 1
            assert session.submit(sum, view).result(LIMIT) == x + 1
        view.release()


def test_memory_used_again_is_not_taken_for_what_was_there() -> None:
    """Arrays come and go at the same address."""
    with mh.Session("local", workers=1) as session:
        for x in range(60):
            assert session.submit(np.sum, np.full(LARGE, float(x))).result(LIMIT) == x * LARGE
            assert session.submit(len, bytes([x]) * LARGE).result(LIMIT) == LARGE
            found = session.submit(lambda b: b[0] + b[-1], bytes([x]) * LARGE).result(LIMIT)
            assert found == 2 * x


def test_the_same_array_is_stored_once() -> None:
    array = np.arange(float(10 * LARGE))
    with mh.Session("local", workers=2) as session:
        session.submit(np.sum, array).result(LIMIT)
        used = session.memory().used
        assert array.nbytes <= used <= array.nbytes + 65536
        session.map(np.sum, [array] * 20)
        futures = [session.submit(np.dot, array, array) for _ in range(20)]
        futures += [session.submit(lambda d: d["a"][0].sum(), {"a": [array]}) for _ in range(20)]
        most = session.memory().used
        mh.gather(futures, timeout=LIMIT)
        assert most <= used + 65536
        # Kept in case that it is sent again; and not for longer than the array lives.
        (value,) = session.memory().values
        assert any("again" in holder for holder in value.holders), value
        del array, futures
        gc.collect()
        wait_for(lambda: not session.memory().used, "it is freed", 0.5)


def test_a_copy_that_is_kept_goes_when_the_session_idles() -> None:
    array = np.arange(float(LARGE))
    with mh.Session("local", workers=1) as session:
        session.submit(np.sum, array).result(LIMIT)
        assert session.memory().used
        wait_for(lambda: not session.memory().used, "it is freed", 10)
        assert session.submit(np.sum, array).result(LIMIT) == array.sum()


def test_workers_see_one_memory() -> None:
    """All workers and calls read the same pages, whatever way the array went."""
    array = np.arange(float(10 * LARGE))
    with mh.Session("local", workers=2) as session:
        ref = session.put(array)
        places = set(session.map(find_place, [ref] * 20, batch=1))
        places.add(find_place(ref.get()))
        places.add(
            session.submit(lambda c: find_place(c.value.get()), work.Carrier(ref)).result(LIMIT)
        )
        assert len(places) == 1

        def measure_reading(a: Any) -> int:
            before = count_private_bytes()
            a.sum()
            return count_private_bytes() - before

        assert max(session.map(measure_reading, [ref] * 6, batch=1)) < 2 * MIB


class Traced:
    """Notes where it was unpickled, in itself and in a file."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.content = np.ones(LARGE)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        work.Mark(self.folder).add(os.getpid())


def test_results_that_feed_calls_are_not_unpickled_here(tmp_path: Path) -> None:
    here = work.Mark(tmp_path)
    folder = str(tmp_path)
    with mh.Session("local", workers=2) as session:
        submit: Any = session.submit
        made = [submit(Traced, folder) for _ in range(5)]
        sums = [submit(lambda t: float(t.content.sum()), future) for future in made]
        nested = submit(
            lambda ts: sum(float(t["x"].content.sum()) for t in ts), [{"x": f} for f in made]
        )
        assert mh.gather(sums, timeout=LIMIT) == [LARGE] * 5
        assert nested.result(LIMIT) == 5 * LARGE
        assert here.count(os.getpid()) == 0
        assert made[0].result(LIMIT).content.sum() == LARGE
        assert here.count(os.getpid()) == 1
        ref = session.put(made[0].result(LIMIT))
        assert submit(lambda t: float(t.content.sum()), ref).result(LIMIT) == LARGE
        assert here.count(os.getpid()) == 1


def test_pickles_of_shared_arrays_are_ordinary() -> None:
    """Outside of calls they are arrays like any other."""
    with mh.Session("local", workers=1) as session:
        array = mh.array(np.arange(LARGE))
        found = pickle.loads(pickle.dumps(array))
        assert np.array_equal(found, array) and not is_shared(found)
        result = session.submit(np.arange, LARGE).result(LIMIT)
    assert result.sum() == array.sum() == found.sum()
    array += 1
    result += 1
    assert np.array_equal(result, array), "both live on after the session"
