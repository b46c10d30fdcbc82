"""What a call gets that has run out of time."""

import pickle

from manyhands.core.timeouts import add_stack, make_timeout_error
from manyhands.errors import CallTimeoutError


def test_the_error_tells_how_long_it_ran_and_what_to_do() -> None:
    error = make_timeout_error("simulate", 7, 1.5, 1.6234)
    assert str(error).startswith("call 7, simulate, had run for 1.62 s")
    assert "its timeout is 1.5 s" in str(error) and "timeout=" in str(error)
    assert (error.call, error.seconds, error.stack) == ("simulate", 1.6234, "")
    assert isinstance(error, TimeoutError)
    assert not hasattr(error, "__notes__")


def test_the_error_tells_where_it_stood() -> None:
    error = make_timeout_error("simulate", 7, 1, 2, "line 1\nline 2")
    assert error.stack == "line 1\nline 2"
    assert error.__notes__ == ["Where it stood:\nline 1\nline 2"]
    add_stack(error, "")
    assert len(error.__notes__) == 1


def test_the_error_travels() -> None:
    error = pickle.loads(pickle.dumps(make_timeout_error("simulate", 7, 1, 2, "line 1")))
    assert isinstance(error, CallTimeoutError)
    assert (error.call, error.seconds, error.stack) == ("simulate", 2, "line 1")
