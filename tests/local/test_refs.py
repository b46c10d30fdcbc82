"""Refs across real processes: what they are there, how long their values live, and what they cost."""

import gc
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.checks import LIMIT, wait_for
from manyhands.testing.faults import Damage, PicklingFault

LARGE = 100_000


def keep(value: Any) -> str:
    work.settings["kept"] = value
    return "kept"


def measure_kept() -> int:
    return work.measure(work.settings["kept"])


def sum_kept() -> float:
    return float(mh.get(work.settings["kept"]).sum())


def drop_kept() -> None:
    work.settings.pop("kept")


def put_array(value: float, size: int = LARGE) -> mh.Ref[Any]:
    return mh.put(np.full(size, float(value)))


def count_descriptors(_: object = None) -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def wait_until_empty(session: mh.Session) -> None:
    gc.collect()
    wait_for(lambda: not session.memory().values, f"nothing is stored:\n{session.memory()}", 10)
    assert session.memory().used == session.memory().disk_used == 0


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("size", [10, LARGE])
def test_a_value_is_read_by_all(start_method: str, size: int) -> None:
    array = np.arange(float(size))
    with mh.Session("local", workers=2, start_method=start_method) as session:
        ref = session.put(array)
        assert np.array_equal(ref.get(), array)
        assert session.map(np.sum, [ref] * 20) == [array.sum()] * 20
        assert session.submit(np.dot, ref, ref).result(LIMIT) == array @ array
        assert ref.type_name == f"ndarray float64 {size}"
        assert ref.nbytes >= array.nbytes and ref.place == "memory"
        assert repr(ref).startswith(f"<Ref {ref.id}: ndarray float64 {size}, ")
        del ref
        wait_until_empty(session)


def test_what_is_read_here_is_no_copy() -> None:
    with mh.Session("local", workers=1) as session:
        ref = session.put(np.arange(LARGE))
        first, second = ref.get(), ref.get()
        assert first.ctypes.data == second.ctypes.data
        assert not first.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            first[0] = 1
        del ref
        gc.collect()
        assert [value.holders for value in session.memory().values] == [
            ("an array of this program",)
        ]
        assert first[-1] == LARGE - 1
        del first, second
        wait_until_empty(session)


def test_refs_in_every_place() -> None:
    array = np.arange(float(LARGE))
    with mh.Session("local", workers=2) as session:
        ref, small = session.put(array), session.put("small")

        def read() -> float:
            return float(ref.get().sum()) + len(small.get())

        expected = array.sum() + 5
        assert session.submit(read).result(LIMIT) == expected
        assert session.map(lambda _: read(), range(20)) == [expected] * 20
        found = session.submit(lambda **named: named["a"]["b"][0].sum(), a={"b": [ref]})
        assert found.result(LIMIT) == array.sum()
        carrier = session.submit(lambda c: c.value, work.Carrier([ref, small, ref])).result(LIMIT)
        assert carrier[0] is ref is carrier[2] and carrier[1] is small
        assert session.submit(lambda refs: {len(r.get()) for r in refs}, {ref, small}).result(
            LIMIT
        ) == {LARGE, 5}
        named = session.submit(lambda c: {c.value: 1}, work.Carrier(ref)).result(LIMIT)
        assert list(named) == [ref]


def test_a_ref_is_one_object_in_a_worker_too() -> None:
    with mh.Session("local", workers=1) as session:
        ref, other = session.put(np.arange(LARGE)), session.put(3)
        session.submit(keep, work.Carrier([ref, other])).result(LIMIT)

        def compare(carrier: Any) -> tuple[bool, ...]:
            old = work.settings["kept"].value
            new = carrier.value
            return old[0] is new[0], old[1] is new[1], old[0] == new[0], old[0] != new[1]

        assert session.submit(compare, work.Carrier([ref, other])).result(LIMIT) == (True,) * 4
        assert session.submit(lambda: work.settings["kept"].value).result(LIMIT)[0] is ref
        session.submit(drop_kept).result(LIMIT)


def test_a_waiting_call_holds_the_value(tmp_path: Path) -> None:
    gate = work.Gate(tmp_path)
    with mh.Session("local", workers=1) as session:
        held = session.submit(gate.enter)
        wait_for(gate.count_entered, "the worker is busy")
        futures = [session.submit(np.sum, session.put(np.full(LARGE, x))) for x in range(10)]
        gc.collect()
        report = session.memory()
        holders = {holder for value in report.values for holder in value.holders}
        assert len(report.values) == 10
        assert any("waiting call" in h or "worker" in h or "call" in h for h in holders), holders
        gate.open()
        assert mh.gather(futures, timeout=LIMIT) == [x * LARGE for x in range(10)]
        held.result(LIMIT)
        wait_until_empty(session)


def test_a_cancelled_call_holds_nothing(tmp_path: Path) -> None:
    gate = work.Gate(tmp_path)
    with mh.Session("local", workers=1) as session:
        held = session.submit(gate.enter)
        wait_for(gate.count_entered, "the worker is busy")
        futures = [session.submit(np.sum, session.put(np.full(LARGE, x))) for x in range(10)]
        assert all(future.cancel() for future in futures)
        del futures
        wait_until_empty(session)
        gate.open()
        held.result(LIMIT)


def test_a_worker_that_keeps_a_value_holds_it() -> None:
    """The array itself, in a global of the worker's: the memory is not used for others meanwhile."""
    with mh.Session("local", workers=1) as session:
        ref = session.put(np.full(LARGE, 7.0))
        session.submit(keep, ref).result(LIMIT)
        del ref
        gc.collect()
        (value,) = session.memory().values
        assert value.holders == ("worker 1",)
        for x in range(20):  # would overwrite it
            assert session.submit(np.sum, np.full(LARGE, float(x))).result(LIMIT) == x * LARGE
        assert session.submit(sum_kept).result(LIMIT) == 7 * LARGE
        session.submit(drop_kept).result(LIMIT)
        wait_until_empty(session)


def test_a_worker_that_keeps_a_ref_holds_its_value() -> None:
    with mh.Session("local", workers=1) as session:
        ref = session.put(bytes(LARGE))
        session.submit(keep, work.Carrier(ref)).result(LIMIT)
        del ref
        gc.collect()
        (value,) = session.memory().values
        assert value.holders == ("worker 1",)
        assert session.submit(measure_kept).result(LIMIT) == LARGE
        session.submit(drop_kept).result(LIMIT)
        wait_until_empty(session)


def test_a_part_of_an_array_holds_it() -> None:
    with mh.Session("local", workers=1) as session:
        session.submit(lambda a: keep(a[10:20][::2]), np.arange(LARGE)).result(LIMIT)
        wait_for(
            lambda: [v.holders for v in session.memory().values] == [("worker 1",)], "it is held"
        )
        assert session.submit(sum_kept).result(LIMIT) == 10 + 12 + 14 + 16 + 18
        session.submit(drop_kept).result(LIMIT)
        wait_until_empty(session)


def test_a_cycle_in_a_worker_is_let_go() -> None:
    """What only a garbage collection frees goes when the session idles."""
    with mh.Session("local", workers=1) as session:

        def tie(array: Any) -> None:
            knot: list[Any] = [array]
            knot.append(knot)

        session.submit(tie, session.put(np.arange(LARGE))).result(LIMIT)
        wait_until_empty(session)


def test_refs_made_in_calls() -> None:
    with mh.Session("local", workers=2) as session:
        submit: Any = session.submit
        refs = session.map(put_array, range(20))
        assert [float(ref.get()[0]) for ref in refs] == list(range(20))
        assert session.map(np.mean, refs) == list(range(20))
        for ref in refs[:5]:
            assert submit(work.unload, work.Carrier(ref)).result(LIMIT) is ref
        kinds = {(value.kind, value.nbytes >= 8 * LARGE) for value in session.memory().values}
        assert kinds == {(f"ndarray float64 {LARGE}", True)}
        del ref, refs
        wait_until_empty(session)


def test_a_ref_of_a_call_that_is_also_kept_there() -> None:
    with mh.Session("local", workers=1) as session:

        def make() -> Any:
            ref = mh.put(np.full(LARGE, 3.0))
            keep(ref)
            return ref

        ref = session.submit(make).result(LIMIT)
        assert ref.get().sum() == 3 * LARGE
        assert session.submit(lambda: work.settings["kept"]).result(LIMIT) is ref
        del ref
        gc.collect()
        assert [value.holders for value in session.memory().values] == [("worker 1",)]
        assert (
            session.submit(lambda: float(work.settings["kept"].get().sum())).result(LIMIT)
            == 3 * LARGE
        )
        session.submit(drop_kept).result(LIMIT)
        wait_until_empty(session)


def test_what_a_call_puts_and_does_not_return_is_freed() -> None:
    with mh.Session("local", workers=1, store="40MB", spill=0) as session:

        def read_what_it_puts(x: int) -> int:
            return int(mh.put(np.full(LARGE, x)).get().sum())

        assert session.map(read_what_it_puts, range(200)) == [x * LARGE for x in range(200)]
        wait_until_empty(session)


def test_a_ref_in_a_value_that_is_put() -> None:
    with mh.Session("local", workers=1) as session:
        inner = session.put(np.full(LARGE, 2.0))
        outer = session.put(work.Carrier([inner, "x"]))
        assert outer.get().value[0] is inner
        assert session.submit(lambda c: float(c.value[0].get().sum()), outer).result(LIMIT) == (
            2 * LARGE
        )
        del inner
        gc.collect()
        assert outer.get().value[0].get().sum() == 2 * LARGE
        assert session.submit(lambda c: float(c.value[0].get().sum()), outer).result(LIMIT) == (
            2 * LARGE
        )
        del outer
        wait_until_empty(session)


def test_a_ref_in_a_result_lives_as_long_as_the_result() -> None:
    with mh.Session("local", workers=1) as session:
        submit: Any = session.submit
        future = submit(lambda c: c, work.Carrier(session.put(np.full(LARGE, 2.0))))
        wait_for(future.done, "it has ended")
        gc.collect()
        assert submit(lambda c: float(c.value.get().sum()), future).result(LIMIT) == 2 * LARGE
        assert future.result(LIMIT).value.get().sum() == 2 * LARGE
        del future
        wait_until_empty(session)


def test_an_error_may_hold_a_ref() -> None:
    """It cannot travel in an exception, which may outlive the session; the error says so and nothing hangs."""
    with mh.Session("local", workers=1) as session:

        def fail(carrier: Any) -> None:
            raise ValueError(carrier.value)

        error = session.submit(fail, work.Carrier(session.put(bytes(LARGE)))).exception(LIMIT)
        assert isinstance(error, (ValueError, mh.RemoteError)), error
        del error
        wait_until_empty(session)


def test_refs_of_a_closed_session() -> None:
    with mh.Session("local", workers=1) as session:
        ref, small = session.put(np.arange(LARGE)), session.put(1)
        got = ref.get()
    for handle in (ref, small):
        assert handle.place == "gone"
        assert "gone with its session" in repr(handle)
        with pytest.raises(mh.SessionClosedError, match="is closed"):
            handle.get()
        with pytest.raises(mh.SessionClosedError):
            mh.get([handle])
        with mh.Session("local", workers=1) as other:
            assert isinstance(other.submit(len, handle).exception(LIMIT), mh.SessionClosedError)
    with pytest.raises(mh.SessionClosedError):
        session.put(1)
    assert got[-1] == LARGE - 1
    (left,) = session.memory().values
    assert "an array of this program" in left.holders
    del got
    gc.collect()
    assert session.memory().values == ()


def test_refs_of_another_session() -> None:
    array = np.arange(float(LARGE))
    with mh.Session("local", workers=1) as first, mh.Session("local", workers=1) as second:
        ref = first.put(array)
        assert second.submit(np.sum, ref).result(LIMIT) == array.sum()
        assert second.map(np.sum, [ref, [ref]]) == [array.sum()] * 2
        error = second.submit(work.measure, work.Carrier(ref)).exception(LIMIT)
        assert isinstance(error, mh.InvalidArgumentError)
        assert "another session" in str(error) and "ref.get()" in str(error)
        error = second.submit(lambda: ref.get().sum()).exception(LIMIT)
        assert isinstance(error, mh.InvalidArgumentError), error
        with pytest.raises(mh.InvalidArgumentError):
            second.put(work.Carrier(ref))
        made = first.submit(put_array, 2.0)
        assert second.submit(lambda found: float(found.get().sum()), made).exception(LIMIT)
        assert first.submit(np.sum, ref).result(LIMIT) == array.sum()


@pytest.mark.parametrize("other", ["inline", "threads"])
def test_a_ref_between_engines(other: str) -> None:
    with mh.Session("local", workers=1) as first, mh.Session(other) as second:
        ref, theirs = first.put(np.arange(LARGE)), second.put(np.arange(LARGE))
        expected = LARGE * (LARGE - 1) // 2
        assert second.submit(np.sum, ref).result(LIMIT) == expected
        assert first.submit(np.sum, theirs).result(LIMIT) == expected
        assert second.submit(lambda: int(ref.get().sum())).result(LIMIT) == expected


def test_a_ref_cannot_be_pickled_for_elsewhere() -> None:
    with mh.Session("local", workers=1) as session:
        ref = session.put(np.arange(LARGE))
        for value in (ref, {"a": [ref]}, work.Carrier(ref)):
            for protocol in range(2, 6):
                with pytest.raises(TypeError, match=r"ref\.get\(\)"):
                    pickle.dumps(value, protocol)
        # And not after a call was, or was not, pickled either.
        session.submit(abs, PicklingFault(Damage.RAISE)).exception(LIMIT)
        assert session.submit(len, ref).result(LIMIT) == LARGE
        with pytest.raises(TypeError):
            pickle.dumps(ref)

        def pickle_it(carrier: Any) -> str:
            try:
                pickle.dumps(carrier.value)
            except TypeError as error:
                return str(error)
            return "pickled"

        assert "ref.get()" in session.submit(pickle_it, work.Carrier(ref)).result(LIMIT)


def test_thousands_of_refs_cost_no_descriptors() -> None:
    count = 20_000
    with mh.Session("local", workers=2) as session:
        session.map(np.sum, [session.put(np.arange(LARGE))] * 8)
        session.map(put_array, range(8))
        # The watch over memory keeps a file for each worker and for the machine, from its first look on.
        here = count_descriptors() + 8
        there = max(session.map(count_descriptors, range(8), batch=1))
        refs = [session.put(np.full(3, x)) for x in range(count - 100)]
        refs += [session.put(np.full(3000, x)) for x in range(100)]
        assert count_descriptors() <= here
        report = session.memory()
        assert len(report.values) == count
        assert report.used < 100 * 32 * 1024, "small values take no pages of their own"
        assert session.map(np.min, refs[-300:]) == [*range(count - 300, count - 100), *range(100)]
        sums = session.submit(lambda found: sum(int(a[0]) for a in found), refs).result(LIMIT)
        assert sum(ref.get()[0] for ref in refs) == sums
        assert count_descriptors() <= here + 1
        assert max(session.map(count_descriptors, range(8), batch=1)) <= there + 1
        del refs
        wait_until_empty(session)


def test_many_large_refs_cost_no_descriptors() -> None:
    with mh.Session("local", workers=2) as session:
        session.map(np.sum, [session.put(np.arange(LARGE))] * 8)
        here = count_descriptors()
        refs = [session.put(bytes([x % 256]) * 20_000) for x in range(1000)]
        got = mh.get(refs)
        assert [value[0] for value in got] == [x % 256 for x in range(1000)]
        assert count_descriptors() == here
        assert session.submit(len, refs).result(LIMIT) == 1000
        # A worker that has had nothing to do so far may open what it needs; not something for each ref.
        assert count_descriptors() < here + 10


def test_refs_from_many_threads() -> None:
    """Each thread puts, sends, reads and drops its own and a shared one."""
    problems: list[object] = []
    with mh.Session("local", workers=2) as session:
        shared: Any = session.put(np.full(LARGE, 1.0))

        def act(number: int) -> None:
            try:
                for x in range(15):
                    value = float(100 * number + x)
                    ref = session.put(np.full(5000, value))
                    assert ref.get()[17] == value
                    total = session.submit(np.sum, ref).result(LIMIT)
                    assert total == 5000 * value
                    made = session.submit(put_array, value, 5000).result(LIMIT)
                    assert made.get()[17] == value
                    assert shared.get()[x] == 1
                    assert session.submit(work.unload, work.Carrier(shared)).result(LIMIT) is shared
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=act, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert problems == []
        shared = None
        wait_until_empty(session)
