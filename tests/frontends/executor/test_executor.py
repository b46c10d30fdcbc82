"""`mh.Executor`: what `concurrent.futures` promises, and what it cannot."""

import asyncio
import concurrent.futures
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
from manyhands.testing.checks import LIMIT, wait_for
from manyhands.testing.work import Mark, doze, square


@pytest.fixture(params=["local", "threads", "inline"])
def executor(request: pytest.FixtureRequest) -> Iterator[mh.Executor]:
    with mh.Session(request.param, workers=2) as session, mh.Executor(session=session) as executor:
        yield executor


@pytest.fixture
def processes() -> Iterator[mh.Executor]:
    with mh.Executor(max_workers=2) as executor:
        yield executor


def fail(x: int) -> int:
    raise KeyError(x)  # the line


def mark_and_return(folder: Path, x: int) -> int:
    Mark(folder).add(x)
    return x


def die_once(folder: Path, x: int) -> int:
    if x == 5 and Mark(folder).add("died") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def set_variable(name: str, value: str) -> None:
    os.environ[name] = value


def read_variable(name: str) -> str | None:
    return os.environ.get(name)


def return_lock() -> Any:
    return threading.Lock()


# --- the contract, on every engine ------------------------------------------------------------


def test_any_keyword_is_the_functions_own(executor: mh.Executor) -> None:
    future = executor.submit(dict, fn=1, self=2, timeout=3, retries=4)
    assert future.result(LIMIT) == {"fn": 1, "self": 2, "timeout": 3, "retries": 4}


def test_an_error_is_itself_and_its_cause_the_remote_traceback(executor: mh.Executor) -> None:
    with pytest.raises(KeyError) as caught:
        list(executor.map(fail, [3]))
    for error in (executor.submit(fail, 3).exception(LIMIT), caught.value):
        assert isinstance(error, KeyError)
        assert error.args == (3,)
        if error.__cause__ is not None:  # it came from another process
            assert "raise KeyError(x)  # the line" in str(error.__cause__)
            assert "Traceback" not in "".join(
                error.__notes__ if hasattr(error, "__notes__") else []
            )


def test_futures_are_those_of_the_standard_library(executor: mh.Executor) -> None:
    futures = [executor.submit(square, x) for x in range(5)]
    assert all(isinstance(future, concurrent.futures.Future) for future in futures)
    assert isinstance(futures[0], mh.Future)
    done, rest = concurrent.futures.wait(futures, LIMIT)
    assert (done, rest) == (set(futures), set())
    assert {future.result() for future in concurrent.futures.as_completed(futures)} == {
        0,
        1,
        4,
        9,
        16,
    }


def test_a_future_may_be_an_argument(executor: mh.Executor) -> None:
    assert executor.submit(square, executor.submit(square, 3)).result(LIMIT) == 81


def test_a_map_stops_at_the_shortest_of_its_iterables(executor: mh.Executor) -> None:
    assert list(executor.map(pow, [2, 3, 4], iter([5, 2]))) == [32, 9]
    assert list(executor.map(square, [])) == []
    assert list(executor.map(print)) == []


@pytest.mark.parametrize("chunksize", [1, 7, 1000])
def test_a_map_keeps_the_order(executor: mh.Executor, chunksize: int) -> None:
    assert list(executor.map(square, range(300), chunksize=chunksize)) == [
        x * x for x in range(300)
    ]


def test_results_before_an_error_are_given(executor: mh.Executor) -> None:
    results = executor.map(lambda x: 10 // x, [5, 2, 0, 1])
    assert [next(results), next(results)] == [2, 5]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert "in item 2 of a map" in caught.value.__notes__[-1]
    assert list(results) == []


def test_a_map_is_run_though_nobody_looks(executor: mh.Executor, tmp_path: Path) -> None:
    executor.map(partial(mark_and_return, tmp_path), range(20))
    executor.shutdown()
    assert len(list(tmp_path.iterdir())) == 20


def test_changes_of_the_input_come_too_late(executor: mh.Executor) -> None:
    items = list(range(500))
    results = executor.map(square, items)
    items.clear()
    assert list(results) == [x * x for x in range(500)]


def test_a_buffered_map_reads_no_further_than_it_may(executor: mh.Executor) -> None:
    read = []

    def count() -> Iterator[int]:
        x = 0
        while True:
            read.append(x)
            yield x
            x += 1

    results = executor.map(square, count(), buffersize=5)
    assert len(read) == 5
    for taken in range(1, 30):
        assert next(results) == (taken - 1) ** 2
        assert len(read) == 5 + taken
    results.close()  # type: ignore[attr-defined]
    assert list(executor.map(square, range(7), buffersize=3)) == [x * x for x in range(7)]


def test_a_buffered_map_that_nobody_reads_ends_with_the_executor(executor: mh.Executor) -> None:
    kept = executor.map(square, range(100), buffersize=2)
    assert next(kept) == 0
    executor.map(square, range(100), buffersize=2)  # and this one nobody has
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        list(kept)


def test_a_submission_that_fails_does_not_hold_up_the_end(executor: mh.Executor) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def submit() -> None:
        executor._outstanding.tickets.append(None)
        begun.set()
        go_on.wait(LIMIT)
        executor._outstanding.leave()

    thread = threading.Thread(target=submit)
    thread.start()
    begun.wait(LIMIT)
    ending = threading.Thread(target=executor.shutdown)
    ending.start()
    wait_for(lambda: executor._outstanding.is_shut, "it ends")
    go_on.set()
    ending.join(LIMIT)
    assert not ending.is_alive()
    thread.join(LIMIT)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"chunksize": 0}, ValueError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": 1.5}, TypeError),
        ({"buffersize": True}, TypeError),
    ],
)
def test_a_map_says_what_is_wrong(
    executor: mh.Executor, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        executor.map(square, [1], **options)
    with pytest.raises(TypeError):
        executor.map(3, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        executor.submit(3)  # type: ignore[arg-type]


def test_an_error_of_the_input_is_raised_at_once(executor: mh.Executor) -> None:
    with pytest.raises(ZeroDivisionError):
        executor.map(square, (1 // x for x in [1, 0]))


def test_nothing_is_accepted_after_the_shutdown(executor: mh.Executor) -> None:
    executor.shutdown()
    executor.shutdown()
    for call in (lambda: executor.submit(square, 1), lambda: executor.map(square, [1])):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            call()
    assert "shut down" in repr(executor)


def test_a_callback_may_submit(executor: mh.Executor) -> None:
    found: list[int] = []

    def go_on(future: Any) -> None:
        found.append(future.result())
        if len(found) < 5:
            executor.submit(square, len(found)).add_done_callback(go_on)

    executor.submit(square, 0).add_done_callback(go_on)
    wait_for(lambda: len(found) == 5, "the callbacks submitted")
    assert found == [0, 1, 4, 9, 16]


def test_asyncio_runs_calls_on_it(executor: mh.Executor) -> None:
    async def run() -> list[int]:
        loop = asyncio.get_running_loop()
        with pytest.raises(KeyError):
            await loop.run_in_executor(executor, fail, 1)
        calls = [loop.run_in_executor(executor, square, x) for x in range(10)]
        return await asyncio.wait_for(asyncio.gather(*calls), LIMIT)

    assert asyncio.run(run()) == [x * x for x in range(10)]


def test_many_threads_submit_while_one_shuts_it_down(executor: mh.Executor) -> None:
    futures: list[Any] = []
    refused = []
    begun = threading.Barrier(5)

    def submit() -> None:
        begun.wait(LIMIT)
        for x in range(200):
            try:
                futures.append(executor.submit(square, x))
            except RuntimeError:
                refused.append(x)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(LIMIT)
    executor.shutdown()
    for thread in threads:
        thread.join(LIMIT)
    assert len(futures) + len(refused) == 800
    assert all(future.done() and future.exception() is None for future in futures)


def test_a_session_that_was_given_stays_open() -> None:
    with mh.Session(workers=2) as session:
        other = session.submit(square, 5)
        with mh.Executor(session=session) as executor:
            assert executor.submit(square, 2).result(LIMIT) == 4
        assert other.result(LIMIT) == 25
        assert session.submit(square, 3).result(LIMIT) == 9
        with pytest.raises(ValueError, match="max_workers"):
            mh.Executor(3, session=session)


# --- processes --------------------------------------------------------------------------------


def test_a_worker_that_dies_costs_one_attempt_and_breaks_nothing(
    processes: mh.Executor, tmp_path: Path
) -> None:
    assert list(processes.map(partial(die_once, tmp_path), range(50))) == list(range(50))
    error = processes.submit(os._exit, 3).exception(LIMIT)
    assert isinstance(error, mh.WorkerDiedError)
    assert not isinstance(error, BrokenExecutor)
    assert processes.submit(square, 3).result(LIMIT) == 9


def test_what_does_not_pickle_raises_what_pickling_raised(processes: mh.Executor) -> None:
    error = processes.submit(square, threading.Lock()).exception(LIMIT)
    assert isinstance(error, TypeError)
    assert "cannot be sent to another process" in error.__notes__[0]
    results = processes.map(str, [1, threading.Lock(), 3])
    assert next(results) == "1"
    with pytest.raises(TypeError, match="pickle"):
        next(results)
    assert isinstance(processes.submit(return_lock).exception(LIMIT), mh.UnpicklableError)


def test_an_initializer_that_fails_breaks_it() -> None:
    with mh.Executor(2, initializer=fail, initargs=(7,)) as executor:
        error = executor.submit(square, 1).exception(LIMIT)
        assert isinstance(error, BrokenProcessPool)
        assert isinstance(error, mh.WorkerStartError)
        with pytest.raises(BrokenExecutor, match="KeyError: 7"):
            executor.submit(square, 1)
        with pytest.raises(BrokenExecutor):
            list(executor.map(square, range(3)))


def test_an_initializer_runs_before_the_first_call() -> None:
    with mh.Executor(2, initializer=set_variable, initargs=("MH_TEST", "set")) as executor:
        assert list(executor.map(read_variable, ["MH_TEST"] * 5)) == ["set"] * 5


def test_workers_are_replaced_after_so_many_calls() -> None:
    with mh.Executor(1, max_tasks_per_child=2) as executor:
        pids = [executor.submit(os.getpid).result(LIMIT) for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]
        assert len(set(executor.map(lambda _: os.getpid(), range(6)))) >= 3


@pytest.mark.parametrize("number", [0, -1])
def test_so_many_workers_are_none(number: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        mh.Executor(number)


def test_a_shutdown_that_does_not_wait_lets_all_end() -> None:
    executor = mh.Executor(2)
    session = executor._session
    futures = [executor.submit(square, x) for x in range(50)]
    results = executor.map(square, range(50))
    executor.shutdown(wait=False)
    assert [future.result(LIMIT) for future in futures] == list(results)
    wait_for(lambda: session._closed_at, "the session has ended")


def test_one_that_is_dropped_lets_all_end() -> None:
    executor = mh.Executor(2)
    session = executor._session
    futures = [executor.submit(square, x) for x in range(50)]
    results = executor.map(square, range(50))
    del executor
    gc.collect()
    assert [future.result(LIMIT) for future in futures] == list(results)
    wait_for(lambda: session._closed_at, "the session has ended")


def test_what_waits_can_be_cancelled_at_the_end(tmp_path: Path) -> None:
    with mh.Session(workers=2) as session:
        other = session.submit(doze, str(tmp_path))
        executor = mh.Executor(session=session)
        first = executor.submit(doze, str(tmp_path))
        wait_for(lambda: Mark(tmp_path).count("doze-began") == 2, "both doze")
        mine = [executor.submit(square, x) for x in range(10)]
        results = executor.map(square, range(10))
        theirs = session.submit(square, 3)
        executor.shutdown(wait=False, cancel_futures=True)
        assert [future.cancelled() for future in mine].count(True) >= 8
        assert not first.cancelled() and not theirs.cancelled()
        with pytest.raises(CancelledError):
            list(results)
        other.cancel(running=True)
        assert theirs.result(LIMIT) == 9
        first.cancel(running=True)
        executor.shutdown()


def test_a_time_out_of_a_map_cancels_its_rest(processes: mh.Executor) -> None:
    assert list(processes.map(square, range(4))) == [0, 1, 4, 9]  # the workers are up
    began = time.monotonic()
    results = processes.map(time.sleep, [0, 0, 60, *[0] * 100], timeout=2, chunksize=1)
    assert [next(results), next(results)] == [None, None]
    with pytest.raises(TimeoutError):
        list(results)
    assert time.monotonic() - began < LIMIT
    processes._outstanding.cancel(running=True)  # so that nobody waits for the long one
    processes._session.cancel_keys(list(processes._session._futures), running=True)


def test_a_call_has_executors_of_its_own(processes: mh.Executor) -> None:
    def run() -> list[int]:
        with mh.Executor(2) as inner:
            return [inner.submit(square, 3).result(), *inner.map(square, range(3))]

    assert processes.submit(run).result(LIMIT) == [9, 0, 1, 4]


def test_the_input_is_let_go_of(processes: mh.Executor) -> None:
    results = processes.map(square, range(10_000))
    assert sum(1 for _ in results) == 10_000
    del results
    gc.collect()
    assert not processes._outstanding._maps
    wait_for(processes._outstanding._has_ended, "nothing is outstanding")


def test_a_callback_that_is_interrupted_holds_no_result_back(processes: mh.Executor) -> None:
    futures = [processes.submit(square, x) for x in range(50)]
    for future in futures[10:]:
        future.add_done_callback(lambda _: sys.exit(3))
    failing = [processes.submit(fail, x) for x in range(20)]
    for future in (*futures, *failing):
        while True:
            try:
                future.exception(LIMIT)
                break
            except SystemExit:  # of a callback, here, as this thread drives
                continue
    assert [future.result(LIMIT) for future in futures] == [x * x for x in range(50)]


def test_the_garbage_collector_may_end_a_map(processes: mh.Executor) -> None:
    class Cycle:
        me: Any
        results: Any

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(60):
            cycle = Cycle()
            cycle.me = cycle
            cycle.results = processes.map(square, range(300), chunksize=5)
            next(cycle.results)
            del cycle
    finally:
        gc.set_threshold(*threshold)
    assert processes.submit(square, 3).result(LIMIT) == 9


# --- the interpreter's end --------------------------------------------------------------------


def run_program(code: str) -> tuple[str, str]:
    # Since Python 3.12 it warns of a fork beside threads.
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
    )
    return done.stdout, done.stderr


def test_the_program_ends_when_all_is_done() -> None:
    code = (
        "import manyhands as mh, time\n"
        "executor = mh.Executor(2)\n"
        "def say(word): time.sleep(0.3); print(word, flush=True)\n"
        "executor.submit(say, 'apple'); executor.map(say, ['pear'])\n{}"
    )
    for end in ("", "executor.shutdown(wait=False)", "del executor"):
        out, err = run_program(code.format(end))
        assert sorted(out.split()) == ["apple", "pear"]
        assert not err


def test_nothing_is_accepted_after_the_program() -> None:
    out, err = run_program(
        "import atexit, manyhands as mh\n"
        "@atexit.register\n"
        "def late():\n"
        "    try: executor.submit(abs, 1)\n"
        "    except RuntimeError as error: print(error)\n"
        "executor = mh.Executor(1)\n"
        "executor.submit(abs, 1).result()\n"
    )
    assert out.strip() == "cannot schedule new futures after interpreter shutdown"
    assert not err


def test_a_forked_child_ends_without_it() -> None:
    out, err = run_program(
        "import manyhands as mh, os, time\n"
        "executor = mh.Executor(1)\n"
        "future = executor.submit(time.sleep, 0.5)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try: executor.submit(abs, 1)\n"
        "    except RuntimeError as error: print('forked' in str(error))\n"
        "    raise SystemExit(3)\n"
        "print(os.waitpid(pid, 0)[1] >> 8, future.result())\n"
    )
    assert out.splitlines() == ["True", "3 None"]
    assert not err


# --- CPython's own tests ----------------------------------------------------------------------


@pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="builds of Python 3.11 come without them; 3.13 is in the gate",
)
@pytest.mark.timeout(300)
def test_cpythons_tests_of_executors_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "cpython"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 48 tests" in done.stderr
