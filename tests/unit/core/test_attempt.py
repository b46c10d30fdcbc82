"""One attempt at a call inside this process."""

from typing import Any

import pytest

from manyhands.core.attempt import attempt
from manyhands.core.model import Call
from manyhands.errors import WorkerDiedError


def leave(code: Any) -> None:
    raise SystemExit(code)


def fail(error: BaseException) -> None:
    raise error


def test_a_value() -> None:
    assert attempt(Call(1, divmod, (7, 2), {})) == ((3, 1), None)
    assert attempt(Call(1, sorted, ([1, 2],), {"reverse": True})) == ([2, 1], None)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_is_returned_as_itself(error: BaseException) -> None:
    value, caught = attempt(Call(1, fail, (error,), {}))
    assert value is None
    assert caught is error


@pytest.mark.parametrize(("code", "exit_code"), [(3, 3), (None, 0), (0, 0), ("bye", 1)])
def test_an_exit_is_what_it_would_be_in_a_worker(code: Any, exit_code: int) -> None:
    value, error = attempt(Call(7, leave, (code,), {}))
    assert value is None
    assert isinstance(error, WorkerDiedError)
    assert error.call == "leave"
    assert error.exit_code == exit_code
    assert error.signal is None
    assert isinstance(error.__cause__, SystemExit)
    assert f"call 7, leave, called sys.exit({code!r})" in str(error)
