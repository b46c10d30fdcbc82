"""A worker that dies, however and wherever on a call's way, fails that call and no other."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
from manyhands.testing.checks import LIMIT, wait_for
from manyhands.testing.faults import Damage, PicklingFault, UnpicklingFault, strike
from manyhands.testing.work import Gate, Mark, note

COUNT = 150
BAD = (0, 40, 41, 149)

DEADLY = (Damage.EXIT, Damage.OS_EXIT, Damage.SEGFAULT, Damage.KILL)
PLACES = {
    "unpickling arguments": (*DEADLY, Damage.RAISE),
    "running": (*DEADLY, Damage.RAISE),
    "pickling the result": (*DEADLY, Damage.RAISE),
    "unpickling the result": (Damage.RAISE,),  # in this process: anything else would end the tests
}
MATRIX = [(place, damage) for place, damages in PLACES.items() for damage in damages]
START_METHODS = ("fork", "spawn")


def act(folder: str, place: str, damage: Damage, x: int, gift: object = None) -> Any:
    """Note that call x ran, and do the damage where x is bad; `gift` may have done it before."""
    Mark(folder).add(x)
    if x in BAD:
        if place == "running":
            strike(damage)
        if place == "pickling the result":
            return PicklingFault(damage)
        if place == "unpickling the result":
            return UnpicklingFault(damage)
    return x


def make_gift(place: str, damage: Damage, x: int) -> object:
    return UnpicklingFault(damage) if place == "unpickling arguments" and x in BAD else None


def check(place: str, damage: Damage, found: list[Any]) -> None:
    assert len(found) == COUNT
    assert [value for x, value in enumerate(found) if x not in BAD] == [
        x for x in range(COUNT) if x not in BAD
    ]
    for x in BAD:
        error = found[x]
        if damage in DEADLY:
            assert isinstance(error, mh.WorkerDiedError), error
            expected = {Damage.SEGFAULT: signal.SIGSEGV, Damage.KILL: signal.SIGKILL}.get(damage)
            assert error.signal == expected
            assert error.exit_code == (None if expected else 3)
            assert "All 2 attempts failed" in error.__notes__[0]
        elif place == "running":
            assert type(error).__name__ == "FaultError"
        elif place == "pickling the result":
            assert isinstance(error, mh.UnpicklableError)
        else:
            assert isinstance(error, mh.UnloadableError)


def expect_runs(place: str, damage: Damage) -> list[int]:
    """How often each call runs: once, but for those whose worker dies, which are tried once more."""
    bad = 0 if place == "unpickling arguments" else 2 if damage in DEADLY else 1
    return [bad if x in BAD else 1 for x in range(COUNT)]


def count_runs(folder: Path) -> list[int]:
    names = [entry.name.partition(".")[0] for entry in folder.iterdir()]
    return [names.count(str(x)) for x in range(COUNT)]


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize(("place", "damage"), MATRIX, ids=str)
def test_submitted_calls(place: str, damage: Damage, start_method: str, tmp_path: Path) -> None:
    with mh.Session("local", workers=2, start_method=start_method) as session:
        futures = [
            session.submit(act, str(tmp_path), place, damage, x, make_gift(place, damage, x))
            for x in range(COUNT)
        ]
        found = mh.gather(futures, on_error="return", timeout=LIMIT)
        check(place, damage, found)
        deaths = session.report().deaths
        assert deaths == (2 * len(BAD) if damage in DEADLY else 0)
        assert session.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
    assert count_runs(tmp_path) == expect_runs(place, damage)


@pytest.mark.parametrize(("place", "damage"), MATRIX, ids=str)
def test_items_one_by_one(place: str, damage: Damage, tmp_path: Path) -> None:
    run = partial(act, str(tmp_path), place, damage)
    with mh.Session("local", workers=2) as session:
        gifts = [make_gift(place, damage, x) for x in range(COUNT)]
        found: list[Any] = session.map(run, range(COUNT), gifts, batch=1, on_error="return")
        check(place, damage, found)
        assert session.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
    assert count_runs(tmp_path) == expect_runs(place, damage)


@pytest.mark.parametrize("batch", [None, 16, COUNT])
@pytest.mark.parametrize(("place", "damage"), MATRIX, ids=str)
def test_items_in_batches(place: str, damage: Damage, batch: int | None, tmp_path: Path) -> None:
    """The other items of a batch that failed as a whole run again, and all of them have results."""
    run = partial(act, str(tmp_path), place, damage)
    with mh.Session("local", workers=2) as session:
        gifts = [make_gift(place, damage, x) for x in range(COUNT)]
        found: list[Any] = session.map(run, range(COUNT), gifts, batch=batch, on_error="return")
        check(place, damage, found)
    ran = count_runs(tmp_path)
    assert all(ran[x] >= 1 for x in range(COUNT) if x not in BAD)


@pytest.mark.parametrize("damage", [*DEADLY, Damage.RAISE], ids=str)
def test_an_error_of_a_map_stops_it(damage: Damage, tmp_path: Path) -> None:
    run = partial(act, str(tmp_path), "running", damage)
    with mh.Session("local", workers=2) as session:
        with pytest.raises(Exception) as caught:
            session.map(run, range(1, 100_000))
        notes = "\n".join(caught.value.__notes__)  # batches run beside each other: one of the bad
        assert any(f"in item {x - 1} of a map" in notes for x in BAD[1:])
        assert session.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
    assert len(list(tmp_path.iterdir())) < 90_000


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_calls_in_a_dead_workers_queue_run_elsewhere(
    workers: int, number: signal.Signals, tmp_path: Path
) -> None:
    gate = Gate(tmp_path, "gate")
    with mh.Session("local", workers=workers) as session:
        mh.gather([session.submit(note, str(tmp_path), "warm") for _ in range(20)])
        pids = {session.submit(os.getpid).result(LIMIT) for _ in range(50)}
        enter = mh.task(gate.enter, worker_retries=0)
        running = [enter.submit() for _ in range(workers)]
        wait_for(lambda: gate.count_entered() == workers, "every worker is at a call")
        waiting = [session.submit(note, str(tmp_path), x) for x in range(COUNT)]
        for pid in pids if workers == 1 else list(pids)[:1]:
            os.kill(pid, number)
        assert mh.gather(waiting, timeout=LIMIT) == list(range(COUNT))
        gate.open()
        ends = [future.exception(LIMIT) for future in running]
        died = [error for error in ends if error is not None]
        assert len(died) == 1 and isinstance(died[0], mh.WorkerDiedError)
        assert died[0].signal == number
    assert count_runs(tmp_path) == [1] * COUNT


@pytest.mark.parametrize("kind", ["function", "argument", "initializer"])
def test_pickling_in_the_parent_may_fail(kind: str) -> None:
    bad = PicklingFault(Damage.RAISE)
    if kind == "initializer":
        with pytest.raises(mh.UnpicklableError):
            mh.Session("local", workers=1, initializer=abs, initargs=(bad,))
        return
    fn: Callable[[object], object] = (lambda x: (bad, x)) if kind == "function" else id
    with mh.Session("local", workers=1) as session:
        future = session.submit(fn, bad if kind == "argument" else 1)
        assert isinstance(future.exception(LIMIT), mh.UnpicklableError)
        with pytest.raises(mh.UnpicklableError):
            session.map(fn, [1, bad] if kind == "argument" else [1])
        assert session.submit(abs, -1).result(LIMIT) == 1


def test_workers_that_cannot_start_end_in_an_error() -> None:
    """An initializer that kills its worker would kill every one that takes its place."""
    with mh.Session("local", workers=2, initializer=os._exit, initargs=(5,)) as session:
        futures = [session.submit(abs, -1) for _ in range(5)]
        for future in futures:
            assert isinstance(future.exception(LIMIT), mh.WorkerStartError)
        with pytest.raises(mh.WorkerStartError):
            session.map(abs, [1])
