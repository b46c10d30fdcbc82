"""Generators that run as far as the next item whenever that is asked for."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from manyhands.core.generators import StreamCall
from manyhands.core.stream import Stream
from manyhands.engines.inline import InlineEngine
from manyhands.errors import CallInterrupted, CallTimeoutError, WorkerDiedError
from tests.unit.engines.sinks import LONG, FakeSink, call, spin


class Source:
    """A generator that tells how far it is."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.made = 0
        self.closed = 0
        self.thread = 0

    def __call__(self) -> Iterator[int]:
        self.thread = threading.get_ident()
        try:
            while self.made < self.length:
                self.made += 1
                yield self.made - 1
        finally:
            self.closed += 1

    async def iterate_async(self) -> AsyncIterator[int]:
        loop = asyncio.get_running_loop()
        try:
            while self.made < self.length:
                await asyncio.sleep(0)
                assert asyncio.get_running_loop() is loop
                self.made += 1
                yield self.made - 1
        finally:
            await asyncio.sleep(0)
            self.closed += 1


Ask = Callable[..., Any]


@pytest.fixture
def ask(engine: InlineEngine, sink: FakeSink) -> Ask:
    """Ask a stream for an item, or for its end."""
    taken: dict[int, int] = {}

    def ask(key: int, timeout: float | None = LONG) -> Any:
        count = taken.get(key, 0)
        is_there = engine.wait_until(
            lambda: len(sink.items.get(key, ())) > count or key in sink.ends, timeout, key
        )
        assert is_there
        if len(sink.items.get(key, ())) == count:
            return "end"
        taken[key] = count + 1
        engine.grant(key, 1)
        return sink.items[key][count]

    return ask


def submit(engine: InlineEngine, key: int, fn: Any, *args: Any, **options: Any) -> None:
    engine.submit(call(key, StreamCall(fn, "numbers"), *args, window=8, **options))


def test_it_runs_when_it_is_asked(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    source = Source(3)
    submit(engine, 1, source)
    assert source.made == 0
    assert not engine.is_running(1)
    assert [ask(1), ask(1)] == [0, 1]
    assert (source.made, source.thread) == (2, threading.get_ident())
    assert [ask(1), ask(1)] == [2, "end"]
    assert sink.ends == {1: 3}
    assert source.closed == 1


def test_one_that_nobody_asks_does_not_run(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    idle, busy = Source(3), Source(3)
    submit(engine, 1, idle)
    submit(engine, 2, busy)
    assert [ask(2) for _ in range(4)] == [0, 1, 2, "end"]
    assert not engine.wait_until(lambda: False, 0)
    engine.submit(call(3, abs, -3))
    assert idle.made == 0
    engine.close(0)
    assert (idle.made, idle.closed) == (0, 0)


def test_several_are_consumed_in_turn(engine: InlineEngine, ask: Ask) -> None:
    sources = {1: Source(4), 2: Source(4)}
    for key, source in sources.items():
        submit(engine, key, source)
    for number in range(4):
        assert (ask(1), ask(2)) == (number, number)
        assert {source.made for source in sources.values()} == {number + 1}
    assert (ask(1), ask(2)) == ("end", "end")


def test_a_stream_consumes_another(engine: InlineEngine, ask: Ask) -> None:
    def double() -> Iterator[int]:
        while (item := ask(2)) != "end":
            yield 2 * item

    submit(engine, 2, Source(3))
    submit(engine, 1, double)
    assert [ask(1) for _ in range(4)] == [0, 2, 4, "end"]


def test_a_wait_without_time_runs_it_once(engine: InlineEngine, ask: Ask) -> None:
    source = Source(3)
    submit(engine, 1, source)
    assert ask(1, timeout=0) == 0
    assert source.made == 1


def test_a_failure_comes_after_the_items(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    error = ValueError("dry")

    def read() -> Iterator[int]:
        yield 1
        raise error

    submit(engine, 1, read)
    assert [ask(1), ask(1)] == [1, "end"]
    assert sink.ends[1] is error


def test_anything_that_can_be_iterated(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    submit(engine, 1, lambda: [1, 2])
    submit(engine, 2, lambda: 3)
    assert [ask(1), ask(1), ask(1)] == [1, 2, "end"]
    assert ask(2) == "end"
    assert isinstance(sink.ends[2], TypeError)


def test_an_exit_ends_it_like_a_worker(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    def leave() -> Iterator[int]:
        yield 1
        raise SystemExit(3)

    submit(engine, 1, leave)
    assert [ask(1), ask(1)] == [1, "end"]
    assert isinstance(sink.ends[1], WorkerDiedError)


def test_what_has_not_begun_is_withdrawn(engine: InlineEngine, sink: FakeSink) -> None:
    source = Source(3)
    submit(engine, 1, source)
    assert engine.cancel([1]) == {1}
    assert engine.cancel([1], running=True) == set()
    assert not engine.wait_until(lambda: False, 0, 1)
    assert (source.made, sink.ends) == (0, {})


def test_closing_it_ends_the_generator(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    source = Source(3)
    submit(engine, 1, source)
    assert ask(1) == 0
    assert engine.cancel([1]) == set()
    assert engine.cancel([1], running=True) == {1}
    assert (source.made, source.closed) == (1, 1)
    assert sink.ends == {}


def test_what_it_raises_as_it_is_closed_is_for_nobody(engine: InlineEngine, ask: Ask) -> None:
    def resist() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise ValueError("x")

    submit(engine, 1, resist)
    assert ask(1) == 1
    assert engine.cancel([1], running=True) == {1}


def test_it_is_closed_while_it_runs_elsewhere(engine: InlineEngine, sink: FakeSink) -> None:
    begun, caught = threading.Event(), []

    def compute() -> Iterator[int]:
        try:
            begun.set()
            spin()
        except CallInterrupted as error:
            caught.append(error)
            raise
        yield 1

    submit(engine, 1, compute)
    thread = threading.Thread(target=engine.wait_until, args=(lambda: bool(caught), LONG, 1))
    thread.start()
    assert begun.wait(LONG)
    assert engine.cancel([1], running=True) == {1}
    thread.join(LONG)
    assert not thread.is_alive()
    assert sink.ends == {}


@pytest.mark.parametrize("is_async", [False, True])
def test_it_is_closed_elsewhere_as_an_item_comes(
    engine: InlineEngine, sink: FakeSink, is_async: bool
) -> None:
    """Whoever asked for the item ends the generator, and an event loop of its own with it."""
    source = Source(3)

    def cancel(key: int, item: Any) -> None:
        canceller = threading.Thread(target=engine.cancel, args=([key],), kwargs={"running": True})
        canceller.start()
        canceller.join(LONG)
        cancelled.append(item)

    cancelled: list[int] = []
    sink.take_item = cancel  # type: ignore[method-assign]
    submit(engine, 1, source.iterate_async if is_async else source)
    assert engine.wait_until(lambda: bool(cancelled), LONG, 1)
    assert (cancelled, source.closed, sink.ends) == ([0], 1, {})


def test_only_its_own_time_counts(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    def slow() -> Iterator[int]:
        yield 1
        yield 2
        spin()

    submit(engine, 1, slow, timeout=0.2)
    assert ask(1) == 1
    assert not engine.wait_until(lambda: False, 0.25)
    assert ask(1) == 2
    assert ask(1) == "end"
    assert isinstance(sink.ends[1], CallTimeoutError)
    assert "in slow" in sink.ends[1].stack


def test_a_failed_one_can_be_tried_again(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    tries = []

    def flicker() -> Iterator[int]:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        yield 5

    def try_again(key: int, error: BaseException, attempt: Any) -> bool:
        engine.resubmit(key, attempt)
        return True

    sink.on_failure = try_again
    submit(engine, 1, flicker)
    assert [ask(1), ask(1)] == [5, "end"]
    assert sink.ends == {1: 1}


def test_ctrl_c_ends_it_and_its_consumer(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    def interrupt() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    submit(engine, 1, interrupt)
    assert ask(1) == 1
    with pytest.raises(KeyboardInterrupt):
        ask(1)
    assert sink.attempts == {1: None}


def test_an_asynchronous_generator(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    source = Source(3)
    submit(engine, 1, source.iterate_async)
    assert source.made == 0
    assert ask(1) == 0
    assert source.made == 1
    assert [ask(1), ask(1), ask(1)] == [1, 2, "end"]
    assert (sink.ends, source.closed) == ({1: 3}, 1)


def test_closing_an_asynchronous_generator(engine: InlineEngine, ask: Ask) -> None:
    source = Source(3)
    submit(engine, 1, source.iterate_async)
    assert ask(1) == 0
    assert engine.cancel([1], running=True) == {1}
    assert source.closed == 1


def test_an_asynchronous_generator_under_a_running_loop(
    engine: InlineEngine, sink: FakeSink, ask: Ask
) -> None:
    first, second = Source(1), Source(3)
    submit(engine, 1, first.iterate_async)
    submit(engine, 2, second.iterate_async)

    async def main() -> None:
        assert [ask(1), ask(1), ask(2)] == [0, "end", 0]
        assert engine.cancel([2], running=True) == {2}

    asyncio.run(main())
    assert (first.closed, second.closed, sink.ends) == (1, 1, {1: 1})


def test_two_threads_ask_for_items(engine: InlineEngine, sink: FakeSink) -> None:
    source = Source(200)
    submit(engine, 1, source)

    def consume() -> None:
        assert engine.wait_until(sink.has(1), LONG, 1)

    threads = [threading.Thread(target=consume) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sink.items[1] == list(range(200))


def test_a_close_ends_them(engine: InlineEngine, sink: FakeSink, ask: Ask) -> None:
    source = Source(3)
    submit(engine, 1, source)
    ask(1)
    engine.close(0)
    assert source.closed == 1
    assert sink.ends == {}


class FakeFuture:
    """Of a stream's call."""

    name, key = "numbers", 7

    def __init__(self) -> None:
        self.callbacks: list[Any] = []

    def done(self) -> bool:
        return False

    def add_done_callback(self, fn: Any) -> None:
        self.callbacks.append(fn)


def test_a_stream_says_which_one_it_is() -> None:
    """Both ways to take items let an engine run that very generator."""

    class FakeOwner:
        def __init__(self) -> None:
            self.asked: list[Any] = []

        def wait_until(self, is_done: Any, timeout: float | None, key: int = 0) -> bool:
            self.asked.append((timeout, key))
            stream.add("item")
            return True

        def load_item(self, item: Any) -> Any:
            return item, None

        def grant(self, future: Any, items: int) -> None:
            pass

        def cancel_calls(self, futures: Any, *, running: bool = False) -> None:
            pass

    owner: Any = FakeOwner()
    future: Any = FakeFuture()
    stream: Stream[str] = Stream(owner, future, 4)
    assert next(stream) == "item"

    async def take() -> str:
        return await anext(stream)

    assert asyncio.run(take()) == "item"
    assert owner.asked == [(None, 7), (0, 7)]
    stream.close()
