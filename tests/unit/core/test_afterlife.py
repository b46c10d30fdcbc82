"""What becomes of actors that have died."""

import copyreg
from typing import Any

import pytest

from manyhands.core import acting
from manyhands.core.acting import ActorMaker, ActorMethod, remove_actor
from manyhands.core.afterlife import (
    make_absence_error,
    make_again,
    make_revival_error,
    make_stop_error,
    renew,
)
from manyhands.core.attempt import attempt
from manyhands.core.model import Call
from manyhands.core.objects import Snapshot
from manyhands.errors import ActorDiedError


class Counter:
    def __init__(self, value: int) -> None:
        self.value = value

    def get(self) -> int:
        return self.value

    @classmethod
    def restore(cls, value: int) -> "Counter":
        return cls(value)


def make(every: int = 2) -> Call:
    return Call(3, ActorMaker(990001, Counter, every), (5,), {})


def get_value(call: Call) -> Any:
    """Of the actor that a call makes."""
    sink: Any = None
    assert attempt(call, sink) == (None, None)
    try:
        return ActorMethod(990001, "get", "Counter.get")()
    finally:
        remove_actor(990001)
        assert 990001 not in acting._stages


def test_without_a_state_it_is_made_from_its_arguments() -> None:
    making = make()
    assert make_again(making, None) is making
    assert get_value(making) == 5


def test_it_is_made_of_what_was_kept_last() -> None:
    again = make_again(make(), Snapshot(7))
    assert again.key == 3
    assert get_value(again) == 7


def test_what_keeps_no_state_is_made_from_its_arguments() -> None:
    making = make(every=0)
    assert make_again(making, Snapshot(7)) is making


def test_errors_name_the_actor() -> None:
    cause = ValueError("x")
    stopped, revived = make_stop_error(make()), make_revival_error(make(), cause)
    assert stopped.actor == revived.actor == "Counter"
    assert "Counter was stopped" in str(stopped)
    assert "could not be made again: ValueError('x')" in str(revived)
    assert revived.__cause__ is cause
    call = Call(1, ActorMethod(1, "get", "Counter.get"), (), {})
    assert "Counter.get: this session has no such actor" in str(make_absence_error(call))


def test_each_call_has_an_error_of_its_own() -> None:
    error = ActorDiedError("gone")
    error.actor = "Counter"
    error.__cause__ = ValueError("x")
    fresh = renew(error)
    assert isinstance(fresh, ActorDiedError)
    assert fresh is not error
    assert (str(fresh), fresh.actor, fresh.__cause__) == ("gone", "Counter", error.__cause__)
    fresh.add_note("of one call")
    assert not hasattr(error, "__notes__")
    error.add_note("of all")
    renew(error).add_note("of another call")
    assert error.__notes__ == ["of all"]


def test_it_has_so_beside_libraries_that_copy_errors_in_their_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def share(error: ActorDiedError) -> Any:
        return _rebuild_sharing, (error.__dict__, error.args)

    monkeypatch.setitem(copyreg.dispatch_table, ActorDiedError, share)
    error = ActorDiedError("gone")
    renew(error).add_note("of one call")
    assert not hasattr(error, "__notes__")


def _rebuild_sharing(content: dict[str, Any], args: tuple[Any, ...]) -> ActorDiedError:
    error = ActorDiedError(*args)
    error.__dict__ = content
    return error


def test_an_error_that_cannot_be_copied_is_used_again() -> None:
    class PickyError(Exception):
        def __init__(self, one: int, *, two: int) -> None:
            super().__init__(one)

    error = PickyError(1, two=2)
    assert renew(error) is error
