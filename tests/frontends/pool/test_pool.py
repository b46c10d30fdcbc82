"""`mh.Pool`: what `multiprocessing.Pool` promises, and what it cannot."""

import gc
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyhands as mh
from manyhands.testing.checks import LIMIT, wait_for
from manyhands.testing.work import Mark, doze, square
from tests.local.processes import list_children


@pytest.fixture(params=["local", "threads", "inline"])
def pool(request: pytest.FixtureRequest) -> Iterator[mh.Pool]:
    with mh.Session(request.param, workers=2) as session, mh.Pool(session=session) as pool:
        yield pool


@pytest.fixture
def processes() -> Iterator[mh.Pool]:
    with mh.Pool(2) as pool:
        yield pool


def divide(x: int) -> float:
    return 6 / x


def die_once(folder: Path, x: int) -> int:
    if x == 5 and Mark(folder).add("died") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def mark(folder: Path, x: int) -> int:
    Mark(folder).add(x)
    return 6 // x


def test_each_way_of_calling(pool: mh.Pool) -> None:
    assert pool.apply(pow, (2, 5)) == 32
    assert pool.apply(int, ("ff",), {"base": 16}) == 255
    assert pool.apply_async(pow, [2, 5]).get(LIMIT) == 32
    assert pool.map(square, range(100)) == [x * x for x in range(100)]
    assert pool.map(square, (x for x in range(5)), chunksize=2) == [0, 1, 4, 9, 16]
    assert pool.starmap(pow, [(2, 3), [3, 2]]) == [8, 9]
    assert pool.map_async(square, {3: 1}).get(LIMIT) == [9]
    assert pool.starmap_async(pow, [(2, 3)]).get(LIMIT) == [8]
    assert list(pool.imap(square, range(100), chunksize=7)) == [x * x for x in range(100)]
    assert sorted(pool.imap_unordered(square, iter(range(100)))) == [x * x for x in range(100)]
    assert pool.map(square, []) == list(pool.imap(square, [])) == []
    assert pool.map(float, np.arange(3)) == [0.0, 1.0, 2.0]


def test_all_items_run_where_one_fails(pool: mh.Pool, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pool.map(partial(mark, tmp_path), [3, 0, 2, 0, 1])
    assert "in item 1 of a map" in caught.value.__notes__[-1]
    assert len(list(tmp_path.iterdir())) == 5


def test_a_stream_goes_on_behind_an_error(pool: mh.Pool) -> None:
    results = pool.imap(divide, iter([1, 0, 2]))
    assert next(results) == 6.0
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert results.next(LIMIT) == 3.0
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(results)


def test_an_error_of_the_input_ends_a_stream(pool: mh.Pool) -> None:
    results = pool.imap(square, (10 // x for x in [5, 2, 0, 1]))
    assert [next(results), next(results)] == [4, 25]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert caught.value.__cause__ is None
    assert list(results) == []


def test_callbacks_are_called_before_the_result_is_given(pool: mh.Pool) -> None:
    found: list[Any] = []
    for _ in range(20):
        assert pool.apply_async(square, (3,), callback=found.append).get(LIMIT) == 9
        assert found.pop() == 9
        assert pool.map_async(square, [1, 2], callback=found.append).get(LIMIT) == [1, 4]
        assert found.pop() == [1, 4]
        result = pool.apply_async(divide, (0,), error_callback=found.append)
        result.wait(LIMIT)
        assert type(found.pop()) is ZeroDivisionError
        assert result.ready() and not result.successful()
        pool.map_async(divide, [0], callback=print, error_callback=found.append).wait(LIMIT)
        assert type(found.pop()) is ZeroDivisionError


def test_the_input_may_depend_on_the_results(pool: mh.Pool) -> None:
    items: queue.Queue[int | None] = queue.Queue()
    items.put(1)
    found = []
    for value in pool.imap(square, iter(items.get, None)):
        found.append(value)
        items.put(value + 1 if len(found) < 4 else None)
    assert found == [1, 4, 25, 676]


def test_an_endless_input_is_read_a_bounded_way_ahead(
    pool: mh.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyhands.frontends.pool._AHEAD", 50)
    read = []

    def count() -> Iterator[int]:
        x = 0
        while True:
            read.append(x)
            yield x
            x += 1

    results = pool.imap(square, count())
    for taken in range(200):
        assert next(results) == taken**2
        assert len(read) <= taken + 52
    feeders = list(pool._feeders)
    pool.terminate()
    for feeder in feeders:
        feeder.join(LIMIT)
        assert not feeder.is_alive()


def test_close_lets_all_be_read_and_run(pool: mh.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyhands.frontends.pool._AHEAD", 10)
    results = pool.imap(square, (x for x in range(100)))
    pool.close()
    pool.join()
    assert list(results) == [x * x for x in range(100)]
    for call in (pool.apply, pool.map, pool.imap, pool.map_async, pool.apply_async):
        with pytest.raises(ValueError, match="Pool not running"):
            call(square, [1])
    with pytest.raises(ValueError, match="Pool not running"), pool:
        pass


def test_results_say_when_they_are_ready(pool: mh.Pool) -> None:
    if pool._session.engine == "inline":
        return  # where a call has ended before it is asked for
    release = threading.Event()
    with mh.Session("threads", workers=1) as session, mh.Pool(session=session) as threads:
        result = threads.apply_async(release.wait, (LIMIT,))
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(0.01)
        with pytest.raises(multiprocessing.TimeoutError):
            threads.imap(square, [1]).next(0.01)
        assert result.wait(0.01) is None  # type: ignore[func-returns-value]
        release.set()
        assert result.get(LIMIT) is True
        assert result.successful()


def test_several_threads_share_an_iterator(pool: mh.Pool) -> None:
    results = pool.imap(square, range(2000))
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.extend(results)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert sorted(found) == [x * x for x in range(2000)]


@pytest.mark.parametrize(
    "options",
    [{"processes": 0}, {"maxtasksperchild": 0}, {"maxtasksperchild": 1.5}],
)
def test_it_says_what_is_wrong(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        mh.Pool(**options)
    with pytest.raises(TypeError):
        mh.Pool(1, initializer=3)  # type: ignore[arg-type]


def test_a_wrong_call_is_refused_before_any_work(pool: mh.Pool) -> None:
    with pytest.raises(TypeError):
        pool.map(3, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pool.map(square, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Chunksize"):
        pool.imap(square, [1], chunksize=0)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)
    with pytest.raises(ValueError, match="say processes"):
        mh.Pool(2, session=pool._session)
    assert repr(pool) == "<manyhands.Pool state=RUN pool_size=2>"


def run_program(code: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=2 * LIMIT
    )
    return done.stdout, done.stderr


# --- processes --------------------------------------------------------------------------------


def test_a_worker_that_dies_costs_one_attempt(processes: mh.Pool, tmp_path: Path) -> None:
    assert processes.map(partial(die_once, tmp_path), range(50)) == list(range(50))
    with pytest.raises(mh.WorkerDiedError):
        processes.apply(os._exit, (3,))
    assert processes.apply(square, (3,)) == 9


def test_terminate_ends_at_once_whatever_runs(tmp_path: Path) -> None:
    before = set(list_children(os.getpid()))  # other libraries may have left some
    pool = mh.Pool(2)
    running = pool.apply_async(doze, (str(tmp_path),))
    waiting = pool.map_async(square, range(10))
    stream = pool.imap(doze, iter([str(tmp_path)] * 3))
    wait_for(lambda: Mark(tmp_path).count("doze-began"), "it runs")
    pool.terminate()
    pool.join()
    assert set(list_children(os.getpid())) <= before
    with pytest.raises(CancelledError):
        running.get(LIMIT)
    with pytest.raises(CancelledError):
        next(stream)
    try:
        assert waiting.get(LIMIT) == [x * x for x in range(10)]
    except CancelledError:
        pass


def test_one_that_is_dropped_ends(tmp_path: Path) -> None:
    pool = mh.Pool(2)
    pool.apply_async(doze, (str(tmp_path),))
    wait_for(lambda: Mark(tmp_path).count("doze-began"), "it runs")
    session = pool._session
    pools = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        pools.clear()
    wait_for(lambda: session._closed_at, "the session has ended")


def test_a_result_that_is_to_come_keeps_the_pool() -> None:
    def start() -> Any:
        pool = mh.Pool(2)
        return pool.map_async(square, [1, 2]), pool.imap(square, iter([3, 4])), pool._session

    result, stream, session = start()
    gc.collect()
    assert result.get(LIMIT) == [1, 4]
    assert stream.next(LIMIT) == 9
    with pytest.warns(ResourceWarning):
        assert list(stream) == [16]  # with the last one the pool is let go of
    wait_for(lambda: session._closed_at, "the session has ended")


def test_workers_are_replaced_after_so_many_tasks() -> None:
    with mh.Pool(1, maxtasksperchild=1) as pool:
        assert len({pool.apply(os.getpid) for _ in range(3)}) == 3
        assert len(set(pool.map(lambda _: os.getpid(), range(4), chunksize=1))) == 4
        assert len(set(pool.map(lambda _: os.getpid(), range(100)))) <= 5


def test_a_manager_is_shared_with_the_workers() -> None:
    """In a program of its own: a manager leaves a process of its library behind."""
    code = (
        "import manyhands as mh, multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    def put(shared, x): shared[x] = x * x\n"
        "    with multiprocessing.get_context('spawn').Manager() as manager:\n"
        "        shared = manager.dict()\n"
        "        with mh.Pool(2) as pool: pool.starmap(put, [(shared, x) for x in range(5)])\n"
        "        with mh.Executor(2) as executor: executor.submit(put, shared, 5).result()\n"
        "        print(dict(sorted(shared.items())))\n"
    )
    assert run_program(code) == (f"{ {x: x * x for x in range(6)} }\n", "")


def test_the_items_are_let_go_of(processes: mh.Pool) -> None:
    class Item:
        pass

    items = [Item() for _ in range(10)]
    import weakref

    kept = [weakref.ref(item) for item in items]
    processes.map(id, items)
    del items
    gc.collect()
    wait_for(lambda: all(ref() is None for ref in kept), "nothing keeps the items")


def test_a_program_may_end_without_a_word() -> None:
    code = (
        "import manyhands as mh, time\n"
        "pool = mh.Pool(2)\n"
        "print(pool.map(abs, [-1]))\n"
        "result = pool.apply_async(time.sleep, (100,))\n"
    )
    assert run_program(code) == ("[1]\n", "")


@pytest.mark.timeout(300)
def test_cpythons_tests_of_pools_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "cpython"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 29 tests" in done.stderr
