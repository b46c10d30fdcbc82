"""One attempt at a call inside this process."""

import asyncio
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from manyhands.core import place
from manyhands.core.attempt import (
    attempt,
    attempt_rest,
    describe_call,
    follow,
    has_exited,
    is_awaitable,
)
from manyhands.core.future import Future
from manyhands.core.model import Call, CallOptions
from manyhands.errors import WorkerDiedError

SINK: Any = object()


class FakeOwner:
    """What a future asks of its session."""

    def attend(self) -> None:
        pass


def make_future() -> Future[Any]:
    owner: Any = FakeOwner()
    return Future(owner, 5, "inner")


def leave(code: Any) -> None:
    raise SystemExit(code)


def fail(error: BaseException) -> None:
    raise error


def run(fn: Any, *args: Any) -> Any:
    return attempt(Call(7, fn, args, {}), SINK)


def test_a_value() -> None:
    assert run(divmod, 7, 2) == ((3, 1), None)
    assert attempt(Call(1, sorted, ([1, 2],), {"reverse": True}), SINK) == ([2, 1], None)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_is_returned_as_itself(error: BaseException) -> None:
    value, caught = run(fail, error)
    assert value is None
    assert caught is error


@pytest.mark.parametrize(("code", "exit_code"), [(3, 3), (None, 0), (0, 0), ("bye", 1)])
def test_an_exit_is_what_it_would_be_in_a_worker(code: Any, exit_code: int) -> None:
    value, error = run(leave, code)
    assert value is None
    assert isinstance(error, WorkerDiedError)
    assert error.call == "leave"
    assert error.exit_code == exit_code
    assert error.signal is None
    assert isinstance(error.__cause__, SystemExit)
    assert f"call 7, leave, called sys.exit({code!r})" in str(error)


def test_an_exit_is_told_from_the_news_of_one() -> None:
    _, error = run(leave, 3)
    assert has_exited(error)
    _, passed_on = run(fail, error)
    assert passed_on is error
    assert not has_exited(passed_on)
    assert not has_exited(ValueError("x"))


def test_a_call_knows_where_it_is() -> None:
    post: Any = object()

    def look() -> Any:
        here = place.here.get()
        assert here is not None
        return here.session, here.key, here.post

    assert attempt(Call(3, look, (), {}), SINK, post) == ((SINK, 3, post), None)
    assert place.here.get() is None


def test_what_a_call_sets_stays_in_its_context() -> None:
    tone: ContextVar[str] = ContextVar("tone", default="none")
    tone.set("outer")

    def change() -> str:
        before = tone.get()
        tone.set("inner")
        return before

    context = copy_context()
    assert attempt(Call(1, change, (), {}), SINK, None, context) == ("outer", None)
    assert tone.get() == "outer"
    assert context[tone] == "inner"


def test_what_goes_on_in_an_event_loop() -> None:
    async def nothing() -> None:
        pass

    class Waitable:
        def __await__(self) -> Any:
            yield

    coroutine = nothing()
    assert is_awaitable(coroutine)
    coroutine.close()
    assert is_awaitable(Waitable())
    for value in (3, None, Waitable, make_future(), iter([])):
        assert not is_awaitable(value)


def test_the_rest_of_a_coroutine() -> None:
    async def give(value: int) -> int:
        return value

    async def leave_async() -> None:
        raise SystemExit(4)

    async def go() -> list[Any]:
        error = ValueError("x")
        outcomes = [await attempt_rest(Call(1, abs, (), {}), give(3))]

        async def fail_async() -> None:
            raise error

        outcomes.append(await attempt_rest(Call(1, abs, (), {}), fail_async()))
        assert outcomes[1] == (None, error)
        outcomes.append(await attempt_rest(Call(1, abs, (), {}), leave_async()))
        return outcomes

    good, _, exited = asyncio.run(go())
    assert good == (3, None)
    assert has_exited(exited[1])
    assert exited[1].exit_code == 4


def test_a_future_is_followed_to_its_end() -> None:
    ends: list[Any] = []
    for end in range(3):
        future = make_future()
        follow(future, lambda *outcome: ends.append(outcome))
        assert len(ends) == end
        if end == 0:
            future.set_result(3)
        elif end == 1:
            future.set_exception(ValueError("x"))
        else:
            future.withdraw()
    assert ends[0] == (3, None)
    assert [(value, type(error).__name__) for value, error in ends[1:]] == [
        (None, "ValueError"),
        (None, "CancelledError"),
    ]


def test_a_future_that_has_ended_is_followed_at_once() -> None:
    future = make_future()
    future.set_result(3)
    ends: list[Any] = []
    follow(future, lambda *outcome: ends.append(outcome))
    assert ends == [(3, None)]


def test_a_calls_name() -> None:
    assert describe_call(Call(1, leave, (), {})) == "leave"
    assert describe_call(Call(1, leave, (), {}, CallOptions(name="going"))) == "going"
