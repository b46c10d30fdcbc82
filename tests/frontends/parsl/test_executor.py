"""How kernels with our executor begin and end, what becomes of workers that die, and what Parsl asks of an executor."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import parsl
import pytest
from parsl.dataflow.states import States
from parsl.monitoring.message_type import MessageType
from parsl.monitoring.remote import monitor_wrapper

import manyhands as mh
from manyhands.testing.checks import wait_for
from tests.frontends.parsl.kernels import (
    LIMIT,
    add,
    fail,
    get_pid,
    kill_worker,
    load_kernel,
    note,
    wait_for_file,
)
from tests.project.test_no_ports import children_of, links, listening_inodes


def list_children() -> set[str]:
    return {
        pid
        for path in Path("/proc/self/task").glob("*/children")
        for pid in path.read_text().split()
    }


def test_a_worker_imports_parsl_only_for_apps_that_need_it(tmp_path: Path) -> None:
    @parsl.python_app
    def is_loaded() -> bool:
        return "parsl" in sys.modules

    with load_kernel(tmp_path):
        assert is_loaded().result(LIMIT) is False


def test_a_lower_priority_goes_first_and_any_before_none(tmp_path: Path) -> None:
    order, gate = tmp_path / "order", tmp_path / "gate"
    with load_kernel(tmp_path, mh.ParslExecutor(workers=1)) as kernel:
        begun = tmp_path / "begun"

        @parsl.python_app
        def block() -> None:
            begun.touch()
            while not gate.exists():
                time.sleep(0.005)

        blocker = block()
        wait_for(begun.exists, "the first app has begun")
        futures = [
            note(order, word, parsl_resource_specification=specification)
            for word, specification in (
                ("d", {}),
                ("c", {"priority": 7}),
                ("a", {"priority": -1}),
                ("b", {"priority": 0}),
            )
        ]
        wait_for(
            lambda: kernel.task_state_counts[States.launched] == 5,
            "all apps are with the executor",
        )
        gate.touch()
        for future in (blocker, *futures):
            future.result(LIMIT)
    assert order.read_text() == "abcd"


def test_an_app_uses_the_resources_of_a_given_session(tmp_path: Path) -> None:
    @parsl.python_app
    def see(parsl_resource_specification: dict[str, Any]) -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]

    with (
        mh.Session(workers=1, gpus=["7"], resources={"licence": 1}) as session,
        load_kernel(tmp_path, mh.ParslExecutor(session=session)),
    ):
        wanted = {"gpus": 1, "resources": {"licence": 1}}
        assert see(parsl_resource_specification=wanted).result(LIMIT) == "7"


# Workers that die, and attempts.


def test_a_killed_worker_fails_its_app_alone(tmp_path: Path) -> None:
    with load_kernel(tmp_path):
        killer = kill_worker(tmp_path / "mark")
        others = [add(number, 1) for number in range(50)]
        error = killer.exception(LIMIT)
        assert isinstance(error, mh.WorkerDiedError)
        assert error.signal == signal.SIGKILL
        assert [other.result(LIMIT) for other in others] == list(range(1, 51))


def test_a_killed_worker_costs_one_attempt(tmp_path: Path) -> None:
    seen = []

    def weigh(error: Exception, task: Any) -> int:
        seen.append(type(error))
        return 1

    with load_kernel(tmp_path, retries=1, retry_handler=weigh):
        assert kill_worker(tmp_path / "mark").result(LIMIT) == "done"
    assert seen == [mh.WorkerDiedError]


def test_an_app_is_tried_as_often_as_the_config_says(tmp_path: Path) -> None:
    @parsl.python_app
    def leave_mark_and_fail() -> None:
        with (tmp_path / "marks").open("a") as file:
            file.write("x")
        raise OSError("again")

    with load_kernel(tmp_path, retries=2):
        assert isinstance(leave_mark_and_fail().exception(LIMIT), OSError)
    assert (tmp_path / "marks").read_text() == "xxx"


# Beginning and end.


def test_the_end_cancels_what_is_under_way_and_leaves_no_process(tmp_path: Path) -> None:
    before = list_children()
    with load_kernel(tmp_path) as kernel:
        futures = [wait_for_file(tmp_path / "never") for _ in range(4)]
        wait_for(
            lambda: kernel.task_state_counts[States.launched] == len(futures),
            "all apps are with the executor",
        )
    for future in futures:
        assert isinstance(future.exception(LIMIT), CancelledError)
    wait_for(lambda: list_children() == before, "no process is left")


def test_apps_with_attempts_left_end_with_their_kernel(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with load_kernel(tmp_path, retries=3) as kernel:
        futures = [wait_for_file(tmp_path / "never") for _ in range(300)]
        wait_for(
            lambda: kernel.task_state_counts[States.launched] == len(futures),
            "all apps are with the executor",
        )
    assert all(future.done() for future in futures)
    assert {type(future.exception()).__mro__[1] for future in futures} == {mh.SessionClosedError}
    assert "exception calling callback" not in caplog.text


def test_one_config_can_be_loaded_again_after_its_end(tmp_path: Path) -> None:
    executor = mh.ParslExecutor(workers=1)
    config = parsl.Config(
        executors=[executor], run_dir=str(tmp_path / "runinfo"), initialize_logging=False
    )
    for _ in range(2):
        with parsl.load(config):
            assert add(1, 2).result(LIMIT) == 3
    executor.shutdown()  # once more


def test_an_executor_serves_one_kernel_at_a_time() -> None:
    executor = mh.ParslExecutor(workers=1)
    executor.start()
    try:
        with pytest.raises(mh.InvalidArgumentError, match="'manyhands' is in use"):
            executor.start()
    finally:
        executor.shutdown()


def test_an_executor_that_does_not_run_takes_nothing() -> None:
    executor = mh.ParslExecutor(workers=1)
    with pytest.raises(mh.SessionClosedError, match="is not running"):
        executor.submit(abs, {}, -1)
    executor.start()
    future = executor.submit(abs, {}, -1)
    assert future.result(LIMIT) == 1
    executor.shutdown()
    with pytest.raises(mh.SessionClosedError, match="is not running"):
        executor.submit(abs, {}, -1)


def test_a_given_session_stays_open_and_keeps_its_other_calls(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait_here() -> str:
        while not gate.exists():
            time.sleep(0.005)
        return "ours"

    with mh.Session(workers=2) as session:
        ours = session.submit(wait_here)
        with load_kernel(tmp_path, mh.ParslExecutor(session=session)):
            theirs = wait_for_file(tmp_path / "never")
            wait_for(lambda: theirs.task_status() == "launched", "the app is with the executor")
        assert isinstance(theirs.exception(LIMIT), CancelledError)
        gate.touch()
        assert ours.result(LIMIT) == "ours"


def test_nothing_of_a_kernel_is_kept_after_its_end(tmp_path: Path) -> None:
    with load_kernel(tmp_path) as kernel:
        add(1, 2).result(LIMIT)
        executor = weakref.ref(kernel.executors["manyhands"])
        session = weakref.ref(kernel.executors["manyhands"]._running)
        reference = weakref.ref(kernel)
    del kernel
    wait_for(
        lambda: gc.collect() >= 0 and not (reference() or executor() or session()),
        "kernel, executor and session are gone",
    )


@pytest.mark.parametrize("engine", ["threads", "inline"])
def test_other_engines_run_apps_too(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANYHANDS_ENGINE", engine)
    with load_kernel(tmp_path) as kernel:
        assert get_pid().result(LIMIT) == os.getpid()
        assert add(add(1, 2), 3).result(LIMIT) == 6
        assert isinstance(fail("no").exception(LIMIT), ValueError)
        assert kernel.executors["manyhands"].monitor_resources() is False


FORGETFUL = """
import parsl
import manyhands as mh

parsl.load(parsl.Config(executors=[mh.ParslExecutor(workers=1)], initialize_logging=False))

@parsl.python_app
def double(x):
    return 2 * x

print(double(21).result())
"""


def test_a_program_that_forgets_the_clean_up_ends_all_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


# What Parsl asks of an executor.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label": ""}, "label=''"),
        ({"label": 3}, "label=3"),
        ({"session": "local"}, "session='local'"),
    ],
    ids=str,
)
def test_what_an_executor_cannot_be_made_of(options: dict[str, Any], words: str) -> None:
    with pytest.raises(mh.InvalidArgumentError, match=words):
        mh.ParslExecutor(**options)


def test_workers_and_a_session_exclude_each_other() -> None:
    with mh.Session("inline") as session, pytest.raises(mh.InvalidArgumentError, match="workers=2"):
        mh.ParslExecutor(workers=2, session=session)


def test_a_number_of_workers_that_cannot_be_is_said_at_the_start() -> None:
    with pytest.raises(mh.InvalidArgumentError, match="workers=0"):
        mh.ParslExecutor(workers=0).start()


def test_no_port_is_opened(tmp_path: Path) -> None:
    with load_kernel(tmp_path):
        get_pid().result(LIMIT)
        family = children_of(os.getpid())
        assert len(family) >= 3, "expected at least the program and its two workers"
        opened = {link for pid in family for link in links(pid)}
        assert not opened & {f"socket:[{inode}]" for inode in listening_inodes()}


def test_it_is_shown_as_it_is_made() -> None:
    assert "label='other'" in repr(mh.ParslExecutor("other", workers=2))


def test_apps_report_to_the_monitoring_by_files(tmp_path: Path) -> None:
    executor = mh.ParslExecutor(workers=1)
    radio = executor.remote_monitoring_radio
    radio.run_dir = str(tmp_path)  # as Parsl's monitoring does
    executor.start()
    try:
        assert executor.monitor_resources() is True
        function, args, kwargs = monitor_wrapper(
            f=abs,
            args=(-1,),
            kwargs={},
            x_try_id=0,
            x_task_id=0,
            radio_config=radio,
            run_id="run",
            logging_level=20,
            sleep_dur=30.0,
            monitor_resources=True,
            run_dir=str(tmp_path),
        )
        assert executor.submit(function, {}, *args, **kwargs).result(LIMIT) == 1
    finally:
        executor.shutdown()
    messages = (tmp_path / "monitor-fs-radio" / "new").iterdir()
    kinds = [pickle.loads(path.read_bytes())[0] for path in messages]
    assert kinds.count(MessageType.WORKER_TASK_INFO) == 2  # its first word, and its last one
    assert kinds.count(MessageType.RESOURCE_INFO) >= 1  # between them, as often as it comes to it


def test_without_parsl_the_name_is_there_and_its_use_says_what_is_missing() -> None:
    program = (
        "import sys; sys.modules['parsl'] = None\n"
        "from manyhands import *\n"
        "try:\n    ParslExecutor(workers=2)\n"
        "except DoorNotInstalledError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'manyhands[parsl]'" in done.stdout
