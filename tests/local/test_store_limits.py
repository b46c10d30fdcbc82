"""Limits of the store: what goes to disk and when, what is refused, and what is given back."""

import gc
import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.checks import LIMIT, wait_for
from tests.local.processes import is_alive, list_family, start_script

MIB = 1024 * 1024


def make(value: int, size: int = MIB) -> Any:
    return np.full(size, value % 256, "u1")


@contextmanager
def expect_warning() -> Iterator[None]:
    """The one that tells that values go to disk; and no other."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    told = [w for w in caught if issubclass(w.category, RuntimeWarning)]
    assert len(told) == 1, [str(w.message) for w in caught]
    message = str(told[0].message)
    assert "memory" in message and "store=" in message and "go to" in message


def find_places(session: mh.Session) -> dict[int, str]:
    return {value.id: value.place for value in session.memory().values}


def count_memory_bytes(pids: list[int]) -> int:
    """What processes take of memory, each page counted once."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += sum(map(int, re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE))) * 1024
    return total


def measure_heaps() -> int:
    """Memory behind the heaps that this process knows, whether values are in it or not."""
    sizes = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if "memfd:manyhands" in str(entry.readlink()):
                status = entry.stat()
                sizes[status.st_ino] = status.st_blocks * 512
        except FileNotFoundError:
            continue
    return sum(sizes.values())


# The disk.


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    with (
        expect_warning(),
        mh.Session(
            "local", workers=1, store=4 * MIB, spill=100 * MIB, spill_folder=tmp_path
        ) as session,
    ):
        refs = [session.put(make(x)) for x in range(4)]
        assert [ref.place for ref in refs] == ["memory"] * 4
        assert session.submit(np.sum, refs[0]).result(LIMIT) == 0  # the oldest is used again
        wait_for(
            lambda: not any("worker" in h for v in session.memory().values for h in v.holders),
            "the worker has let go",
        )
        refs.append(session.put(make(4)))
        assert [ref.place for ref in refs] == ["memory", "disk", "memory", "memory", "memory"]
        refs.append(session.put(make(5)))
        assert [ref.place for ref in refs] == [
            "memory",
            "disk",
            "disk",
            "memory",
            "memory",
            "memory",
        ]
        report = session.memory()
        assert (report.used, report.limit) == (4 * MIB, 4 * MIB)
        assert (report.disk_used, report.disk_limit) == (2 * MIB, 100 * MIB)
        assert report.spilled == 2 * MIB
        assert "disk" in repr(refs[1]) and "disk" in str(report)
        for x, ref in enumerate(refs):
            assert np.array_equal(ref.get(), make(x))
        assert session.map(np.max, refs) == list(range(6))
        assert list(tmp_path.iterdir()) == [], "the file has no name"
        del refs, ref
        gc.collect()
        wait_for(lambda: not session.memory().values, "all is freed")
        assert session.memory().disk_used == 0
        # And its room is used again.
        again = [session.put(make(x)) for x in range(12)]
        assert session.map(np.max, again) == list(range(12))


def test_values_in_use_stay(tmp_path: Path) -> None:
    """An array that the program reads, and what a call is at, is not moved away below them."""
    gate = work.Gate(tmp_path)
    with (
        expect_warning(),
        mh.Session("local", workers=1, store=4 * MIB, spill=100 * MIB) as session,
    ):
        mine, theirs = session.put(make(1)), session.put(make(2))
        array = mine.get()

        def read(values: Any) -> tuple[int, int]:
            first = int(values.sum())
            gate.enter()
            return first, int(values.sum())

        call = session.submit(read, theirs)
        wait_for(gate.count_entered, "the call reads")
        others = [session.put(make(x)) for x in range(3, 9)]
        assert (mine.place, theirs.place) == ("memory", "memory")
        assert array.min() == array.max() == 1
        gate.open()
        assert call.result(LIMIT) == (2 * MIB, 2 * MIB)
        assert [int(ref.get()[0]) for ref in others] == list(range(3, 9))
        del array


def test_values_on_disk_are_mapped_and_read_by_all(tmp_path: Path) -> None:
    def find_file(array: Any) -> str:
        address = array.__array_interface__["data"][0]
        for line in Path("/proc/self/maps").read_text().splitlines():
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if first <= address < last:
                return line.split(maxsplit=5)[5]
        raise AssertionError("no such address")

    with (
        expect_warning(),
        mh.Session(
            "local", workers=2, store=2 * MIB, spill=100 * MIB, spill_folder=tmp_path
        ) as session,
    ):
        refs = [session.put(make(x)) for x in range(10)]
        spilled = [ref for ref in refs if ref.place == "disk"]
        assert len(spilled) >= 8
        for found in session.map(find_file, spilled):
            assert found.startswith(str(tmp_path))
        assert find_file(spilled[0].get()).startswith(str(tmp_path))
        writable = session.put(make(100), writable=True)
        pressure = [session.put(make(x)) for x in range(4)]
        session.submit(lambda a: a.fill(101), writable).result(LIMIT)
        assert set(writable.get().tolist()) == {101}
        assert session.map(np.max, [writable] * 4) == [101] * 4
        private = session.put(make(50), copy=True)
        pressure += [session.put(make(x)) for x in range(4)]
        assert session.submit(lambda a: int((a + 1).max()), private).result(LIMIT) == 51
        session.submit(lambda a: a.fill(7), private).result(LIMIT)
        assert private.get().max() == 50
        assert mh.get(pressure)[3].max() == 3


def test_more_than_fits_in_memory_at_once() -> None:
    """One value that is larger than all memory goes to disk by itself."""
    with (
        expect_warning(),
        mh.Session("local", workers=1, store=MIB, spill=100 * MIB) as session,
    ):
        big = np.arange(1_000_000)
        ref = session.put(big)
        assert ref.place == "disk"
        assert session.submit(np.sum, ref).result(LIMIT) == big.sum()
        assert session.submit(np.sum, big).result(LIMIT) == big.sum()
        assert np.array_equal(session.submit(np.arange, 1_000_000).result(LIMIT), big)
        assert session.map(np.sum, [big] * 3) == [big.sum()] * 3


def test_limits_hold_under_many_results() -> None:
    limit = 8 * MIB
    with (
        expect_warning(),
        mh.Session("local", workers=2, store=limit, spill=400 * MIB) as session,
    ):
        submit: Any = session.submit
        made = [submit(make, x) for x in range(60)]
        most = 0

        def observe(future: Any) -> bool:
            nonlocal most
            most = max(most, session.memory().used)
            return bool(future.done())

        for future in made:
            wait_for(lambda future=future: observe(future), "it has ended")
        # Each worker may be one result ahead of what the parent has heard of.
        assert most <= limit + 4 * MIB
        wait_for(lambda: session.memory().used <= limit, "the limit holds")
        assert measure_heaps() <= limit + 4 * MIB
        assert session.memory().spilled >= 40 * MIB
        sums = [submit(np.max, future) for future in made]
        assert mh.gather(sums, timeout=LIMIT) == list(range(60))
        arrays = [future.result(LIMIT) for future in made]
        for array in arrays:
            array[0] = 255
        assert [int(array[1]) for array in arrays] == list(range(60))
        assert mh.gather([submit(np.max, array) for array in arrays], timeout=LIMIT) == [255] * 60
        del arrays, array, made, future, sums
        gc.collect()
        wait_for(lambda: not session.memory().values, "all is freed")


# Nothing left.


def test_a_full_store_refuses() -> None:
    with mh.Session("local", workers=1, store=4 * MIB, spill=0) as session:
        submit: Any = session.submit
        kept = [session.put(make(x, MIB - 100)) for x in range(3)]
        with pytest.raises(mh.StoreFullError) as caught:
            session.put(make(9, 2 * MIB))
        message = str(caught.value)
        assert isinstance(caught.value, MemoryError)
        assert "2.0 MiB more" in message and "4.0 MiB" in message, message
        assert message.count("ndarray uint8") >= 3 and "a ref of this program" in message
        assert "store=" in message and "spill=" in message
        error = submit(np.sum, make(9, 2 * MIB)).exception(LIMIT)
        assert isinstance(error, mh.StoreFullError), error
        error = submit(make, 9, 2 * MIB).exception(LIMIT)
        assert isinstance(error, mh.StoreFullError), error
        assert "2.0 MiB" in str(error)
        found = session.map(make, [1, 2, 3], [100, 2 * MIB, 100], on_error="return")
        assert [type(one) for one in found] == [np.ndarray, mh.StoreFullError, np.ndarray]
        with pytest.raises(mh.StoreFullError):
            mh.empty(2 * MIB, "u1")
        # All is as it was, and there is room again once something goes.
        assert session.map(np.max, kept) == [0, 1, 2]
        del kept[1:]
        gc.collect()
        assert session.put(make(9, 2 * MIB)).get().max() == 9
        assert submit(np.sum, make(1, 2 * MIB)).result(LIMIT) == 2 * MIB
        assert submit(make, 9, 2 * MIB).result(LIMIT).max() == 9


def test_a_full_disk_limit_refuses() -> None:
    with (
        expect_warning(),
        mh.Session("local", workers=1, store=2 * MIB, spill=3 * MIB) as session,
    ):
        kept = [session.put(make(x)) for x in range(5)]
        with pytest.raises(mh.StoreFullError, match=r"on disk .* 3\.0 MiB of 3\.0 MiB"):
            session.put(make(5))
        assert [int(ref.get()[0]) for ref in kept] == list(range(5))
        assert session.map(np.max, kept) == list(range(5))
        kept.pop()
        gc.collect()
        wait_for(lambda: len(session.memory().values) == 4, "one is freed")
        assert session.put(make(6)).get().max() == 6


def test_a_result_waits_for_what_is_in_its_way(tmp_path: Path) -> None:
    """A worker asks for room, and gets it when others go to disk."""
    with (
        expect_warning(),
        mh.Session("local", workers=2, store=3 * MIB, spill=100 * MIB) as session,
    ):
        kept = [session.put(make(x)) for x in range(3)]
        for x in range(10):
            assert session.submit(make, x, 2 * MIB).result(LIMIT).max() == x
        assert [int(ref.get()[0]) for ref in kept] == list(range(3))


# The folder.


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(mh.InvalidArgumentError, match="no such folder"):
        mh.Session("local", workers=1, spill_folder=tmp_path / "missing")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(mh.InvalidArgumentError):
        mh.Session("local", workers=1, spill_folder=file)
    gone = tmp_path / "gone"
    gone.mkdir()
    with mh.Session(
        "local", workers=1, store=2 * MIB, spill=100 * MIB, spill_folder=gone
    ) as session:
        gone.rmdir()
        kept = [session.put(make(1)), session.put(make(2))]
        with pytest.raises(mh.StoreFullError, match="gone"):
            session.put(make(3))
        assert session.map(np.max, kept) == [1, 2]
        assert isinstance(session.submit(make, 3).exception(LIMIT), mh.StoreFullError)


@contextmanager
def mount(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory of its own; as root, as which these tests run where they are not refused it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        gc.collect()
        subprocess.run(["umount", folder], check=True)


def fill_up(session: mh.Session, size: int) -> list[Any]:
    """Put values until no more fit; refs of those that did."""
    kept: list[Any] = []
    with pytest.raises(mh.StoreFullError):
        while len(kept) < 100:
            kept.append(session.put(make(len(kept), size)))
    return kept


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        mount(tmp_path / "readonly", "size=2m,ro") as folder,
        mh.Session(
            "local", workers=1, store=2 * MIB, spill=100 * MIB, spill_folder=folder
        ) as session,
    ):
        kept = [session.put(make(1)), session.put(make(2))]
        with pytest.raises(mh.StoreFullError):
            session.put(make(3))
        assert session.map(np.max, kept) == [1, 2]


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """It has less room than the session was promised: what cannot be moved stays, and the rest is refused."""
    with mount(tmp_path / "small", "size=2m") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with mh.Session(
            "local", workers=1, store=4 * MIB, spill=100 * MIB, spill_folder=folder
        ) as session:
            kept = fill_up(session, MIB - 5000)
            assert 4 <= len(kept) <= 6
            assert session.map(np.max, kept) == list(range(len(kept)))
            assert [int(ref.get()[0]) for ref in kept] == list(range(len(kept)))
            assert isinstance(session.submit(make, 3, 3 * MIB).exception(LIMIT), mh.StoreFullError)
            with pytest.raises(mh.StoreFullError):
                session.put(make(1, 3 * MIB))
            del kept
            gc.collect()
            wait_for(lambda: not session.memory().values, "all is freed")
            assert session.submit(make, 3, 3 * MIB).result(LIMIT).max() == 3


def test_a_disk_with_default_limits_is_not_filled(tmp_path: Path) -> None:
    with mount(tmp_path / "small", "size=4m") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with mh.Session("local", workers=1, store=2 * MIB, spill_folder=folder) as session:
            kept = fill_up(session, MIB)
            assert len(kept) == 5
            assert session.memory().disk_limit < 4 * MIB
            assert session.map(np.max, kept) == list(range(5))


def test_nothing_is_left_on_disk_by_a_program_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "spill"
    folder.mkdir()
    code = f"""
        import warnings; warnings.simplefilter("ignore")
        import numpy as np, manyhands as mh
        session = mh.Session("local", workers=2, store="2MiB", spill="500MiB", spill_folder={str(folder)!r})
        refs = [session.put(np.full(1 << 20, x, "u1")) for x in range(40)]
        assert session.map(np.max, refs) == list(range(40))
        assert session.memory().disk_used > 30 << 20
        print("full", flush=True)
        input()
    """
    before = os.statvfs(folder).f_bavail
    with start_script(tmp_path, code) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "full\n"
        family = list_family(program.pid)
        assert list(folder.iterdir()) == []
        program.kill()
        program.wait()
        wait_for(lambda: not any(map(is_alive, family)), "all have ended")
    assert list(folder.iterdir()) == []
    after = os.statvfs(folder)
    assert (before - after.f_bavail) * after.f_frsize < 200 * MIB, "their room is free again"


# Giving back.


def test_memory_goes_back_when_the_session_idles() -> None:
    with mh.Session("local", workers=2) as session:
        array = np.ones(2 * MIB)
        session.map(np.sum, [array] * 4)
        assert [one.sum() for one in session.map(np.ones, [2 * MIB] * 8)] == [2 * MIB] * 8
        ref = session.put(array)
        assert measure_heaps() >= array.nbytes
        wait_for(
            lambda: measure_heaps() <= array.nbytes + 2 * MIB,
            "all but the ref's memory is back",
            10,
        )
        assert session.submit(np.sum, ref).result(LIMIT) == 2 * MIB
        del ref
        wait_for(lambda: measure_heaps() < 2 * MIB, "all memory is back", 10)
        assert session.memory().used == 0
        assert session.submit(np.sum, array).result(LIMIT) == 2 * MIB


def test_warm_memory_has_a_limit() -> None:
    with mh.Session("local", workers=1, store=64 * MIB) as session:
        refs = [session.put(make(x)) for x in range(48)]
        assert measure_heaps() >= 48 * MIB
        refs.clear()
        session.put(1)
        assert session.memory().used == 0
        assert measure_heaps() <= 10 * MIB, "an eighth of the limit is kept for what comes next"


def test_memory_is_flat_over_many_rounds() -> None:
    def add(a: Any, b: Any) -> Any:
        return a + b

    with mh.Session("local", workers=2, store=200 * MIB) as session:
        submit: Any = session.submit

        def run(rounds: int) -> None:
            for x in range(rounds):
                ref = session.put(np.full(50_000, float(x)))
                first = submit(add, ref, 1.0)
                second = submit(add, first, np.ones(50_000))
                array = second.result(LIMIT)
                assert array[0] == x + 2
                array += 1
                assert session.map(np.sum, [array, ref]) == [50_000.0 * (x + 3), 50_000.0 * x]
                small = submit(np.arange, 100)
                assert submit(np.sum, small).result(LIMIT) == 4950

        run(60)
        family = list_family(os.getpid())
        gc.collect()
        before = count_memory_bytes(family)
        run(300)
        gc.collect()
        assert count_memory_bytes(family) - before < 12 * MIB
        assert len(session.memory().values) < 20
