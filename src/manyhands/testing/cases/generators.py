"""Generators: tasks whose partial results come as a stream while they go on."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import CancelledError
from concurrent.futures import Future as StandardFuture
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_WINDOW = 16
"""Items that a generator may be ahead of its consumer, as `Task.stream` says."""


@case()
def a_stream_gives_what_a_generator_yields(open_session: OpenSession) -> None:
    """`stream` gives all items of a generator task in their order, then ends; arguments are passed as to `submit`."""
    with open_session(workers=2):
        check_equal(list(mh.task(_count_to).stream(100)), list(range(100)))
        check_equal(list(mh.task(_count_to).stream(100, step=30)), [0, 30, 60, 90])
        check_equal(list(mh.task(_count_to).stream(0)), [])
        check_equal(list(mh.task(_count_to)(3)), [0, 1, 2])


@case()
def a_stream_takes_anything_to_iterate_over(open_session: OpenSession) -> None:
    """What is streamed may be a list, a range or an iterator that a function returns, or a lambda's generator."""
    with open_session(workers=1):
        check_equal(list(mh.task(work.echo).stream([3, 1, 2])), [3, 1, 2])
        check_equal(list(mh.task(range).stream(4)), [0, 1, 2, 3])
        check_equal(list(mh.task(lambda n: (x * x for x in range(n))).stream(4)), [0, 1, 4, 9])


@case()
def items_of_a_stream_may_be_large(open_session: OpenSession) -> None:
    """Megabytes are yielded, and stay what they were though the stream goes on."""
    size = 1_000_000
    with open_session(workers=1):
        blocks = list(mh.task(_yield_blocks).stream(20, size))
        check_equal([len(block) for block in blocks], [size] * 20)
        check_equal([set(block[::1000]) for block in blocks], [{number} for number in range(20)])


@case("concurrent")
def items_come_while_the_generator_goes_on(open_session: OpenSession) -> None:
    """An item is there before the next one is made."""
    with open_folder() as folder, open_session(workers=1):
        gate = work.Gate(folder)
        stream = mh.task(_yield_around).stream(gate)
        check_equal(next(stream), "before")
        wait_for(gate.count_entered, "the generator went on")
        gate.open()
        check_equal(list(stream), ["after"])


@case("concurrent")
def a_generator_waits_for_its_consumer(open_session: OpenSession) -> None:
    """A generator runs ahead of what was taken by a bounded number of items, though it has no end."""
    with open_folder() as folder, open_session(workers=2) as session:
        mark = work.Mark(folder)
        stream = mh.task(_yield_and_mark).stream(str(folder))
        wait_for(lambda: mark.count("made") >= _WINDOW // 2, "the generator ran ahead")
        for x in range(50):
            check_equal(session.submit(work.square, x).result(LIMIT), x * x)
        for taken in range(101):
            made = mark.count("made")
            check(made <= taken + _WINDOW + 1, f"{made} made, {taken} taken")
            check_equal(next(stream), taken)
        stream.close()


@case("concurrent")
def a_generator_that_waits_holds_no_cpu(open_session: OpenSession) -> None:
    """There may be more streams than workers, and calls beside them, since a generator that waits lets others run."""
    with open_session(workers=1) as session:
        streams = [mh.task(_count_on).stream(100 * number) for number in range(6)]
        for step in range(40):
            check_equal([next(stream) for stream in streams], [100 * n + step for n in range(6)])
            check_equal(session.submit(work.square, step).result(LIMIT), step * step)
        for stream in streams:
            stream.close()
        check_equal(session.map(work.square, range(20)), [x * x for x in range(20)])


@case("concurrent")
def closing_a_stream_stops_the_generator(open_session: OpenSession) -> None:
    """After `close`, its block, or when nobody has the stream any more, the generator's `finally` runs, and no more."""
    with open_session(workers=1) as session:
        for way in ("close", "block", "drop"):
            with open_folder() as folder:
                stream: Any = mh.task(_yield_and_mark).stream(str(folder))
                check_equal(next(stream), 0)
                if way == "close":
                    stream.close()
                    stream.close()
                    check_equal(list(stream), [])
                elif way == "block":
                    with stream:
                        check_equal(next(stream), 1)
                    check_equal(list(stream), [])
                del stream
                gc.collect()
                mark = work.Mark(folder)
                wait_for(lambda m=mark: m.count("ended"), f"the generator's finally, {way}")  # type: ignore[misc]
                made = mark.count("made")
                check_equal(session.map(work.square, range(20)), [x * x for x in range(20)])
                check_equal((mark.count("made"), mark.count("ended")), (made, 1))


@case("concurrent")
def a_stream_closed_early_never_begins(open_session: OpenSession) -> None:
    """A stream that is closed before a worker is at it does not run."""
    with open_folder() as folder, open_session(workers=1) as session:
        gate = work.Gate(folder)
        running = session.submit(gate.enter)
        wait_for(gate.count_entered, "the call began")
        stream = mh.task(_yield_and_mark).stream(str(folder))
        stream.close()
        gate.open()
        running.result(LIMIT)
        check_equal(session.map(work.square, range(20)), [x * x for x in range(20)])
        check_equal(work.Mark(folder).count("made"), 0)


@case("concurrent")
def closing_interrupts_a_generator(open_session: OpenSession) -> None:
    """A generator that computes when its stream is closed is interrupted."""
    with open_folder() as folder, open_session(workers=1) as session:
        stream = mh.task(_yield_and_spin).stream(str(folder))
        check_equal(next(stream), "first")
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("spin-began"), "the generator went on")
        stream.close()
        wait_for(lambda: mark.count("spin-ended"), "the generator was interrupted")
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case()
def a_failure_comes_after_what_was_yielded(open_session: OpenSession) -> None:
    """What a generator raises arrives after all its items, as itself; then the stream is over."""
    with open_session(workers=2) as session:
        for items in (0, 1, 5, 3 * _WINDOW):
            stream = mh.task(_yield_and_fail).stream(items)
            check_equal(list(islice(stream, items)), list(range(items)))
            with expect(work.CustomError) as caught:
                next(stream)
            check_equal(caught.error.code, items)
            check_equal(list(stream), [])
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case()
def streams_wait_for_their_inputs(open_session: OpenSession) -> None:
    """Futures among the arguments of a stream stand for their results; where one failed the stream says so."""
    with open_session(workers=2) as session:
        outside: Any = StandardFuture()
        stream = mh.task(_count_to).stream(session.submit(work.add, outside, 1))
        outside.set_result(3)
        check_equal(list(stream), [0, 1, 2, 3])
        failed = mh.task(_count_to).stream(session.submit(work.fail, "the input"))
        with expect(mh.DependencyError):
            next(failed)


@case("concurrent")
def streams_do_not_end(open_session: OpenSession) -> None:
    """Thousands of items come of a generator without end, and it can be left at any time."""
    with open_session(workers=2) as session:
        with mh.task(_count_on).stream(0) as stream:
            check_equal(list(islice(stream, 3000)), list(range(3000)))
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("concurrent")
def streams_have_several_consumers(open_session: OpenSession) -> None:
    """Threads that take from one stream get each item once, and from several streams each its own."""
    found: list[list[int]] = [[] for _ in range(4)]
    with open_session(workers=2):
        shared = mh.task(_count_to).stream(500)
        threads = [threading.Thread(target=own.extend, args=(shared,)) for own in found[:3]]
        lonely = mh.task(_count_to).stream(100)
        threads.append(threading.Thread(target=found[3].extend, args=(lonely,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        check(not any(thread.is_alive() for thread in threads), "a consumer waits on")
        check_equal(sorted([*found[0], *found[1], *found[2]]), list(range(500)))
        check(all(own == sorted(own) for own in found), "a consumer got items out of order")
        check_equal(found[3], list(range(100)))


@case("concurrent")
def a_call_may_consume_a_stream(open_session: OpenSession) -> None:
    """Inside a call a stream gives its items, and closing it stops the generator."""
    with open_folder() as folder, open_session(workers=2) as session:
        check_equal(session.submit(_sum_stream, 100).result(LIMIT), sum(range(100)))
        check_equal(session.map(_sum_stream, [10, 20, 30]), [45, 190, 435])
        check_equal(session.submit(_taste_stream, str(folder)).result(LIMIT), [0, 1, 2])
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("ended"), "the generator's finally")
        error = session.submit(_sum_failing_stream).exception(LIMIT)
        check(isinstance(error, work.CustomError), f"found {error!r}")
        with open_session(workers=1) as small:
            check_equal(small.submit(_sum_stream, 100).result(LIMIT), sum(range(100)))


@case()
def a_generator_may_make_calls(open_session: OpenSession) -> None:
    """A generator that is streamed submits calls and waits for them between its items."""
    with open_session(workers=1):
        check_equal(list(mh.task(_yield_squares).stream(30)), [x * x for x in range(30)])


@case("isolates")
def a_stream_that_has_not_begun_survives_a_death(open_session: OpenSession) -> None:
    """A generator whose worker dies before its first item is run again; the stream has every item once."""
    with open_folder() as folder, open_session(workers=2):
        stream = mh.task(_die_and_yield).stream(str(folder), 0)
        check_equal(list(stream), list(range(5)))
        check_equal(work.Mark(folder).count("attempt"), 2)


@case("isolates")
def a_stream_that_has_begun_dies_with_its_worker(open_session: OpenSession) -> None:
    """After its first item it is not run again: the items that came are given, then WorkerDiedError."""
    with open_folder() as folder, open_session(workers=2) as session:
        task = mh.task(_die_and_yield, worker_retries=5, retries=5)
        stream = task.stream(str(folder), 3)
        check_equal([next(stream) for _ in range(3)], [0, 1, 2])
        work.Gate(folder).open()
        with expect(mh.WorkerDiedError):
            next(stream)
        check_equal(list(stream), [])
        check_equal(work.Mark(folder).count("attempt"), 1)
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case()
def a_stream_is_tried_again_before_its_first_item(open_session: OpenSession) -> None:
    """`retries` hold for a generator that fails before its first item, and not after it."""
    with open_folder() as folder, open_session(workers=1):
        task = mh.task(_fail_and_yield, retries=2, backoff=0.01)
        check_equal(list(task.stream(str(folder), 0)), [0, 1, 2, 3, 4])
        check_equal(work.Mark(folder).count("attempt-0"), 3)
        stream = task.stream(str(folder), 2)
        check_equal([next(stream), next(stream)], [0, 1])
        with expect(OSError):
            next(stream)
        check_equal(work.Mark(folder).count("attempt-2"), 1)


@case("concurrent")
def a_stream_has_a_timeout(open_session: OpenSession) -> None:
    """A generator that computes past its `timeout` is interrupted; its items come first, then CallTimeoutError."""
    with open_folder() as folder, open_session(workers=1) as session:
        stream = mh.task(_yield_and_spin, timeout=0.3).stream(str(folder))
        check_equal(next(stream), "first")
        with expect(mh.CallTimeoutError) as caught:
            next(stream)
        check("spin" in caught.error.stack, f"the stack does not show it: {caught.error.stack}")
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case()
def items_that_do_not_travel_fail_the_stream(open_session: OpenSession) -> None:
    """An item that cannot be pickled, where items are, ends the stream with an error that says so."""
    with open_session(workers=1) as session:
        stream = mh.task(_yield_lock).stream()
        check_equal(next(stream), 1)
        if session.capabilities.pickles:
            with expect(mh.UnpicklableError):
                next(stream)
        stream.close()
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("concurrent")
def closing_the_session_ends_streams(open_session: OpenSession) -> None:
    """Whoever waits for the next item when the session closes is told that there is none."""
    found: list[object] = []
    with open_folder() as folder:
        session = open_session(workers=1)
        with session:
            stream = mh.task(_yield_around).stream(work.Gate(folder))
            check_equal(next(stream), "before")

            def take() -> None:
                try:
                    found.append(next(stream))
                except CancelledError as error:
                    found.append(type(error))

            thread = threading.Thread(target=take)
            thread.start()
            session.close(grace=0.01)
            work.Gate(folder).open()
            thread.join(LIMIT)
        check_equal(found, [CancelledError])


@case()
def streams_are_asynchronous_iterators(open_session: OpenSession) -> None:
    """`async for` takes a stream's items; its failure is raised there."""

    async def use() -> list[Any]:
        found = [item async for item in mh.task(_count_to).stream(100)]
        try:
            async for item in mh.task(_yield_and_fail).stream(2):
                found.append(item)  # noqa: PERF401 - the loop raises, and what came before counts
        except work.CustomError as error:
            found.append(error.code)
        return found

    with open_session(workers=2):
        check_equal(asyncio.run(asyncio.wait_for(use(), LIMIT)), [*range(100), 0, 1, 2])


@case("concurrent")
def streams_leave_the_event_loop_free(open_session: OpenSession) -> None:
    """While a coroutine waits for the next item others run, and several streams are taken at once."""

    async def release(gate: work.Gate) -> None:
        gate.open()

    async def take(stream: Any) -> list[Any]:
        return [item async for item in stream]

    async def use(gate: work.Gate) -> list[list[Any]]:
        around = take(mh.task(_yield_around).stream(gate))
        several = [take(mh.task(_count_to).stream(50)) for _ in range(3)]
        found = await asyncio.gather(around, release(gate), *several)
        return [found[0], *found[2:]]

    with open_folder() as folder, open_session(workers=2):
        found = asyncio.run(asyncio.wait_for(use(work.Gate(folder)), LIMIT))
        check_equal(found, [["before", "after"], *[list(range(50))] * 3])


@case("concurrent")
def an_asynchronous_loop_may_be_left(open_session: OpenSession) -> None:
    """A stream that a coroutine leaves is closed, by `aclosing` or for want of anybody who has it."""
    from contextlib import aclosing

    async def use(folder: str) -> int:
        async with aclosing(mh.task(_yield_and_mark).stream(folder)) as stream:
            async for item in stream:
                if item == 20:
                    break
        return int(item)

    with open_folder() as folder, open_session(workers=1) as session:
        check_equal(asyncio.run(asyncio.wait_for(use(str(folder)), LIMIT)), 20)
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("ended"), "the generator's finally")
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case()
def asynchronous_generators_are_streamed(open_session: OpenSession) -> None:
    """A task that is an asynchronous generator is streamed like others, and its failure comes last."""
    with open_session(workers=2):
        check_equal(list(mh.task(_count_to_async).stream(100)), list(range(100)))
        stream = mh.task(_fail_async).stream()
        check_equal(next(stream), 1)
        with expect(work.CustomError):
            next(stream)


@case("concurrent")
def an_asynchronous_generator_waits_for_its_consumer(open_session: OpenSession) -> None:
    """It runs a bounded number of items ahead, lets other coroutines run, and ends when its stream is closed."""
    with open_folder() as folder, open_session(workers=1):
        mark = work.Mark(folder)
        stream = mh.task(_mark_async).stream(str(folder))
        wait_for(lambda: mark.count("made") >= _WINDOW // 2, "the generator ran ahead")
        check_equal(list(mh.task(_count_to_async).stream(100)), list(range(100)))
        for taken in range(40):
            check(mark.count("made") <= taken + _WINDOW + 1, "ran ahead of its consumer")
            check_equal(next(stream), taken)
        stream.close()
        wait_for(lambda: mark.count("ended"), "the generator's finally")


def _count_to(stop: int, *, step: int = 1) -> Iterator[int]:
    yield from range(0, stop, step)


def _count_on(start: int) -> Iterator[int]:
    yield from count(start)


def _yield_blocks(number: int, size: int) -> Iterator[bytearray]:
    for value in range(number):
        yield bytearray([value]) * size


def _yield_around(gate: work.Gate) -> Iterator[str]:
    yield "before"
    gate.enter()
    yield "after"


def _yield_and_mark(folder: str) -> Iterator[int]:
    mark = work.Mark(folder)
    try:
        for number in count():
            mark.add("made")
            yield number
    finally:
        mark.add("ended")


def _yield_and_spin(folder: str) -> Iterator[str]:
    yield "first"
    work.spin(folder)
    yield "last"


def _yield_and_fail(items: int) -> Iterator[int]:
    yield from range(items)
    work.fail_with_custom_error(items)


def _sum_stream(items: int) -> int:
    return sum(mh.task(_count_to).stream(items))


def _taste_stream(folder: str) -> list[int]:
    with mh.task(_yield_and_mark).stream(folder) as stream:
        return [next(stream) for _ in range(3)]


def _sum_failing_stream() -> int:
    return sum(mh.task(_yield_and_fail).stream(3))


def _yield_squares(number: int) -> Iterator[int]:
    for x in range(number):
        yield mh.submit(work.square, x).result(LIMIT)


def _die_and_yield(folder: str, after: int) -> Iterator[int]:
    from manyhands.testing.faults import Damage, strike

    is_first = work.Mark(folder).add("attempt") == 1
    for number in range(5):
        if is_first and number == after:
            if after:  # what it yielded may be under way
                work.Gate(folder).enter()
            strike(Damage.KILL)
        yield number


def _fail_and_yield(folder: str, after: int) -> Iterator[int]:
    attempt = work.Mark(folder).add(f"attempt-{after}")
    for number in range(5):
        if attempt < 3 and number == after:
            raise OSError(f"attempt {attempt}")
        yield number


def _yield_lock() -> Iterator[Any]:
    yield 1
    yield work.hold_lock()


async def _count_to_async(stop: int) -> AsyncIterator[int]:
    for number in range(stop):
        await asyncio.sleep(0)
        yield number


async def _fail_async() -> AsyncIterator[int]:
    yield 1
    work.fail_with_custom_error(1)


async def _mark_async(folder: str) -> AsyncIterator[int]:
    mark = work.Mark(folder)
    try:
        for number in count():
            mark.add("made")
            yield number
    finally:
        mark.add("ended")
