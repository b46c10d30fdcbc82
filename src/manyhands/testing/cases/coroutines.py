"""Coroutines: tasks of ``async def``, many at a time on one event loop, and sessions used from a loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
from concurrent.futures import CancelledError
from contextlib import aclosing
from itertools import count, islice
from time import monotonic
from typing import TYPE_CHECKING, Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_SHORT = 0.2


@case()
def a_coroutine_can_be_a_task(open_session: OpenSession) -> None:
    """A call of an ``async def`` function gives what the coroutine returns, or raises."""
    with open_session(workers=2) as session:
        check_equal(session.submit(_add_slowly, 3, b=4).result(LIMIT), 7)
        task = mh.task(_add_slowly)
        check_equal(mh.gather([task.submit(x) for x in range(50)], timeout=LIMIT), list(range(50)))
        failing: Any = session.submit(_fail_slowly, 5)
        with expect(work.CustomError) as caught:
            failing.result(LIMIT)
        check_equal(caught.error.code, 5)
        factor = 3

        async def scale(x: int) -> int:
            await asyncio.sleep(0)
            return factor * x

        check_equal(session.submit(scale, 5).result(LIMIT), 15)


@case()
def the_error_of_a_coroutine_tells_where(open_session: OpenSession) -> None:
    """The traceback shows the coroutine function that raised."""
    import traceback

    with open_session(workers=1) as session:
        error = session.submit(_fail_slowly, 5).exception(LIMIT)
        text = "" if error is None else "".join(traceback.format_exception(error))
        check("in _fail_slowly" in text, f"no frame of the function:\n{text}")


@case()
def a_coroutine_waits_for_its_inputs(open_session: OpenSession) -> None:
    """Futures and refs are arguments of coroutines, and their results of other calls."""
    with open_session(workers=2) as session:
        submit: Any = session.submit
        two = submit(_add_slowly, 1, b=submit(work.square, 1))
        check_equal(submit(work.add, two, 1).result(LIMIT), 3)
        check_equal(submit(_add_slowly, session.put(4), b=two).result(LIMIT), 6)


@case("concurrent")
def many_coroutines_run_at_once(open_session: OpenSession) -> None:
    """A hundred calls wait for each other, though there is one worker, and ordinary calls run beside them."""
    with open_folder() as folder, open_session(workers=1) as session:
        futures = [session.submit(_meet, str(folder), 100) for _ in range(99)]
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("here") == 99, "99 coroutines are under way")
        check_equal(sum(future.done() for future in futures), 0)
        futures.append(session.submit(_meet, str(folder), 100))
        check_equal(len(set(mh.gather(futures, timeout=LIMIT))), 1)


@case("concurrent")
def a_coroutine_past_its_time_is_cancelled(open_session: OpenSession) -> None:
    """A coroutine that waits past its `timeout` ends with CallTimeoutError, after its `finally`; others go on."""
    with open_folder() as folder, open_session(workers=1) as session:
        mark = work.Mark(folder)
        other = session.submit(_wait_for_mark, str(folder), "go")
        error: Any = mh.task(_sleep_long, timeout=_SHORT).submit(str(folder)).exception(LIMIT)
        check(isinstance(error, mh.CallTimeoutError), f"found {error!r}")
        check(_SHORT <= error.seconds < LIMIT, f"says that it ran for {error.seconds} s")
        check("_sleep_long" in error.stack, f"the stack does not show it: {error.stack}")
        check_equal((mark.count("began"), mark.count("ended")), (1, 1))
        check(not other.done(), f"another coroutine ended with it: {other!r}")
        mark.add("go")
        check_equal(other.result(LIMIT), "go")


@case("concurrent")
def a_coroutine_can_be_cancelled(open_session: OpenSession) -> None:
    """`cancel(running=True)` cancels a coroutine where it waits; its `finally` runs, and others go on."""
    with open_folder() as folder, open_session(workers=1) as session:
        mark = work.Mark(folder)
        other = session.submit(_wait_for_mark, str(folder), "go")
        future: Any = session.submit(_sleep_long, str(folder))
        wait_for(lambda: mark.count("began"), "the coroutine began")
        check_equal(future.cancel(), False)
        check_equal((future.cancel(running=True), future.cancelled()), (True, True))
        with expect(CancelledError):
            future.result(LIMIT)
        wait_for(lambda: mark.count("ended"), "its finally")
        mark.add("go")
        check_equal(other.result(LIMIT), "go")


@case("interrupts")
def a_coroutine_that_blocks_the_loop_is_ended(open_session: OpenSession) -> None:
    """One that never yields is ended at its `timeout`, and calls that shared the loop get an answer all the same."""
    with open_folder() as folder, open_session(workers=1) as session:
        mark = work.Mark(folder)
        for run in (work.spin, work.defy, work.freeze):
            name = run.__name__
            other = session.submit(_wait_for_mark, str(folder), f"go-{name}")
            wait_for(lambda n=f"{name}-waits": mark.count(n), "another coroutine")  # type: ignore[misc]
            error: Any = mh.task(_block, timeout=_SHORT).submit(run, str(folder)).exception(LIMIT)
            check(isinstance(error, mh.CallTimeoutError), f"{name}: found {error!r}")
            check_equal(session.submit(_add_slowly, 1).result(LIMIT), 1)
            mark.add(f"go-{name}")
            found: Any = mh.gather([other], on_error="return", timeout=LIMIT)[0]
            is_answer = found == f"go-{name}" or isinstance(found, mh.WorkerDiedError)
            check(is_answer, f"{name}: the other coroutine ended with {found!r}")


@case()
def coroutines_are_tried_again(open_session: OpenSession) -> None:
    """`retries` hold for coroutines."""
    with open_folder() as folder, open_session(workers=1):
        task = mh.task(_fail_slowly_until, retries=2, backoff=0.01)
        check_equal(task.submit(str(folder), 3).result(LIMIT), 3)


@case("isolates")
def coroutines_survive_a_death(open_session: OpenSession) -> None:
    """When the worker of coroutines dies, those that were under way are run once more."""
    with open_folder() as folder, open_session(workers=1) as session:
        futures = [session.submit(_meet, str(folder), 10) for _ in range(4)]
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("here") == 4, "the coroutines began")
        error = mh.task(_die_slowly, worker_retries=0).submit().exception(LIMIT)
        check(isinstance(error, mh.WorkerDiedError), f"found {error!r}")
        futures += [session.submit(_meet, str(folder), 10) for _ in range(6)]
        check_equal(len(mh.gather(futures, timeout=LIMIT)), 10)


@case()
def maps_take_coroutine_functions(open_session: OpenSession) -> None:
    """A map of an ``async def`` function has the results of its coroutines."""
    with open_session(workers=2) as session:
        expected = list(range(1, 31))
        check_equal(session.map(_add_slowly, range(30), [1] * 30), expected)
        check_equal(list(session.imap(_add_slowly, range(30), [1] * 30)), expected)
        check_equal(mh.task(_add_slowly).map(range(30), [1] * 30), expected)
        found = session.map(_fail_slowly, [1, 2], on_error="return")
        check_equal([type(value) for value in found], [work.CustomError] * 2)


@case()
def coroutines_make_calls(open_session: OpenSession) -> None:
    """A coroutine submits calls, awaits their futures, one by one and together, and takes streams."""
    with open_session(workers=1) as session:
        check_equal(session.submit(_await_squares, 5).result(LIMIT), [0, 1, 4, 9, 16])
        futures = [session.submit(_await_squares, x) for x in range(10)]
        expected = [[y * y for y in range(x)] for x in range(10)]
        check_equal(mh.gather(futures, timeout=LIMIT), expected)
        check_equal(session.submit(_await_failure).result(LIMIT), "awaited")
        check_equal(session.submit(_take_stream, 20).result(LIMIT), list(range(20)))


@case("concurrent")
def a_cancelled_coroutine_takes_its_calls_along(open_session: OpenSession) -> None:
    """Calls that a coroutine has made and awaits are cancelled with it."""
    with open_folder() as folder, open_session(workers=2) as session:
        future = session.submit(_await_spin, str(folder))
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("spin-began"), "its call began")
        check(future.cancel(running=True), f"could not be cancelled: {future!r}")
        wait_for(lambda: mark.count("spin-ended"), "its call was interrupted")
        check_equal(session.map(work.square, range(20)), [x * x for x in range(20)])


@case("concurrent")
def a_session_leaves_the_loop_free(open_session: OpenSession) -> None:
    """Submitting to a busy session, awaiting, cancelling and closing streams never hold up a running event loop."""

    async def use(session: mh.Session, gate: work.Gate) -> list[Any]:
        running = session.submit(gate.enter, "through")
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = monotonic()
                await asyncio.sleep(0.001)
                longest = max(longest, monotonic() - before)

        watcher = asyncio.create_task(watch())
        futures = [session.submit(work.square, x) for x in range(200)]
        while not gate.count_entered():  # noqa: ASYNC110 - others are in other processes
            await asyncio.sleep(0.001)
        check(futures[-1].cancel(), f"could not be cancelled: {futures[-1]!r}")
        async with aclosing(mh.task(count).stream()) as stream:
            opening = asyncio.create_task(_take_three(stream))
            await asyncio.sleep(0.01)
            gate.open()
            found = await opening
        results = await asyncio.gather(*map(asyncio.wrap_future, futures[:-1]))
        watcher.cancel()
        return [await running, found, results, longest]

    with open_folder() as folder, open_session(workers=1) as session:
        found = asyncio.run(asyncio.wait_for(use(session, work.Gate(folder)), LIMIT))
        check_equal(found[:3], ["through", [0, 1, 2], [x * x for x in range(199)]])
        check(found[3] < LIMIT / 6, f"the loop stood still for {found[3]} s")


@case("concurrent")
def an_awaited_call_can_be_cancelled_from_the_loop(open_session: OpenSession) -> None:
    """When a coroutine's wait for a call ends by asyncio's time-out, a call that had not begun is withdrawn."""

    async def use(session: mh.Session, folder: str) -> tuple[bool, mh.Future[int]]:
        waiting = session.submit(work.note, folder, 5)
        try:
            await asyncio.wait_for(asyncio.wrap_future(waiting), 0.05)
        except TimeoutError:
            return True, waiting
        return False, waiting

    with open_folder() as folder, open_session(workers=1) as session:
        gate = work.Gate(folder)
        running = session.submit(gate.enter)
        wait_for(gate.count_entered, "the call began")
        was_late, waiting = asyncio.run(asyncio.wait_for(use(session, str(folder)), LIMIT))
        check_equal((was_late, waiting.cancelled()), (True, True))
        gate.open()
        running.result(LIMIT)
        check_equal(list(islice(session.imap(work.square, count()), 3)), [0, 1, 4])
        check_equal(work.Mark(folder).count(5), 0)


@case("resources")
def a_coroutine_holds_its_resources(open_session: OpenSession) -> None:
    """Coroutines that need a resource of which there is one run one after the other, and can do all that others can."""
    with (
        open_folder() as folder,
        open_session(workers=3, resources={"seat": 1}) as session,
    ):
        seated: Any = mh.task(_be_alone, resources={"seat": 1})
        futures = [seated.submit(folder, x) for x in range(8)]
        check_equal(mh.gather(futures, timeout=LIMIT), [x * x for x in range(8)])
        check_equal(seated.map([folder] * 4, range(4)), [0, 1, 4, 9])
        streaming: Any = mh.task(_count_alone, resources={"seat": 1})
        check_equal(list(streaming.stream(50)), list(range(50)))
        late: Any = mh.task(_sleep_long, resources={"seat": 1}, timeout=_SHORT).submit(str(folder))
        check(isinstance(late.exception(LIMIT), mh.CallTimeoutError), "it was not ended")
        check_equal(seated.submit(folder, 9).result(LIMIT), 81)
        check_equal(session.submit(_add_slowly, 3, b=4).result(LIMIT), 7)


@case("concurrent")
def a_call_may_run_an_event_loop(open_session: OpenSession) -> None:
    """A plain call that runs a loop of its own awaits other calls on it, to any depth, and with one worker."""
    for workers in (1, 2):
        with open_session(workers=workers) as session:
            check_equal(session.submit(_run_loop, 4).result(LIMIT), 16)
            check_equal(session.map(_run_loop, [2, 3, 2]), [4, 8, 4])


@case("concurrent")
def a_call_may_wait_as_the_standard_library_does(open_session: OpenSession) -> None:
    """Inside a call, what `concurrent.futures` offers to wait with works for the futures of calls."""
    with open_session(workers=2) as session:
        check_equal(
            session.submit(_wait_by_the_standard, 20).result(LIMIT), [x * x for x in range(20)]
        )


async def _add_slowly(a: int, b: int = 0) -> int:
    await asyncio.sleep(0.001)
    return a + b


async def _fail_slowly(code: int) -> None:
    await asyncio.sleep(0.001)
    raise work.CustomError(code, detail="out of order")


async def _fail_slowly_until(folder: str, attempt: int) -> int:
    number = work.Mark(folder).add("attempt")
    await asyncio.sleep(0.001)
    if number < attempt:
        raise OSError(f"attempt {number}")
    return number


async def _die_slowly() -> None:
    from manyhands.testing.faults import Damage, strike

    await asyncio.sleep(0.001)
    strike(Damage.KILL)


async def _meet(folder: str, number: int) -> int:
    """Return when so many are here; the process."""
    mark = work.Mark(folder)
    mark.add("here")
    while mark.count("here") < number:  # noqa: ASYNC110 - others are in other processes
        await asyncio.sleep(0.01)
    return work.get_pid()


async def _wait_for_mark(folder: str, name: str) -> str:
    mark = work.Mark(folder)
    mark.add(f"{name.removeprefix('go-')}-waits")
    while not mark.count(name):  # noqa: ASYNC110 - others are in other processes
        await asyncio.sleep(0.005)
    return name


async def _sleep_long(folder: str) -> None:
    mark = work.Mark(folder)
    mark.add("began")
    try:
        await asyncio.sleep(2 * LIMIT)
    finally:
        mark.add("ended")


async def _block(run: Any, folder: str) -> None:
    await asyncio.sleep(0)
    run(folder)


async def _await_squares(number: int) -> list[int]:
    first = [await mh.submit(work.square, x) for x in range(number)]
    futures = [asyncio.wrap_future(mh.submit(work.square, x)) for x in range(number)]
    check_equal(await asyncio.gather(*futures), first)
    return first


async def _await_failure() -> str:
    try:
        await mh.submit(work.fail, "awaited")
    except ValueError as error:
        return str(error)
    return "nothing"


async def _await_spin(folder: str) -> None:
    await mh.submit(work.spin, folder)


async def _take_stream(stop: int) -> list[int]:
    return [item async for item in mh.task(range).stream(stop)]


async def _take_three(stream: Any) -> list[int]:
    found: list[int] = []
    async for item in stream:
        found.append(item)
        if len(found) == 3:
            break
    return found


async def _be_alone(folder: str, number: int) -> int:
    mark = work.Mark(folder)
    check(mark.add("seated") == mark.count("left") + 1, "another one is seated")
    result = await mh.submit(work.square, number)
    await asyncio.sleep(0.001)
    mark.add("left")
    return result


async def _count_alone(stop: int) -> AsyncIterator[int]:
    for number in range(stop):
        await asyncio.sleep(0)
        yield number


def _run_loop(depth: int) -> int:
    async def run_two() -> int:
        if not depth:
            return 1
        found = await asyncio.gather(*(mh.submit(_run_loop, depth - 1) for _ in range(2)))
        await asyncio.sleep(0.001)
        return sum(found)

    return asyncio.run(run_two())


def _wait_by_the_standard(number: int) -> list[int]:
    futures = [mh.submit(work.square, x) for x in range(number)]
    done, _ = concurrent.futures.wait(futures, LIMIT)
    check_equal(len(done), number)
    more: Any = [mh.submit(work.square, x) for x in range(number)]
    check_equal(len(list(concurrent.futures.as_completed(more, LIMIT))), number)
    return [future.result() for future in futures]
