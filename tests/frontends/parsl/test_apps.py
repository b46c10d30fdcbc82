"""Every kind of app, what travels, and what apps may ask for: on one kernel with two workers."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import parsl
import pytest
from parsl.app.errors import AppTimeout, BashExitFailure
from parsl.data_provider.files import File
from parsl.dataflow.errors import DependencyError
from parsl.executors.errors import InvalidResourceSpecification

import manyhands as mh
from manyhands.core.functions import Function, FunctionTable
from tests.frontends.parsl.kernels import LIMIT, add, echo, fail, get_pid, load_kernel, note


@pytest.fixture(scope="module", autouse=True)
def _kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with load_kernel(tmp_path_factory.mktemp("parsl")):
        yield


# Apps of each kind.


def test_apps_run_in_workers_and_not_in_the_program() -> None:
    assert get_pid().result(LIMIT) != os.getpid()


def test_lambdas_and_closures_are_apps() -> None:
    factor = 3
    triple = parsl.python_app(lambda x: x * factor)
    assert [future.result(LIMIT) for future in [triple(x) for x in range(50)]] == list(
        range(0, 150, 3)
    )


def test_an_app_that_changes_what_it_uses_is_sent_anew() -> None:
    numbers = [1]
    count = parsl.python_app(lambda: sum(numbers))
    assert count().result(LIMIT) == 1
    numbers.append(2)
    assert count().result(LIMIT) == 3


def test_a_bash_app_that_changes_what_it_uses_is_sent_anew(tmp_path: Path) -> None:
    words = ["one"]

    @parsl.bash_app
    def say(stdout: str) -> str:
        return f"echo {' '.join(words)}"

    for number, expected in enumerate(("one\n", "one two\n")):
        say(stdout=str(tmp_path / f"{number}")).result(LIMIT)
        assert (tmp_path / f"{number}").read_text() == expected
        words.append("two")


def test_a_partial_with_keywords_is_an_app() -> None:
    sort_down = partial(sorted, reverse=True)
    sort_down.__name__ = "sort_down"  # Parsl wants one
    assert parsl.python_app(sort_down)([1, 3, 2]).result(LIMIT) == [3, 2, 1]


def test_the_function_of_an_app_is_pickled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = []
    pickle = FunctionTable._pickle

    def note_pickle(table: FunctionTable, function: Callable[..., Any]) -> Function:
        pickled.append(function)
        return pickle(table, function)

    monkeypatch.setattr(FunctionTable, "_pickle", note_pickle)

    @parsl.python_app
    def double(x: int, walltime: float | None = None) -> int:
        return 2 * x

    calls = [double(1), double(1, walltime=50), echo("true")]
    calls += [double(1), double(1, walltime=50), echo("true")]
    assert [call.result(LIMIT) for call in calls] == [2, 2, 0] * 2
    assert len(pickled) == 3


def test_results_are_dependencies() -> None:
    assert add(add(1, 2), add(3, add(4, 5))).result(LIMIT) == 15


def test_our_futures_are_dependencies() -> None:
    with mh.Session("threads", workers=1) as session:
        assert add(session.submit(abs, -1), 2).result(LIMIT) == 3


def test_a_failed_dependency_is_parsls_error() -> None:
    error = add(fail("no"), 1).exception(LIMIT)
    assert isinstance(error, DependencyError)


def test_a_join_app_is_made_of_other_apps() -> None:
    @parsl.join_app
    def total(numbers: list[int]) -> Any:
        if len(numbers) == 2:
            return add(*numbers)
        return add(numbers[0], total(numbers[1:]))

    assert total([1, 2, 3, 4]).result(LIMIT) == 10


def test_a_bash_app_writes_its_output_to_files(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    assert echo("echo one; echo two >&2", stdout=str(out), stderr=str(err)).result(LIMIT) == 0
    assert out.read_text() == "one\n"
    assert err.read_text().endswith("two\n")


def test_a_bash_app_fails_with_the_exit_code_of_its_command() -> None:
    error = echo("exit 7").exception(LIMIT)
    assert isinstance(error, BashExitFailure)
    assert error.exitcode == 7


def test_a_wall_time_ends_apps() -> None:
    @parsl.python_app
    def spin(walltime: float) -> None:
        while True:
            pass

    futures = [spin(walltime=0.05), echo("sleep 60", walltime=0.05)]
    assert [type(future.exception(LIMIT)) for future in futures] == [AppTimeout] * 2


def test_files_go_from_app_to_app(tmp_path: Path) -> None:
    @parsl.bash_app
    def write(text: str, outputs: tuple[File, ...] = ()) -> str:
        return f"echo {text} > {outputs[0]}"

    @parsl.python_app
    def read(inputs: tuple[File, ...] = ()) -> str:
        return Path(inputs[0]).read_text()

    written = write("hello", outputs=[File(str(tmp_path / "hello.txt"))])
    assert read(inputs=[written.outputs[0]]).result(LIMIT) == "hello\n"


def test_a_memoised_app_runs_once(tmp_path: Path) -> None:
    @parsl.python_app(cache=True)
    def leave_mark(path: str) -> int:
        with Path(path).open("a") as file:
            return file.write("x")

    assert [leave_mark(str(tmp_path / "marks")).result(LIMIT) for _ in range(3)] == [1, 1, 1]
    assert (tmp_path / "marks").read_text() == "x"


# What travels.


def test_an_exception_comes_back_with_its_cause_and_remote_traceback() -> None:
    error = fail("no").exception(LIMIT)
    assert isinstance(error, ValueError)
    assert error.args == ("no",)
    assert isinstance(error.__cause__, KeyError)
    assert "in fail" in error.__notes__[0]


def test_an_exception_that_cannot_be_pickled_comes_back_all_the_same() -> None:
    @parsl.python_app
    def raise_lock() -> None:
        raise ValueError("locked", threading.Lock())

    error = raise_lock().exception(LIMIT)
    assert isinstance(error, ValueError)
    assert error.args[0] == "locked"


def test_what_cannot_travel_is_the_error_of_its_app() -> None:
    @parsl.python_app
    def make_lock() -> object:
        return threading.Lock()

    @parsl.python_app
    def take(value: object) -> None: ...

    for future in (make_lock(), take(threading.Lock()), take(n for n in range(3))):
        assert isinstance(future.exception(LIMIT), mh.UnpicklableError)


# What apps may ask for.


@pytest.mark.parametrize(
    "specification",
    [
        {"cores": 2},
        {"cpus": 0.5},
        {"memory": 500, "cores": 1},
        {"memory": "1GB"},
        {"priority": -3},
        {"timeout": 50.0},
        {"gpus": 0, "resources": {}},
    ],
    ids=str,
)
def test_an_app_may_ask_for(specification: dict[str, Any], tmp_path: Path) -> None:
    note(tmp_path / "note", "x", parsl_resource_specification=specification).result(LIMIT)
    assert (tmp_path / "note").read_text() == "x"


@pytest.mark.parametrize(
    ("specification", "names", "words"),
    [
        ({"disk": 5, "cores": 1}, ["disk"], "cores, cpus, gpus, memory, priority"),
        ({"num_nodes": 1, "num_ranks": 1}, ["num_nodes", "num_ranks"], "takes"),
        ({"cores": 1, "cpus": 1}, ["cores", "cpus"], "one of them"),
        ({"cores": -1}, ["cores"], "cpus=-1"),
        ({"memory": "many"}, ["memory"], "memory='many'"),
        ({"memory": True}, ["memory"], "memory=True"),
        ({"priority": 1.5}, ["priority"], "priority=1.5"),
        ({"timeout": 0}, ["timeout"], "timeout=0"),
    ],
    ids=str,
)
def test_an_app_may_not_ask_for(
    specification: dict[str, Any], names: list[str], words: str, tmp_path: Path
) -> None:
    error = note(tmp_path / "note", "x", parsl_resource_specification=specification).exception(
        LIMIT
    )
    assert isinstance(error, InvalidResourceSpecification)
    assert error.invalid_keys == set(names)
    assert words in str(error)


def test_an_app_that_asks_for_more_than_there_is_fails(tmp_path: Path) -> None:
    future = note(tmp_path / "note", "x", parsl_resource_specification={"cores": 100})
    assert isinstance(future.exception(LIMIT), mh.InvalidArgumentError)


def test_a_timeout_ends_an_app() -> None:
    @parsl.python_app
    def spin(parsl_resource_specification: dict[str, Any]) -> None:
        while True:
            pass

    future = spin(parsl_resource_specification={"timeout": 0.05})
    assert isinstance(future.exception(LIMIT), mh.CallTimeoutError)


def test_memory_is_a_limit_in_megabytes() -> None:
    @parsl.python_app
    def hoard(parsl_resource_specification: dict[str, Any]) -> None:
        _block = b"x" * 200_000_000
        threading.Event().wait(LIMIT)

    error = hoard(parsl_resource_specification={"memory": 50}).exception(LIMIT)
    assert isinstance(error, mh.OutOfMemoryError)
    assert error.limit == 50_000_000
