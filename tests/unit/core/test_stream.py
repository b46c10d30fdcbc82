"""The consumer's end of a stream, over a session that does as the test says."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from manyhands.core import timers
from manyhands.core.future import Future
from manyhands.core.stream import Stream
from manyhands.errors import UnloadableError


class FakeOwner:
    """A session in which a stream goes on when somebody waits for it.

    Attributes
    ----------
    coming
        What happens at each wait: an item comes, or a function is called.
    """

    def __init__(self) -> None:
        self.coming: list[Any] = []
        self.waited_for: list[int] = []
        self.granted: list[int] = []
        self.cancelled: list[tuple[int, bool]] = []
        self.attended = 0
        self.stream: Stream[Any] | None = None

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        self.waited_for.append(key)
        while not is_done() and self.coming and timeout is None:
            self.go_on()
        return is_done()

    def go_on(self) -> None:
        what = self.coming.pop(0)
        if callable(what):
            what()
        else:
            assert self.stream is not None
            self.stream.add(what)

    def attend(self) -> None:
        self.attended += 1

    def look(self) -> None:
        pass

    def is_call_running(self, future: Future[Any]) -> bool:
        return False

    def cancel_calls(self, futures: Iterable[Future[Any]], *, running: bool = False) -> None:
        for future in futures:
            self.cancelled.append((future.key, running))
            future.withdraw()

    def grant(self, future: Future[Any], items: int) -> None:
        assert future.key == 5
        self.granted.append(items)

    def load_item(self, item: Any) -> tuple[Any, BaseException | None]:
        return (None, item) if isinstance(item, BaseException) else (item, None)


@pytest.fixture
def owner() -> FakeOwner:
    return FakeOwner()


@pytest.fixture
def future(owner: FakeOwner) -> Future[Any]:
    return Future(owner, 5, "count")  # type: ignore[arg-type]


@pytest.fixture
def stream(owner: FakeOwner, future: Future[Any]) -> Stream[Any]:
    owner.stream = stream = Stream(owner, future, 4)
    return stream


def test_items_come_in_their_order_until_the_call_ends(
    owner: FakeOwner, future: Future[Any], stream: Stream[Any]
) -> None:
    owner.coming = [1, 2, 3, lambda: future.set_result(3)]
    assert iter(stream) is stream
    assert not stream.has_begun
    assert list(stream) == [1, 2, 3]
    assert stream.has_begun
    assert list(stream) == [], "what is over stays over"
    assert set(owner.waited_for) == {5}
    assert owner.cancelled == []


def test_what_is_there_is_not_waited_for(owner: FakeOwner, stream: Stream[Any]) -> None:
    stream.add("a")
    stream.add("b")
    assert [next(stream), next(stream)] == ["a", "b"]
    assert owner.waited_for == []


def test_a_failure_comes_after_what_was_yielded(
    owner: FakeOwner, future: Future[Any], stream: Stream[Any]
) -> None:
    error = ValueError("x")
    stream.add(1)
    future.set_exception(error)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="x") as caught:
        next(stream)
    assert caught.value is error
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize(
    ("window", "granted"), [(1, [1] * 9), (2, [1] * 9), (4, [2] * 4), (8, [4, 4]), (100, [])]
)
def test_the_generator_is_told_of_what_was_taken_by_half_windows(
    owner: FakeOwner, future: Future[Any], window: int, granted: list[int]
) -> None:
    stream: Stream[int] = Stream(owner, future, window)
    for number in range(9):
        stream.add(number)
        assert next(stream) == number
    assert owner.granted == granted


def test_closing_stops_the_generator_and_drops_what_was_not_taken(
    owner: FakeOwner, stream: Stream[Any]
) -> None:
    stream.add(1)
    stream.close()
    stream.close()
    assert owner.cancelled == [(5, True)]
    assert list(stream) == []


def test_closing_what_has_ended_stops_nothing(
    owner: FakeOwner, future: Future[Any], stream: Stream[Any]
) -> None:
    stream.add(1)
    future.set_result(1)
    stream.close()
    assert owner.cancelled == []
    assert list(stream) == []


def test_a_block_closes_its_stream(owner: FakeOwner, stream: Stream[Any]) -> None:
    stream.add(1)
    with pytest.raises(LookupError), stream as same:
        assert same is stream
        raise LookupError
    assert owner.cancelled == [(5, True)]


def test_a_stream_that_nobody_holds_is_closed_elsewhere(
    owner: FakeOwner, stream: Stream[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    due: list[Callable[[], object]] = []
    gc.collect()  # streams of other tests end before

    class FakeTimers:
        def call_later(self, seconds: float, fn: Callable[[], object]) -> None:
            assert seconds == 0
            due.append(fn)

    monkeypatch.setattr(timers, "timers", FakeTimers())
    stream.__del__()
    assert owner.cancelled == [], "it may be dropped amid a step of the engine"
    due.pop()()
    assert owner.cancelled == [(5, True)]
    stream.__del__()
    assert due == []


def test_a_stream_that_has_ended_leaves_nothing_to_do(
    owner: FakeOwner, future: Future[Any]
) -> None:
    stream: Stream[int] = Stream(owner, future, 4)
    future.set_result(0)
    del stream
    gc.collect()
    later = threading.Event()
    timers.timers.call_later(0, later.set)
    assert later.wait(30)
    assert owner.cancelled == []


def test_an_item_that_cannot_be_rebuilt_ends_the_stream(
    owner: FakeOwner, stream: Stream[Any]
) -> None:
    error = UnloadableError("x")
    stream.add(1)
    stream.add(error)
    stream.add(3)
    assert next(stream) == 1
    with pytest.raises(UnloadableError) as caught:
        next(stream)
    assert caught.value is error
    assert owner.cancelled == [(5, True)]
    assert list(stream) == []


def test_it_tells_what_it_is(stream: Stream[Any]) -> None:
    assert stream.name == "count"
    stream.add(1)
    assert repr(stream) == "<Stream of <Future of count, call 5: pending>, 1 items so far>"


# On an event loop.


def test_items_are_awaited(owner: FakeOwner, future: Future[Any], stream: Stream[Any]) -> None:
    owner.coming = [1, 2, 3, lambda: future.set_result(3)]
    order: list[Any] = []

    async def consume() -> None:
        assert aiter(stream) is stream
        async for item in stream:
            order.append(item)  # noqa: PERF401 - one by one is the point

    async def produce() -> None:
        while owner.coming:
            order.append("the loop goes on")
            owner.go_on()
            for _ in range(5):
                await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(consume(), produce())

    asyncio.run(main())
    assert [item for item in order if isinstance(item, int)] == [1, 2, 3]
    assert order[:2] == ["the loop goes on", 1]
    assert owner.attended, "nobody drives meanwhile"


def test_a_failure_is_awaited(future: Future[Any], stream: Stream[Any]) -> None:
    async def consume() -> list[Any]:
        stream.add(1)
        items = []
        with pytest.raises(ValueError, match="x"):
            async for item in stream:
                items.append(item)
                asyncio.get_running_loop().call_soon(future.set_exception, ValueError("x"))
        return items + [item async for item in stream]

    assert asyncio.run(consume()) == [1]


def test_closing_can_be_awaited(owner: FakeOwner, stream: Stream[Any]) -> None:
    asyncio.run(stream.aclose())
    assert owner.cancelled == [(5, True)]


def test_a_wait_that_is_cancelled_leaves_the_stream_whole(
    owner: FakeOwner, future: Future[Any], stream: Stream[Any]
) -> None:
    async def main() -> Any:
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stream.add(7)
        return await anext(stream)

    assert asyncio.run(main()) == 7
    assert owner.cancelled == []
