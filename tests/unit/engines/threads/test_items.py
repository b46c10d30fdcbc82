"""Streams: items as they come, and no further than they are wanted."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from manyhands.core.generators import StreamCall
from manyhands.core.model import CallOptions
from manyhands.engines.threads import ThreadsEngine
from manyhands.engines.threads.runs import ThreadRun
from manyhands.errors import CallInterrupted
from manyhands.testing.checks import wait_for
from tests.unit.engines.sinks import LONG, FakeSink, call
from tests.unit.engines.threads.conftest import Open


class Source:
    """A generator that tells how far it is."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.made = 0
        self.closed = threading.Event()
        self.error: BaseException | None = None

    def __call__(self) -> Iterator[int]:
        try:
            while self.length is None or self.made < self.length:
                self.made += 1
                yield self.made - 1
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.closed.set()

    async def iterate_async(self) -> Any:
        try:
            while self.length is None or self.made < self.length:
                await asyncio.sleep(0)
                self.made += 1
                yield self.made - 1
        finally:
            self.closed.set()


def stream(key: int, fn: Any, window: int, **options: Any) -> Any:
    return call(key, StreamCall(fn, "stream"), window=window, **options)


def await_items(engine: ThreadsEngine, sink: FakeSink, key: int, count: int) -> None:
    assert engine.wait_until(lambda: len(sink.items.get(key, ())) >= count, LONG, key)


def test_items_come_before_the_end(engine: ThreadsEngine, sink: FakeSink) -> None:
    engine.submit(stream(1, Source(5), 10))
    assert engine.wait_until(sink.has(1), LONG)
    assert sink.items[1] == [0, 1, 2, 3, 4]
    assert sink.ends[1] == 5


def test_it_runs_no_further_than_it_may(engine: ThreadsEngine, sink: FakeSink) -> None:
    source = Source()
    engine.submit(stream(1, source, 3))
    await_items(engine, sink, 1, 3)
    assert not engine.wait_until(lambda: source.made > 3, 0.02)
    engine.grant(1, 2)
    await_items(engine, sink, 1, 5)
    assert not engine.wait_until(lambda: source.made > 5, 0.02)
    assert engine.cancel([1], running=True) == {1}
    assert source.closed.wait(LONG)
    assert isinstance(source.error, GeneratorExit)
    engine.grant(1, 2)


def test_a_stream_that_waits_lets_others_run(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    sources = [Source() for _ in range(5)]
    for key, source in enumerate(sources, 1):
        engine.submit(stream(key, source, 1))
    for key in range(1, 6):
        await_items(engine, sink, key, 1)
    engine.submit(call(9, abs, -9))
    assert engine.wait_until(sink.has(9), LONG)
    for _ in range(20):
        for key in range(1, 6):
            engine.grant(key, 1)
    for key in range(1, 6):
        await_items(engine, sink, key, 21)
    assert engine.cancel(range(1, 6), running=True) == set(range(1, 6))
    for source in sources:
        assert source.closed.wait(LONG)


def test_a_call_consumes_a_stream(open_engine: Open, sink: FakeSink) -> None:
    """With one worker: each gives the other its cpu."""
    engine = open_engine(1)

    def consume() -> list[int]:
        engine.submit(stream(2, Source(50), 1))
        found: list[int] = []
        while True:
            assert engine.wait_until(
                lambda: len(sink.items.get(2, ())) > len(found) or 2 in sink.ends, LONG, 2
            )
            if len(sink.items.get(2, ())) == len(found):
                return found
            found.append(sink.items[2][len(found)])
            engine.grant(2, 1)

    engine.submit(call(1, consume))
    assert engine.wait_until(sink.has(1), LONG)
    assert sink.ends[1] == list(range(50))


def test_a_failure_comes_after_the_items(engine: ThreadsEngine, sink: FakeSink) -> None:
    error = ValueError("dry")

    def read() -> Iterator[int]:
        yield from range(3)
        raise error

    engine.submit(stream(1, read, 10))
    assert engine.wait_until(sink.has(1), LONG)
    assert sink.items[1] == [0, 1, 2]
    assert sink.ends[1] is error


def test_a_stream_has_a_timeout(engine: ThreadsEngine, sink: FakeSink) -> None:
    source = Source()
    engine.submit(stream(1, source, 2, timeout=0.05))
    assert engine.wait_until(sink.has(1), LONG)
    assert type(sink.ends[1]).__name__ == "CallTimeoutError"
    assert source.closed.is_set()
    assert sink.items[1] == [0, 1]


def test_an_asynchronous_generator(engine: ThreadsEngine, sink: FakeSink) -> None:
    source = Source(5)
    engine.submit(stream(1, source.iterate_async, 2))
    for count in range(2, 6):
        await_items(engine, sink, 1, count)
        engine.grant(1, 1)
    assert engine.wait_until(sink.has(1), LONG)
    assert (sink.items[1], sink.ends[1]) == ([0, 1, 2, 3, 4], 5)


def test_more_streams_wait_than_a_loop_has_threads(engine: ThreadsEngine, sink: FakeSink) -> None:
    sources = [Source() for _ in range(50)]
    for key, source in enumerate(sources, 1):
        engine.submit(stream(key, source.iterate_async, 1))
    for key in range(1, 51):
        await_items(engine, sink, key, 1)
    engine.grant(50, 2)
    await_items(engine, sink, 50, 3)
    assert engine.cancel(range(1, 51), running=True) == set(range(1, 51))
    for source in sources:
        assert source.closed.wait(LONG)


def test_what_was_cancelled_sends_nothing_more(engine: ThreadsEngine, sink: FakeSink) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    def stubborn() -> Iterator[int]:
        yield 1
        begun.set()
        try:
            assert may_go_on.wait(LONG)
        except CallInterrupted:
            pass
        try:
            yield 2
        except BaseException as error:
            caught.append(error)

    engine.submit(stream(1, stubborn, 9))
    assert begun.wait(LONG)
    assert engine.cancel([1], running=True) == {1}
    may_go_on.set()
    engine.submit(call(2, abs, -2))
    assert engine.wait_until(sink.has(2), LONG)
    assert engine.wait_until(lambda: bool(caught) or engine.rouse() is None, LONG)
    assert sink.items[1] == [1]


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_cancelled_as_an_item_comes_is_told_once(
    engine: ThreadsEngine, sink: FakeSink, is_async: bool
) -> None:
    """The item does not end the stream before the interrupt comes, or that would strike its `finally`."""
    begun, may_go_on, ends = threading.Event(), threading.Event(), threading.Event()
    told: list[str] = []

    def yield_two() -> Iterator[int]:
        try:
            yield 0
            begun.set()
            assert may_go_on.wait(LONG)
            yield 1
        finally:
            ends.set()
            told.append("ended")

    async def yield_two_async() -> AsyncIterator[int]:
        try:
            yield 0
            begun.set()
            while not may_go_on.is_set():  # noqa: ASYNC110 - it is another thread's event
                await asyncio.sleep(0.001)
            yield 1
        finally:
            ends.set()
            await asyncio.sleep(0)
            told.append("ended")

    def stop(run: ThreadRun) -> None:
        may_go_on.set()
        told.append("early" if ends.wait(0.1) else "in time")
        interrupt(run)

    overdue = engine._pool.overdue
    interrupt, overdue.stop = overdue.stop, stop  # type: ignore[method-assign]
    engine.submit(stream(1, yield_two_async if is_async else yield_two, 2))
    assert begun.wait(LONG)
    assert engine.cancel([1], running=True) == {1}
    wait_for(lambda: len(told) > 1, "the generator ends")
    assert told == ["in time", "ended"]


def test_options_of_a_stream() -> None:
    assert stream(1, Source(), 7).options.window == 7
    assert CallOptions().window == 0
