import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import Manager
from multiprocessing import TimeoutError as JoblibTimeoutError
from pathlib import Path
from typing import Any

import joblib
import pytest
from joblib import Parallel, delayed

import manyhands as mh
from manyhands.frontends.joblib import shutdown
from manyhands.testing.checks import wait_for
from tests.local.processes import is_alive

LONG = 60.0


def square(x: int) -> int:
    return x * x


def parallel(**options: Any) -> Parallel:
    return Parallel(**{"n_jobs": 2, "backend": "manyhands", **options})


def get_pid(_: object = None) -> int:
    return os.getpid()


def list_pids(**options: Any) -> set[int]:
    """The processes that calls run in; each call waits a little, so that all workers get some."""
    return set(parallel(**options)(delayed(wait_and_get_pid)() for _ in range(8)))


def wait_and_get_pid() -> int:
    time.sleep(0.05)
    return os.getpid()


def wait_and_tell(started: Path, ended: Path) -> None:
    started.touch()
    try:
        time.sleep(LONG)
    finally:
        ended.touch()


# What comes out.


@pytest.mark.parametrize("batch_size", [1, 7, "auto"])
@pytest.mark.parametrize("pre_dispatch", [1, "all", "2 * n_jobs"])
def test_results_come_in_order(batch_size: Any, pre_dispatch: Any) -> None:
    tasks = (delayed(square)(i) for i in range(500))
    found = parallel(batch_size=batch_size, pre_dispatch=pre_dispatch)(tasks)
    assert found == [i * i for i in range(500)]


def test_very_many_quick_tasks_come_in_order() -> None:
    assert parallel()(delayed(abs)(-i) for i in range(30_000)) == list(range(30_000))


def test_functions_may_differ_and_take_keywords() -> None:
    tasks = [delayed(pow)(2, 3), delayed(int)("11", base=2), delayed("a".join)(["b", "c"])]
    assert parallel(batch_size=3)(tasks) == [8, 3, "bac"]


def test_functions_may_be_made_on_the_spot() -> None:
    assert parallel()(delayed(lambda x, y=i: x + y)(1) for i in range(40)) == list(range(1, 41))


def test_a_generator_gives_results_while_others_run(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait(i: int) -> int:
        if i:
            wait_for(gate.exists, "the gate opens")
        return i

    results = parallel(return_as="generator")(delayed(wait)(i) for i in range(3))
    assert next(results) == 0
    gate.touch()
    assert list(results) == [1, 2]


def test_an_unordered_generator_gives_first_what_is_done_first(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait(i: int) -> int:
        if not i:
            wait_for(gate.exists, "the gate opens")
        return i

    results = parallel(return_as="generator_unordered", batch_size=1)(
        delayed(wait)(i) for i in range(4)
    )
    assert {next(results) for _ in range(3)} == {1, 2, 3}
    gate.touch()
    assert list(results) == [0]


def test_two_generators_of_one_configuration_do_not_disturb_each_other() -> None:
    with joblib.parallel_config("manyhands", n_jobs=2):
        first = Parallel(return_as="generator")(delayed(square)(i) for i in range(50))
        second = Parallel(return_as="generator")(delayed(abs)(-i) for i in range(50))
        assert next(first) == 0
        assert list(second) == list(range(50))
        assert list(first) == [i * i for i in range(1, 50)]


def test_threads_may_each_have_calls_of_their_own() -> None:
    found: dict[int, list[int]] = {}

    def run(number: int) -> None:
        tasks = (delayed(pow)(i, number) for i in range(200))
        found[number] = parallel(n_jobs=2 + number % 2, batch_size=1)(tasks)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [i**number for i in range(200)] for number in range(4)}


def test_progress_is_printed_as_by_joblib(capsys: pytest.CaptureFixture[str]) -> None:
    parallel(verbose=10)(delayed(square)(i) for i in range(4))
    said = capsys.readouterr().err
    assert "Using backend ManyhandsBackend with 2 concurrent workers." in said
    assert "4 out of   4 | elapsed" in said


# What goes wrong.


def divide(x: int) -> float:
    return 1 / x


def test_an_error_comes_back_as_itself_with_its_remote_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        parallel()(delayed(divide)(x) for x in (1, 0, 1))
    assert "in divide" in "".join(caught.value.__notes__)


def test_an_error_cancels_what_runs(tmp_path: Path) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"

    def fail() -> None:
        wait_for(started.exists, "the other call has started")
        raise KeyError("x")

    with pytest.raises(KeyError):
        parallel()([delayed(wait_and_tell)(started, ended), delayed(fail)()])
    wait_for(ended.exists, "the other call is interrupted")


def test_after_an_error_a_kept_parallel_goes_on() -> None:
    with parallel() as kept:
        with pytest.raises(ZeroDivisionError):
            kept(delayed(divide)(x) for x in (1, 0, 1))
        assert kept(delayed(divide)(x) for x in (1, 2)) == [1.0, 0.5]


def kill_once(mark: Path, i: int) -> int:
    if i == 20 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return i


@pytest.mark.parametrize("batch_size", [1, "auto"])
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_a_killed_worker_loses_nothing(tmp_path: Path, batch_size: Any, return_as: str) -> None:
    mark = tmp_path / "mark"
    results = parallel(batch_size=batch_size, return_as=return_as)(
        delayed(kill_once)(mark, i) for i in range(60)
    )
    assert list(results) == list(range(60))
    assert mark.exists()


def test_a_task_that_kills_worker_after_worker_is_given_up() -> None:
    with pytest.raises(mh.WorkerDiedError, match="SIGKILL"):
        parallel()(delayed(lambda: os.kill(os.getpid(), signal.SIGKILL))() for _ in range(2))
    assert parallel()(delayed(square)(i) for i in range(3)) == [0, 1, 4]


@pytest.mark.parametrize("place", [0, 30])
def test_an_argument_that_cannot_travel_is_an_error_and_no_hang(place: int) -> None:
    tasks = [delayed(id)(threading.Lock() if i == place else i) for i in range(60)]
    with pytest.raises(mh.UnpicklableError, match="lock"):
        parallel(batch_size=1)(tasks)


@pytest.mark.parametrize("place", [0, 30])
def test_an_error_of_the_tasks_themselves_is_raised_at_once(place: int, tmp_path: Path) -> None:
    ended = tmp_path / "ended"

    def make() -> Iterator[Any]:
        yield delayed(wait_and_tell)(tmp_path / "started", ended)
        for i in range(place):
            yield delayed(square)(i)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        parallel(batch_size=1)(make())
    if (tmp_path / "started").exists():
        wait_for(ended.exists, "what ran is interrupted")


@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_a_timeout_is_raised_and_cancels_what_runs(tmp_path: Path, return_as: str) -> None:
    parallel()(delayed(square)(i) for i in range(4))  # the workers have joblib
    started, ended = tmp_path / "started", tmp_path / "ended"
    with pytest.raises(JoblibTimeoutError):
        list(
            parallel(timeout=0.3, return_as=return_as)(
                [delayed(wait_and_tell)(started, ended), delayed(square)(2)]
            )
        )
    wait_for(lambda: ended.exists() or not started.exists(), "what ran is interrupted")


@pytest.mark.filterwarnings("ignore:.*tasks:UserWarning")
def test_a_generator_left_early_cancels_what_runs(tmp_path: Path) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    results = parallel(return_as="generator", batch_size=1)(
        [delayed(square)(3), delayed(wait_and_tell)(started, ended), delayed(square)(2)]
    )
    assert next(results) == 9
    wait_for(started.exists, "the second call runs")
    del results
    gc.collect()
    wait_for(ended.exists, "it is interrupted")


def test_no_jobs_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="n_jobs == 0"):
        parallel(n_jobs=0)(delayed(square)(i) for i in range(2))


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="sesion"):
        parallel(sesion=1)(delayed(square)(i) for i in range(2))
    with pytest.raises(mh.InvalidArgumentError, match=r"manyhands\.Session"):
        joblib.parallel_config("manyhands", session=2)


def test_shared_memory_of_threads_is_given_by_threads() -> None:
    with pytest.raises(ValueError, match="does not support shared memory"):
        parallel(require="sharedmem")
    with joblib.parallel_config("manyhands", n_jobs=2):
        seen: list[int] = []
        Parallel(require="sharedmem")(delayed(seen.append)(i) for i in range(3))
    assert sorted(seen) == [0, 1, 2]


# How far ahead.


def count_ahead(task: Any, tasks: int, seconds: float = 0, **options: Any) -> int:
    """How many quick batches were under way at most when another task was asked for."""
    running: list[int] = []

    def make() -> Iterator[Any]:
        for _ in range(tasks):
            time.sleep(seconds)
            running.append(len(kept._backend._outstanding))
            yield task

    with parallel(batch_size=1, **options) as kept:
        kept(make())
    return max(running)


def test_quick_tasks_are_asked_for_ahead() -> None:
    assert 8 < count_ahead(delayed(square)(3), 2000) <= 64


def test_what_the_user_says_of_going_ahead_holds() -> None:
    assert count_ahead(delayed(square)(3), 2000, pre_dispatch=3) <= 3


def test_tasks_that_come_slowly_are_not_asked_for_ahead() -> None:
    assert count_ahead(delayed(square)(3), 12, seconds=0.005) <= 6


def test_tasks_with_large_arguments_are_not_asked_for_ahead() -> None:
    assert count_ahead(delayed(len)([3] * 1000), 100) <= 4


# Workers.


def test_one_job_runs_here() -> None:
    assert parallel(n_jobs=1)(delayed(get_pid)() for _ in range(2)) == [os.getpid()] * 2
    assert Parallel(backend="manyhands")(delayed(get_pid)() for _ in range(2)) == [os.getpid()] * 2


def test_jobs_are_counted_as_joblib_counts_them() -> None:
    with joblib.parallel_config("manyhands"):
        assert joblib.effective_n_jobs(3) == 3
        assert joblib.effective_n_jobs(-1) == joblib.cpu_count()
        assert joblib.effective_n_jobs(-1000) == 1
        assert joblib.effective_n_jobs(None) == 1


def test_workers_are_kept_for_the_next_call() -> None:
    first = list_pids()
    assert len(first) == 2
    assert os.getpid() not in first
    assert list_pids() == first
    shutdown()
    wait_for(lambda: not any(map(is_alive, first)), "the workers have ended")
    assert not list_pids() & first


def test_another_number_of_jobs_has_other_workers() -> None:
    first = list_pids()
    second = list_pids(n_jobs=3)
    assert len(second) == 3
    wait_for(lambda: not any(map(is_alive, first)), "the former workers have ended")


def test_workers_in_use_stay_when_another_number_is_asked_for() -> None:
    results = parallel(return_as="generator", pre_dispatch=2)(
        delayed(wait_and_get_pid)() for _ in range(20)
    )
    first = {next(results)}
    assert parallel(n_jobs=3)(delayed(square)(i) for i in range(9)) == [i * i for i in range(9)]
    first |= set(results)
    assert len(first) == 2
    wait_for(lambda: not any(map(is_alive, first)), "they have ended after their last use")


def test_a_session_can_be_given() -> None:
    with mh.Session(workers=2) as session:
        ours = set(session.map(wait_and_get_pid_of, range(8), batch=1))
        with joblib.parallel_config("manyhands", session=session):
            assert set(Parallel()(delayed(wait_and_get_pid)() for _ in range(8))) <= ours
            assert joblib.effective_n_jobs(None) == 2
            assert joblib.effective_n_jobs(16) == 2
        found = Parallel(n_jobs=2, backend="manyhands", session=session)(
            delayed(wait_and_get_pid)() for _ in range(8)
        )
        assert set(found) <= ours
        assert session.map(square, [3]) == [9]


def wait_and_get_pid_of(_: int) -> int:
    return wait_and_get_pid()


@pytest.mark.parametrize("engine", ["threads", "inline"])
def test_the_session_may_be_of_another_engine(engine: str) -> None:
    with mh.Session(engine, workers=2) as session:
        tasks = (delayed(square)(i) for i in range(300))
        found = parallel(batch_size=1, session=session)(tasks)
    assert found == [i * i for i in range(300)]


def test_an_initializer_runs_in_each_worker() -> None:
    def read() -> str | None:
        time.sleep(0.05)
        return os.environ.get("MANYHANDS_TEST")

    def write(value: str) -> None:
        os.environ["MANYHANDS_TEST"] = value

    options = {"initializer": write, "initargs": ("here",)}
    assert set(parallel(**options)(delayed(read)() for _ in range(8))) == {"here"}
    first = list_pids(**options)
    assert list_pids(**options) == first
    assert not list_pids(initializer=write, initargs=("there",)) & first
    with joblib.parallel_config("manyhands", n_jobs=2, **options):
        assert set(Parallel()(delayed(read)() for _ in range(8))) == {"here"}


def read_threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def test_inner_threads_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    each = str(max(1, joblib.cpu_count() // 2))
    assert parallel()(delayed(read_threads)() for _ in range(2)) == [each] * 2
    with joblib.parallel_config("manyhands", n_jobs=2, inner_max_num_threads=3):
        assert Parallel()(delayed(read_threads)() for _ in range(2)) == ["3"] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert parallel()(delayed(read_threads)() for _ in range(2)) == ["5"] * 2


def test_what_a_manager_of_multiprocessing_holds_can_be_used() -> None:
    with Manager() as manager:
        shared = manager.list()
        parallel()(delayed(shared.append)(i) for i in range(5))
        assert sorted(shared) == [0, 1, 2, 3, 4]


# Calls inside calls.


def call_inside(backend: str | None) -> tuple[str, int, set[tuple[int, int]]]:
    inside = Parallel(n_jobs=2, backend=backend)
    found = inside(delayed(get_pids)() for _ in range(4))
    return type(inside._backend).__name__, os.getppid(), set(found)


def get_pids() -> tuple[int, int]:
    time.sleep(0.02)
    return os.getpid(), os.getppid()


def test_parallel_calls_inside_use_threads() -> None:
    for kind, _, pids in parallel()(delayed(call_inside)(None) for _ in range(3)):
        assert kind == "ThreadingBackend"
        assert len(pids) == 1


@pytest.mark.parametrize("backend", ["manyhands", "loky", "multiprocessing"])
def test_processes_for_calls_inside_are_the_workers_that_there_are(backend: str) -> None:
    found = parallel()(delayed(call_inside)(backend) for _ in range(3))
    assert {kind for kind, _, _ in found} == {"ManyhandsBackend"}
    # All are children of the template, and none is a child of a worker.
    assert len({parent for _, parent, pids in found for _, parent in {(0, parent), *pids}}) == 1


def recurse(depth: int) -> int:
    if not depth:
        return 1
    return sum(parallel()(delayed(recurse)(depth - 1) for _ in range(2)))


def test_calls_may_be_nested_deeply() -> None:
    assert recurse(4) == 16


def test_a_call_of_a_map_uses_the_workers_of_its_session() -> None:
    def fit(_: int) -> set[int]:
        found = Parallel(n_jobs=2)(delayed(get_pids)() for _ in range(4))
        return {os.getppid(), *(parent for _, parent in found)}

    with mh.Session(workers=2) as session:
        assert len(set().union(*session.map(fit, range(2)))) == 1
