"""Gathering results, over futures that end when the test says."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from manyhands.api import calls
from manyhands.api.calls import gather
from manyhands.core.future import Future
from manyhands.errors import DeadlineError, InvalidArgumentError


class FakeOwner:
    """A session whose calls end at moments of a clock that stands still but for who waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], object]]] = []
        self.cancelled: list[tuple[int, bool]] = []

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        ends_at = None if timeout is None else self.now + timeout
        while not is_done():
            if not self.due or (ends_at is not None and self.due[0][0] > ends_at):
                assert ends_at is not None, "it would wait for ever"
                self.now = ends_at
                return False
            self.now, end = self.due.pop(0)
            end()
        return True

    def cancel_call(self, future: Future[Any], *, running: bool) -> bool:
        self.cancelled.append((future.key, running))
        future.withdraw()
        return True

    def cancel_calls(self, futures: Iterable[Future[Any]], *, running: bool = False) -> None:
        for future in futures:
            self.cancel_call(future, running=running)

    def is_call_running(self, future: Future[Any]) -> bool:
        return False

    def look(self) -> None:
        pass

    def attend(self) -> None:
        pass

    def start(self, seconds: float, value: Any) -> Future[Any]:
        """A call that ends after so many seconds, with a value or an error."""
        future: Future[Any] = Future(self, len(self.due) + 1, "call")
        is_error = isinstance(value, BaseException)
        end = future.set_exception if is_error else future.set_result
        self.due.append((self.now + seconds, lambda: end(value)))
        self.due.sort(key=lambda item: item[0])
        return future


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> FakeOwner:
    owner = FakeOwner()
    monkeypatch.setattr(calls, "monotonic", lambda: owner.now)
    return owner


def test_results_are_in_the_order_of_the_futures(owner: FakeOwner) -> None:
    futures = [owner.start(seconds, seconds) for seconds in (3, 1, 2)]
    assert gather(futures) == [3, 1, 2]
    assert gather(futures, timeout=1, deadline=1) == [3, 1, 2], "what is there is no matter of time"


def test_the_first_error_in_the_order_of_the_futures_is_raised(owner: FakeOwner) -> None:
    futures = [owner.start(3, ValueError("first")), owner.start(1, KeyError("sooner"))]
    with pytest.raises(ValueError, match="first"):
        gather(futures)


def test_errors_stand_among_the_results_if_told_so(owner: FakeOwner) -> None:
    error = ValueError("x")
    futures = [owner.start(1, error), owner.start(2, 5)]
    assert gather(futures, on_error="return") == [error, 5]


def test_after_a_time_out_calls_go_on(owner: FakeOwner) -> None:
    futures = [owner.start(1, 1), owner.start(9, 2)]
    with pytest.raises(TimeoutError):
        gather(futures, timeout=5)
    assert owner.now == 105.0, "it is that of all together"
    assert owner.cancelled == []
    assert gather(futures) == [1, 2]


def test_after_a_deadline_they_are_cancelled(owner: FakeOwner) -> None:
    futures = [owner.start(1, 1), owner.start(9, 2), owner.start(2, 3), owner.start(8, 4)]
    with pytest.raises(DeadlineError, match=r"2 of 4 calls were not done after 5 s"):
        gather(futures, deadline=5)
    assert owner.cancelled == [(2, True), (4, True)]
    assert [future.cancelled() for future in futures] == [False, True, False, True]


def test_the_sooner_of_time_out_and_deadline_counts(owner: FakeOwner) -> None:
    futures = [owner.start(9, 1)]
    with pytest.raises(TimeoutError) as caught:
        gather(futures, timeout=2, deadline=5)
    assert not isinstance(caught.value, DeadlineError)
    assert owner.cancelled == []
    with pytest.raises(DeadlineError):
        gather(futures, timeout=5, deadline=2)


def test_a_call_that_raises_a_time_out_of_its_own_is_no_matter_of_the_deadline(
    owner: FakeOwner,
) -> None:
    error = TimeoutError("the call's own")
    futures = [owner.start(1, error), owner.start(9, 2)]
    with pytest.raises(TimeoutError) as caught:
        gather(futures, deadline=60)
    assert caught.value is error
    assert owner.cancelled == []


@pytest.mark.parametrize("deadline", [0, -1, "5", True])
def test_a_deadline_that_cannot_be_meant_is_refused(deadline: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="deadline="):
        gather([], deadline=deadline)
