"""The handle of a call's result."""

import asyncio
import concurrent.futures
import copy
import gc
import logging
import pickle
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError
from typing import Any

import pytest

from manyhands.core.future import Future


class FakeOwner:
    """A session in which a call ends when somebody waits for it."""

    def __init__(self) -> None:
        self.on_wait: Callable[[], object] = lambda: None
        self.waits: list[float | None] = []
        self.attended = 0
        self.running: set[int] = set()
        self.cancels = True
        self.on_look: Callable[[], object] = lambda: None
        self.waited_for: list[int] = []

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        self.waits.append(timeout)
        self.waited_for.append(key)
        self.on_wait()
        return is_done()

    def cancel_call(self, future: Future[Any], *, running: bool) -> bool:
        if self.cancels or running:
            future.withdraw()
        return future.cancelled()

    def look(self) -> None:
        self.on_look()

    def is_call_running(self, future: Future[Any]) -> bool:
        return future.key in self.running

    def attend(self) -> None:
        self.attended += 1


@pytest.fixture
def owner() -> FakeOwner:
    return FakeOwner()


@pytest.fixture
def future(owner: FakeOwner) -> Future[Any]:
    return Future(owner, 5, "square")


def test_a_future_is_born_pending(future: Future[Any], owner: FakeOwner) -> None:
    assert isinstance(future, concurrent.futures.Future)
    assert not future.done() and not future.running() and not future.cancelled()
    assert repr(future) == "<Future of square, call 5: pending>"
    owner.running.add(5)
    assert future.running()
    assert repr(future) == "<Future of square, call 5: running>"


def test_a_result_is_waited_for(future: Future[Any], owner: FakeOwner) -> None:
    owner.on_wait = lambda: future.set_result(49)
    assert future.result(timeout=3.5) == 49
    assert owner.waits == [3.5]
    assert owner.waited_for == [future.key], "it says for which call it waits"
    assert future.result() == 49
    assert future.exception() is None
    assert owner.waits == [3.5], "what is there is not waited for"
    assert future.done() and not future.running() and not future.cancelled()
    assert repr(future) == "<Future of square, call 5: finished>"


def test_who_asks_again_and_again_gets_to_know(future: Future[Any], owner: FakeOwner) -> None:
    assert not future.done()
    owner.on_look = lambda: future.set_result(49)
    assert future.done()
    owner.on_look = lambda: pytest.fail("what has ended is not looked for")
    assert future.done()


def test_an_exception_is_raised_as_itself(future: Future[Any], owner: FakeOwner) -> None:
    error = ValueError("x")
    owner.on_wait = lambda: future.set_exception(error)
    assert future.exception(timeout=1) is error
    with pytest.raises(ValueError, match="x") as caught:
        future.result()
    assert caught.value is error
    assert repr(future) == "<Future of square, call 5: raised ValueError>"


def test_a_wait_that_ends_without_result_says_what_to_do(future: Future[Any]) -> None:
    with pytest.raises(TimeoutError, match=r"no result after 0\.5 s.*cancel") as caught:
        future.result(timeout=0.5)
    assert isinstance(caught.value, concurrent.futures.TimeoutError)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0.5)
    assert not future.done()


def test_a_withdrawn_call_has_no_result(future: Future[Any], owner: FakeOwner) -> None:
    assert future.cancel()
    assert future.cancelled() and future.done() and not future.running()
    for wait in (future.result, future.exception):
        with pytest.raises(CancelledError, match="square"):
            wait()
    assert owner.waits == []
    assert future.cancel(), "again it is as cancelled as before"
    assert repr(future) == "<Future of square, call 5: cancelled>"


def test_what_has_started_is_not_withdrawn(future: Future[Any], owner: FakeOwner) -> None:
    owner.cancels = False
    assert not future.cancel()
    future.set_result(1)
    owner.cancels = True
    assert not future.cancel()
    assert future.result() == 1


def test_what_has_started_is_withdrawn_if_told_so(future: Future[Any], owner: FakeOwner) -> None:
    owner.cancels = False
    assert future.cancel(running=True)
    assert future.cancelled()


def test_a_future_ends_once(future: Future[Any]) -> None:
    future.set_result(1)
    for end in (lambda: future.set_result(2), lambda: future.set_exception(ValueError())):
        with pytest.raises(InvalidStateError):
            end()
    future.withdraw()
    assert future.result() == 1


def test_a_withdrawn_future_does_not_end_again(future: Future[Any]) -> None:
    future.withdraw()
    with pytest.raises(InvalidStateError):
        future.set_result(1)
    assert future.cancelled()


@pytest.mark.parametrize("listens", [False, True])
def test_a_result_is_loaded_by_the_first_who_asks_and_once(
    future: Future[Any], listens: bool
) -> None:
    if listens:
        future.add_done_callback(lambda _: None)
    loads: list[Any] = []

    def load(value: Any) -> tuple[Any, None]:
        loads.append(value)
        return value * 2, None

    future.settle(21, None, load)
    assert future.done()
    assert loads == []
    assert repr(future) == "<Future of square, call 5: finished>"
    assert future.result() == future.result() == 42
    assert future.exception() is None
    assert loads == [21]


def test_a_result_that_cannot_be_loaded_is_an_error(future: Future[Any]) -> None:
    error = ValueError("x")
    future.settle(21, None, lambda value: (None, error))
    assert future.exception() is error
    with pytest.raises(ValueError):
        future.result()


@pytest.mark.parametrize("end", ["set_result", "set_exception", "withdraw"])
def test_callbacks_are_called_once_in_order(
    future: Future[Any], owner: FakeOwner, end: str
) -> None:
    called: list[object] = []
    future.add_done_callback(lambda done: called.append((1, done)))
    future.add_done_callback(lambda done: called.append((2, done)))
    assert owner.attended, "nobody else drives for a callback"
    assert called == []
    if end == "withdraw":
        future.withdraw()
    else:
        getattr(future, end)(ValueError() if end == "set_exception" else 3)
    assert called == [(1, future), (2, future)]
    future.withdraw()
    assert len(called) == 2


def test_a_callback_of_a_done_future_is_called_at_once(
    future: Future[Any], owner: FakeOwner
) -> None:
    future.set_result(1)
    called: list[object] = []
    future.add_done_callback(called.append)
    assert called == [future]
    assert owner.attended == 0


def test_one_who_drives_himself_needs_no_attendance(future: Future[Any], owner: FakeOwner) -> None:
    called: list[object] = []
    future.notify(called.append)
    future.set_result(1)
    assert called == [future]
    assert owner.attended == 0


def test_a_callback_that_fails_is_logged_and_goes_no_further(
    future: Future[Any], caplog: pytest.LogCaptureFixture
) -> None:
    called: list[object] = []

    def fail(_: object) -> None:
        raise ValueError("in the callback")

    future.add_done_callback(fail)
    future.add_done_callback(called.append)
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        future.set_result(1)
    assert called == [future]
    assert "in the callback" in caplog.text


def test_a_callback_may_ask_for_the_result(future: Future[Any]) -> None:
    seen: list[Any] = []
    future.add_done_callback(lambda done: seen.append(done.result()))
    future.settle(3, None, lambda value: (value + 1, None))
    assert seen == [4]


# The standard library's own ways to wait.


def make_futures(owner: FakeOwner, count: int) -> list[Future[Any]]:
    return [Future(owner, key, "f") for key in range(1, count + 1)]


def test_the_standard_wait(owner: FakeOwner) -> None:
    good, bad, gone, late = futures = make_futures(owner, 4)
    good.set_result(1)
    bad.set_exception(ValueError())
    gone.withdraw()
    done, not_done = concurrent.futures.wait(futures, timeout=0)
    assert done == {good, bad, gone}
    assert not_done == {late}
    assert owner.attended


@pytest.mark.parametrize("end", ["set_result", "set_exception", "withdraw"])
def test_the_standard_wait_is_woken(owner: FakeOwner, end: str) -> None:
    (future,) = make_futures(owner, 1)
    args = {"set_result": (1,), "set_exception": (ValueError(),), "withdraw": ()}[end]
    owner.attend = lambda: thread.start() if not thread.ident else None  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: getattr(future, end)(*args))
    done, _ = concurrent.futures.wait([future], timeout=30)
    thread.join()
    assert done == {future}


def test_the_standard_as_completed(owner: FakeOwner) -> None:
    futures = make_futures(owner, 3)
    ready = concurrent.futures.as_completed(futures)
    futures[1].set_result("b")
    assert next(ready) is futures[1]
    futures[0].set_exception(ValueError())
    futures[2].withdraw()
    assert {*ready} == {futures[0], futures[2]}


def test_a_future_can_be_awaited(owner: FakeOwner) -> None:
    good, bad, gone = make_futures(owner, 3)

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.call_soon(good.settle, 20, None, lambda value: (value + 1, None))
        loop.call_soon(bad.set_exception, ValueError("x"))
        loop.call_soon(gone.withdraw)
        with pytest.raises(ValueError, match="x"):
            await bad
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await good

    assert asyncio.run(main()) == 21
    assert owner.attended


def test_the_standard_protocol_of_a_start(future: Future[Any]) -> None:
    assert future.set_running_or_notify_cancel()
    assert future.running()
    with pytest.raises(InvalidStateError):
        future.set_running_or_notify_cancel()
    future.set_result(1)
    assert future.result() == 1


# Many at once.


def test_many_futures_end_at_once(owner: FakeOwner) -> None:
    plain, heard, other = futures = make_futures(owner, 3)
    called: list[Any] = []
    heard.add_done_callback(lambda done: called.append(done.result()))
    by_key = {future.key: future for future in futures}
    Future.settle_all(by_key, [(1, 10), (2, 20), (99, 0)], lambda value: (value + 1, None))
    assert (plain.result(), heard.result()) == (11, 21)
    assert called == [21]
    assert by_key == {3: other}
    assert not other.done()


def test_a_future_cannot_travel_and_says_what_to_do(future: Future[Any]) -> None:
    with pytest.raises(TypeError, match="Pass it as an argument of a call"):
        pickle.dumps(future)
    with pytest.raises(TypeError):
        copy.copy(future)


def test_a_raised_error_keeps_no_future_alive(owner: FakeOwner) -> None:
    future: Future[Any] = Future(owner, 1, "f")
    gone = weakref.ref(future)
    future.set_exception(ValueError("x"))
    gc.disable()
    try:
        try:
            future.result()
        except ValueError as error:
            kept = error
        del future
        assert gone() is None
        assert kept.__traceback__ is not None
    finally:
        gc.enable()


def test_a_waiting_future_is_small(future: Future[Any]) -> None:
    assert future._listeners is None
    future.set_result(1)
    assert future._listeners is None, "nobody listened, so nothing was made for listeners"


def load_double(value: int) -> tuple[int, None]:
    return 2 * value, None


def test_a_result_that_nobody_read_is_handed_on_as_it_came(future: Future[Any]) -> None:
    future.settle(21, None, load_double)
    assert future.hand_on(lambda value: ("forwarded", value)) == ("forwarded", 21)
    assert future.result() == 42


def test_a_result_that_was_read_is_handed_on_as_it_is(future: Future[Any]) -> None:
    future.settle(21, None, load_double)
    assert future.result() == 42
    assert future.hand_on(fail_to_forward) == 42


def test_a_result_that_needs_no_reading_is_handed_on_as_it_is(future: Future[Any]) -> None:
    future.set_result([1])
    assert future.hand_on(fail_to_forward) == [1]


def fail_to_forward(value: Any) -> Any:
    raise AssertionError(value)


def test_a_result_that_cannot_be_forwarded_can_still_be_read(future: Future[Any]) -> None:
    future.settle(21, None, load_double)
    with pytest.raises(AssertionError):
        future.hand_on(fail_to_forward)
    assert future.result() == 42


def test_a_result_that_could_not_be_read_is_its_error(future: Future[Any]) -> None:
    future.settle(21, None, lambda value: (None, ValueError("broken")))
    assert future.hand_on(lambda value: value) == 21, "whoever gets it may be able to"
    with pytest.raises(ValueError, match="broken"):
        future.result()
    with pytest.raises(ValueError, match="broken"):
        future.hand_on(fail_to_forward)


def test_other_futures_can_be_used_while_a_result_is_handed_on(
    future: Future[Any], owner: FakeOwner
) -> None:
    """As a finalizer does that the garbage collector runs meanwhile."""
    other: Future[Any] = Future(owner, 6, "other")
    future.settle(21, None, load_double)
    done = threading.Event()

    def forward(value: int) -> int:
        other.set_result(1)
        return value

    def hand_on() -> None:
        future.hand_on(forward)
        done.set()

    threading.Thread(target=hand_on, daemon=True).start()
    assert done.wait(10)


def test_an_error_is_known_without_reading(future: Future[Any], owner: FakeOwner) -> None:
    future.settle(21, None, fail_to_forward)
    assert future.peek_error() is None
    failed: Future[Any] = Future(owner, 6, "other")
    error = ValueError("x")
    failed.set_exception(error)
    assert failed.peek_error() is error
    withdrawn: Future[Any] = Future(owner, 7, "other")
    withdrawn.withdraw()
    with pytest.raises(CancelledError):
        withdrawn.peek_error()
