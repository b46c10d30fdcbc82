"""Options of calls, tasks and maps, checked before any work begins."""

import ast
import inspect
from typing import Any

import pytest

from manyhands.core import options as options_module
from manyhands.core.model import DEFAULT_OPTIONS, NO_RETRIES
from manyhands.core.options import (
    MAP_OPTIONS,
    TASK_OPTIONS,
    check_on_error,
    check_seconds,
    make_options,
    make_policy,
    reject_unknown,
)
from manyhands.core.resources import ONE_CPU, make_need
from manyhands.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("retries", "retry_on"),
    [
        (-1, Exception),
        (1.5, Exception),
        (True, Exception),
        ("1", Exception),
        (1, "ValueError"),
        (1, [ValueError]),
        (1, (ValueError, int)),
        (1, ValueError()),
        (0, 3),
        (1, int),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(retries: Any, retry_on: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="retr"):
        make_policy(retries, retry_on)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"worker_retries": -1}, "worker_retries=-1"),
        ({"worker_retries": True}, "worker_retries=True"),
        ({"worker_retries": 0.5}, r"worker_retries=0\.5"),
        ({"backoff": -0.1}, r"backoff=-0\.1"),
        ({"backoff": "1"}, "backoff='1'"),
        ({"backoff": True}, "backoff=True"),
        ({"backoff": float("nan")}, "backoff=nan"),
        ({"backoff_cap": float("inf")}, "backoff_cap=inf"),
        ({"backoff_cap": None}, "backoff_cap=None"),
    ],
)
def test_numbers_of_a_policy_that_cannot_be_meant_are_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        make_policy(**options)


def test_policies() -> None:
    assert make_policy(0, (OSError,)) is NO_RETRIES
    policy = make_policy(2, KeyboardInterrupt)
    assert (policy.retries, policy.retry_on) == (2, (KeyboardInterrupt,))
    assert make_policy(1, ()).retry_on == ()
    assert make_policy(worker_retries=0).worker_retries == 0
    timed = make_policy(1, backoff=0, backoff_cap=0)
    assert (timed.backoff, timed.backoff_cap, timed.worker_retries) == (0, 0, 1)


def test_a_function_may_say_what_is_tried_again() -> None:
    is_transient = lambda error: "again" in str(error)  # noqa: E731 - as users write it
    policy = make_policy(1, is_transient)
    assert policy.retry_on is is_transient
    assert policy.covers(ValueError("try again"))
    assert not policy.covers(ValueError("no"))


def test_what_is_left_out_is_as_for_any_call() -> None:
    assert make_options({}) is DEFAULT_OPTIONS
    options = make_options({"name": "x"})
    assert (options.policy, options.need, options.timeout) == (NO_RETRIES, ONE_CPU, None)
    assert options.is_plain


def test_options_of_a_call() -> None:
    options = make_options(
        {
            "cpus": 2,
            "gpus": 0.5,
            "memory": "2GB",
            "resources": {"licence": 1},
            "retries": 3,
            "timeout": 1.5,
            "priority": -2,
            "name": "the squares",
        }
    )
    assert options.need is make_need(2, 0.5, "2GB", {"licence": 1})
    assert (options.policy.retries, options.timeout, options.priority) == (3, 1.5, -2)
    assert options.name == "the squares"
    assert not options.is_plain


@pytest.mark.parametrize(
    "options", [{"priority": 1}, {"cpus": 0}, {"resources": {"licence": 1}}, {"gpus": 1}]
)
def test_calls_that_are_not_like_others_to_a_scheduler(options: dict[str, Any]) -> None:
    assert not make_options(options).is_plain


@pytest.mark.parametrize("options", [{"cpus": 1.0}, {"timeout": 1}, {"retries": 1}, {"gpus": 0}])
def test_calls_that_are(options: dict[str, Any]) -> None:
    assert make_options(options).is_plain
    assert make_options(options).need is ONE_CPU


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"priority": 1.5}, r"priority=1\.5"),
        ({"priority": True}, "priority=True"),
        ({"priority": None}, "priority=None"),
        ({"name": 3}, "name=3"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": -1}, "timeout=-1"),
        ({"timeout": "1"}, "timeout='1'"),
        ({"timeout": True}, "timeout=True"),
        ({"timeout": float("inf")}, "timeout=inf"),
        ({"cpus": -1}, "cpus=-1"),
        ({"gpus": 1.5}, r"gpus=1\.5"),
        ({"memory": "much"}, "memory='much'"),
        ({"resources": 3}, "resources=3"),
        ({"retries": -1}, "retries=-1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        make_options(options)


def test_options_that_there_are_not_are_refused() -> None:
    with pytest.raises(TypeError, match=r"a task has no option tries, speed; it has cpus, .*"):
        make_options({"tries": 3, "speed": 1})
    with pytest.raises(TypeError, match=r"no option workers.*Session\(workers=\.\.\.\)"):
        reject_unknown({"workers": 3}, MAP_OPTIONS, "a map")
    reject_unknown({"retries": 3, "batch": 1}, MAP_OPTIONS, "a map")


def list_fields(name: str) -> list[str]:
    """Fields of a class that only type checkers see."""
    tree = ast.parse(inspect.getsource(options_module))
    (found,) = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name)
    return [
        n.target.id
        for n in found.body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    ]


def test_type_checkers_are_told_of_the_same_options() -> None:
    assert list_fields("TaskOptions") == list(TASK_OPTIONS)
    assert list_fields("TaskOptions") + list_fields("MapOptions") == list(MAP_OPTIONS)


def test_seconds() -> None:
    assert check_seconds(None, "timeout") is None
    assert check_seconds(0.001, "timeout") == 0.001
    assert check_seconds(10, "timeout") == 10


def test_what_becomes_of_errors_is_one_of_two() -> None:
    assert check_on_error("return") is True
    assert check_on_error("raise") is False
    with pytest.raises(InvalidArgumentError, match="on_error='ignore'"):
        check_on_error("ignore")
