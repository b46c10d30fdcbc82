"""A user's exception on its way home."""

import os
import threading
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.core import place
from manyhands.core.exceptions import pack_exception, unpack_exception
from manyhands.errors import RemoteError, WorkerDiedError

LOCK = threading.Lock()


class TwoArguments(Exception):
    """Its ``__init__`` takes other arguments than those it passes on."""

    def __init__(self, path: str, line: int) -> None:
        super().__init__(f"{path}:{line}")
        self.path = path
        self.line = line


class Formatting(Exception):
    """As above, but it can be made from the one that it passes on."""

    def __init__(self, code: object) -> None:
        super().__init__(f"failed with {code}")
        self.code = code


class StrFails(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Unreducible(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("not me")


class WithNew(Exception):
    def __new__(cls, *args: object) -> Self:
        if len(args) != 2:
            raise TypeError("two of them")
        return super().__new__(cls, *args)

    def __init__(self, first: object, second: object) -> None:
        super().__init__("one")


class LoadsAsAnother(Exception):
    def __reduce__(self) -> Any:
        return ValueError, ("another",)


def raise_it(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def send(error: BaseException) -> BaseException:
    return unpack_exception(pack_exception(raise_it(error)))


@given(st.lists(st.none() | st.integers() | st.text() | st.binary(), max_size=4))
def test_a_built_in_error_arrives_as_itself(args: list[Any]) -> None:
    for kind in (ValueError, KeyError, Exception, KeyboardInterrupt):
        arrived = send(kind(*args))
        assert type(arrived) is kind
        assert arrived.args == tuple(args)


def test_attributes_arrive() -> None:
    error = OSError(2, "no such", "file.txt")
    arrived = send(error)
    assert isinstance(arrived, FileNotFoundError)
    assert (arrived.errno, arrived.filename) == (2, "file.txt")


def test_an_init_with_other_arguments_is_no_obstacle() -> None:
    arrived = send(TwoArguments("a.py", 7))
    assert type(arrived) is TwoArguments
    assert str(arrived) == "a.py:7"
    assert (arrived.path, arrived.line) == ("a.py", 7)


def test_an_init_that_formats_its_message_is_not_run_on_the_message() -> None:
    arrived = send(Formatting(3))
    assert type(arrived) is Formatting
    assert str(arrived) == "failed with 3"
    assert arrived.code == 3


def test_a_class_of_a_function_arrives() -> None:
    class Local(LookupError):
        pass

    arrived = send(Local("x"))
    assert isinstance(arrived, LookupError)
    assert type(arrived).__name__ == "Local"
    assert arrived.args == ("x",)


@pytest.mark.parametrize("where", ["argument", "attribute"])
def test_a_part_that_cannot_travel_is_described_in_its_place(where: str) -> None:
    error = ValueError("kept", LOCK) if where == "argument" else ValueError("kept")
    if where == "attribute":
        error.lock = LOCK  # type: ignore[attr-defined]
    arrived = send(error)
    assert type(arrived) is ValueError
    assert arrived.args[0] == "kept"
    described = arrived.args[1] if where == "argument" else arrived.lock  # type: ignore[attr-defined]
    assert "could not travel" in described
    assert "lock" in described


def test_an_error_that_will_not_be_pickled_travels_in_pieces() -> None:
    arrived = send(Unreducible("kept"))
    assert type(arrived) is Unreducible
    assert arrived.args == ("kept",)


def test_a_class_that_cannot_be_made_again_has_a_stand_in() -> None:
    arrived = send(WithNew(1, 2))
    assert isinstance(arrived, RemoteError)
    assert arrived.type_name == f"{__name__}.WithNew"
    assert str(arrived) == f"{__name__}.WithNew: one"


def test_an_error_that_loads_as_another_travels_in_pieces() -> None:
    arrived = send(LoadsAsAnother("kept"))
    assert type(arrived) is LoadsAsAnother
    assert arrived.args == ("kept",)


def test_an_error_without_words_arrives() -> None:
    arrived = send(StrFails("x"))
    assert type(arrived) is StrFails
    assert "StrFails" in arrived.__notes__[0]


def test_what_cannot_be_rebuilt_here_is_said() -> None:
    payload = pack_exception(raise_it(TwoArguments("a.py", 7)))
    assert b"TwoArguments" in payload
    arrived = unpack_exception(payload.replace(b"TwoArguments", b"TwoArgumentz"))
    assert isinstance(arrived, RemoteError)
    assert "could not be rebuilt" in str(arrived)


def fail_deep() -> None:
    raise ValueError("deep")


def run_deep() -> None:
    fail_deep()


def catch(run: Any) -> BaseException:
    try:
        run()
    except BaseException as caught:
        return caught
    raise AssertionError("nothing was raised")


def test_the_remote_traceback_is_a_note() -> None:
    (note,) = unpack_exception(pack_exception(catch(run_deep))).__notes__
    assert note.startswith("Traceback in worker process ")
    assert "in run_deep" in note
    assert "in fail_deep" in note
    assert note.endswith("ValueError: deep")


def test_our_own_frames_are_left_out() -> None:
    (note,) = unpack_exception(pack_exception(catch(run_deep), skip=2)).__notes__
    assert "in catch" not in note
    assert "in run_deep" not in note
    assert "in fail_deep" in note


def test_more_frames_are_never_left_out_than_there_are() -> None:
    (note,) = unpack_exception(pack_exception(catch(run_deep), skip=9)).__notes__
    assert "in fail_deep" in note


def test_the_users_notes_come_first() -> None:
    error = ValueError("x")
    error.add_note("mine")
    mine, ours = send(error).__notes__
    assert mine == "mine"
    assert "Traceback in worker" in ours


def test_our_own_errors_need_no_traceback() -> None:
    error = WorkerDiedError("it died")
    error.pid = 12
    arrived = send(error)
    assert isinstance(arrived, WorkerDiedError)
    assert arrived.pid == 12
    assert not hasattr(arrived, "__notes__")


def raise_from() -> None:
    try:
        raise KeyError("inner")
    except KeyError as inner:
        raise ValueError("outer") from inner


def raise_during() -> None:
    try:
        raise KeyError("inner")
    except KeyError:
        raise ValueError("outer")  # noqa: B904 - what is tested


def raise_from_none() -> None:
    try:
        raise KeyError("inner")
    except KeyError:
        raise ValueError("outer") from None


@pytest.mark.parametrize(
    ("run", "has_cause", "suppressed"),
    [(raise_from, True, True), (raise_during, False, False), (raise_from_none, False, True)],
)
def test_the_chain_arrives(run: Any, has_cause: bool, suppressed: bool) -> None:
    arrived = unpack_exception(pack_exception(catch(run)))
    assert (arrived.__cause__ is not None) == has_cause
    assert arrived.__suppress_context__ == suppressed
    assert isinstance(arrived.__context__, KeyError)
    assert arrived.__context__.args == ("inner",)
    if has_cause:
        assert isinstance(arrived.__cause__, KeyError)


def write_to_an_array() -> None:
    np.frombuffer(b"12345678", "u1")[0] = 1


def sort_an_array() -> None:
    np.frombuffer(b"12345678", "u1").sort()


def write_into_an_array() -> None:
    np.add(1, 1, out=np.frombuffer(b"12345678", "i8"))


def write_to_a_view() -> None:
    memoryview(b"abc")[0] = 1  # type: ignore[index]


def write_to_a_file() -> None:
    with open(os.devnull) as file:  # noqa: PTH123
        file.write("x")


def fail_otherwise() -> None:
    raise ValueError("out of range")


def change_an_attribute() -> None:
    (1).real = 2  # type: ignore[misc]


def tell_of_files() -> None:
    raise OSError("the file system is read-only")


def catch_from(fn: Any) -> BaseException:
    with pytest.raises(Exception) as caught:
        fn()
    return caught.value


@pytest.mark.parametrize(
    "fn", [write_to_an_array, sort_an_array, write_into_an_array, write_to_a_view]
)
def test_who_writes_to_an_argument_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, fn: Any
) -> None:
    monkeypatch.setattr(place, "in_worker", True)
    error = catch_from(fn)
    arrived = unpack_exception(pack_exception(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    (note,) = arrived.__notes__
    for way in ("x = x.copy()", "mh.put(x, copy=True)", "mh.put(x, writable=True)"):
        assert way in note
    assert note.startswith("Traceback in worker process")


@pytest.mark.parametrize(
    "fn", [write_to_a_file, fail_otherwise, change_an_attribute, tell_of_files]
)
def test_others_are_not(monkeypatch: pytest.MonkeyPatch, fn: Any) -> None:
    monkeypatch.setattr(place, "in_worker", True)
    (note,) = unpack_exception(pack_exception(catch_from(fn))).__notes__
    assert "mh.put" not in note


def test_the_program_itself_is_not_told() -> None:
    (note,) = unpack_exception(pack_exception(catch_from(write_to_an_array))).__notes__
    assert "mh.put" not in note


def test_an_error_without_words_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(ValueError):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    monkeypatch.setattr(place, "in_worker", True)
    assert unpack_exception(pack_exception(raise_it(Silent()))) is not None
