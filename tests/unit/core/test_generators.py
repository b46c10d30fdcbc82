"""What runs a generator function as a stream, in a worker."""

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from manyhands.core import place
from manyhands.core.generators import StreamCall


class FakePost:
    """Remembers what was sent; refuses after so many."""

    is_alone = False

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.threads: set[int] = set()
        self.most = 1000

    def emit(self, item: Any) -> None:
        if len(self.items) >= self.most:
            raise LookupError("nobody wants more")
        self.items.append(item)
        self.threads.add(threading.get_ident())

    def keep(self, actor: int, state: Any) -> None:
        pytest.fail("no actor runs")


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> FakePost:
    post = FakePost()
    monkeypatch.setattr(place, "post", post)
    return post


ended: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    ended.clear()
    yield
    ended.clear()


def count(start: int, *, stop: int) -> Iterator[int]:
    try:
        yield from range(start, stop)
    finally:
        ended.append("count")


async def count_late(stop: int) -> AsyncIterator[int]:
    try:
        for number in range(stop):
            await asyncio.sleep(0)
            yield number
    finally:
        ended.append("count_late")


def fail_after(items: int) -> Iterator[int]:
    yield from range(items)
    raise ValueError("x")


def test_every_item_is_sent_and_their_number_is_the_result(post: FakePost) -> None:
    call = StreamCall(count, "count")
    assert call(3, stop=6) == 3
    assert post.items == [3, 4, 5]
    assert ended == ["count"]
    assert call.__qualname__ == "count"


@pytest.mark.parametrize("source", [[1, 2], (1, 2), {1: 0, 2: 0}, map(abs, [-1, 2])])
def test_anything_to_iterate_over_is_a_stream(post: FakePost, source: Any) -> None:
    assert StreamCall(lambda: source, "make")() == 2
    assert post.items == [1, 2]


def test_what_is_nothing_to_iterate_over_is_an_error(post: FakePost) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        StreamCall(abs, "abs")(-1)


def test_a_failure_comes_after_the_items_before_it(post: FakePost) -> None:
    with pytest.raises(ValueError, match="x"):
        StreamCall(fail_after, "fail_after")(2)
    assert post.items == [0, 1]


def test_what_ends_it_early_ends_the_generator(post: FakePost) -> None:
    post.most = 2
    with pytest.raises(LookupError):
        StreamCall(count, "count")(0, stop=100)
    assert ended == ["count"]


def test_items_of_an_asynchronous_generator_are_sent(post: FakePost) -> None:
    coroutine = StreamCall(count_late, "count_late")(3)
    assert asyncio.run(coroutine) == 3
    assert post.items == [0, 1, 2]
    assert ended == ["count_late"]
    assert threading.get_ident() not in post.threads, "the loop has others to run"


def test_an_asynchronous_generator_is_ended_early(post: FakePost) -> None:
    post.most = 1
    with pytest.raises(LookupError):
        asyncio.run(StreamCall(count_late, "count_late")(100))
    assert ended == ["count_late"]


def test_an_asynchronous_generator_that_is_cancelled_is_ended(post: FakePost) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def wait_for_ever() -> AsyncIterator[int]:
            try:
                yield 1
                begun.set()
                await asyncio.Event().wait()
            finally:
                ended.append("wait_for_ever")

        task = asyncio.ensure_future(StreamCall(wait_for_ever, "wait_for_ever")())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ended == ["wait_for_ever"]


def test_the_way_to_the_session_is_that_of_the_call(post: FakePost) -> None:
    mine = FakePost()
    token = place.here.set(place.Place(None, 1, mine))
    try:
        StreamCall(count, "count")(0, stop=2)
        asyncio.run(StreamCall(count_late, "count_late")(2))
    finally:
        place.here.reset(token)
    assert mine.items == [0, 1, 0, 1]
    assert post.items == []


def test_it_travels(post: FakePost) -> None:
    assert pickle.loads(pickle.dumps(StreamCall(count, "count")))(1, stop=3) == 2
    assert post.items == [1, 2]
