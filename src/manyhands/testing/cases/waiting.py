"""Waiting: for one future, for several, and by means of the standard library."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for


def _make_pending(session: mh.Session) -> tuple[concurrent.futures.Future[int], mh.Future[int]]:
    """A future of somebody else's, and one that waits for it."""
    outside: Any = concurrent.futures.Future()
    return outside, session.submit(work.square, outside)


@case()
def result_has_a_limit(open_session: OpenSession) -> None:
    """`result` and `exception` raise TimeoutError when the time is over, and the call goes on."""
    with open_session(workers=2) as session:
        outside, future = _make_pending(session)
        for ask in (future.result, future.exception):
            with expect(TimeoutError):
                ask(timeout=0.01)
            with expect(TimeoutError):
                ask(timeout=0)
        outside.set_result(3)
        check_equal(future.result(LIMIT), 9)


@case()
def a_future_tells_its_state(open_session: OpenSession) -> None:
    """`done`, `cancelled`, `exception` and the text of a future say what it is."""
    with open_session(workers=2) as session:
        outside, future = _make_pending(session)
        check_equal((future.done(), future.cancelled(), future.running()), (False, False, False))
        check("square" in repr(future) and "pending" in repr(future), repr(future))
        outside.set_result(3)
        future.result(LIMIT)
        check_equal((future.done(), future.cancelled(), future.running()), (True, False, False))
        check_equal(future.exception(LIMIT), None)
        check("finished" in repr(future), repr(future))


@case("concurrent")
def a_running_call_says_so(open_session: OpenSession) -> None:
    """`running` is true while a worker is at the call."""
    with open_folder() as folder, open_session(workers=1) as session:
        gate = work.Gate(folder)
        future = session.submit(gate.enter, 5)
        wait_for(gate.count_entered, "the call began")
        wait_for(future.running, "the future says that it runs")
        gate.open()
        check_equal(future.result(LIMIT), 5)
        check(not future.running(), "it has ended and says that it runs")


@case()
def gather_keeps_the_order(open_session: OpenSession) -> None:
    """`gather` returns results in the order of the futures, repeated ones too."""
    with open_session(workers=2) as session:
        futures = [session.submit(work.nap, x / 100) for x in (3, 1, 2)]
        check_equal(mh.gather(futures, timeout=LIMIT), [0.03, 0.01, 0.02])
        check_equal(mh.gather([futures[0], futures[0]]), [0.03, 0.03])
        check_equal(mh.gather([]), [])


@case()
def gather_raises_or_returns_errors(open_session: OpenSession) -> None:
    """The first error in the futures' order is raised; with `on_error="return"` errors are results."""
    with open_session(workers=2) as session:
        futures: list[mh.Future[int]] = [
            session.submit(work.square, 2),
            session.submit(work.fail, "first"),
            session.submit(work.fail, "second"),
        ]
        with expect(ValueError) as caught:
            mh.gather(futures, timeout=LIMIT)
        check_equal(str(caught.error), "first")
        found = mh.gather(futures, on_error="return", timeout=LIMIT)
        check_equal([str(value) for value in found], ["4", "first", "second"])


@case()
def gather_has_a_limit(open_session: OpenSession) -> None:
    """`gather` raises TimeoutError when the time for all is over."""
    with open_session(workers=2) as session:
        outside, future = _make_pending(session)
        with expect(TimeoutError):
            mh.gather([session.submit(work.square, 1), future], timeout=0.05)
        outside.set_result(1)
        check_equal(mh.gather([future], timeout=LIMIT), [1])


@case()
def wait_divides_the_futures(open_session: OpenSession) -> None:
    """`wait` returns what is done and what is not, and raises nothing."""
    with open_session(workers=2) as session:
        futures = [session.submit(work.square, x) for x in range(10)]
        futures.append(session.submit(work.fail, "x"))
        done, not_done = mh.wait(futures, timeout=LIMIT)
        check_equal((done, not_done), (set(futures), set()))
        outside, pending = _make_pending(session)
        done, not_done = mh.wait([*futures, pending], timeout=0.05)
        check_equal((done, not_done), (set(futures), {pending}))
        outside.set_result(1)
        check_equal(mh.wait([pending], timeout=LIMIT).done, {pending})
        check_equal(mh.wait([]), (set(), set()))


@case()
def wait_ends_with_the_first(open_session: OpenSession) -> None:
    """`FIRST_COMPLETED` and `FIRST_EXCEPTION` end the wait early."""
    with open_session(workers=2) as session:
        outside, pending = _make_pending(session)
        quick = session.submit(work.square, 1)
        done, not_done = mh.wait([pending, quick], LIMIT, return_when="FIRST_COMPLETED")
        check_equal((done, not_done), ({quick}, {pending}))
        failed = session.submit(work.fail, "x")
        done, not_done = mh.wait([pending, failed], LIMIT, return_when="FIRST_EXCEPTION")
        check_equal((done, not_done), ({failed}, {pending}))
        done, _ = mh.wait([pending, quick], 0.05, return_when="FIRST_EXCEPTION")
        check_equal(done, {quick})
        outside.set_result(1)
        nonsense: Any = "SOME"
        with expect(mh.InvalidArgumentError):
            mh.wait([quick], return_when=nonsense)


@case()
def as_completed_gives_each_once(open_session: OpenSession) -> None:
    """`as_completed` yields every future once, failed and cancelled ones too."""
    with open_session(workers=2) as session:
        futures = [session.submit(work.square, x) for x in range(100)]
        futures.append(session.submit(work.fail, "x"))
        _, withdrawn = _make_pending(session)
        withdrawn.cancel()
        futures.append(withdrawn)
        found = list(mh.as_completed([*futures, futures[0]], timeout=LIMIT))
        check_equal((len(found), set(found)), (len(futures), set(futures)))
        check_equal(list(mh.as_completed([])), [])


@case("concurrent")
def as_completed_follows_the_ends(open_session: OpenSession) -> None:
    """`as_completed` yields in the order in which calls end."""
    with open_folder() as folder, open_session(workers=2) as session:
        gate = work.Gate(folder)
        slow = session.submit(gate.enter, "slow")
        quick = session.submit(work.echo, "quick")
        order = []
        for future in mh.as_completed([slow, quick], timeout=LIMIT):
            order.append(future.result())
            gate.open()
        check_equal(order, ["quick", "slow"])


@case()
def as_completed_has_a_limit(open_session: OpenSession) -> None:
    """`as_completed` yields what is done, then raises TimeoutError when the time is over."""
    with open_session(workers=2) as session:
        outside, pending = _make_pending(session)
        quick = session.submit(work.square, 2)
        quick.result(LIMIT)
        found = []
        with expect(TimeoutError):
            for future in mh.as_completed([pending, quick], timeout=0.05):
                found.append(future)  # noqa: PERF402 - the loop raises, and what came before counts
        check_equal(found, [quick])
        outside.set_result(1)


@case()
def waits_span_sessions(open_session: OpenSession) -> None:
    """`gather`, `wait` and `as_completed` take futures of several sessions."""
    with open_session(workers=1) as first, open_session(workers=1) as second:
        futures = [session.submit(work.square, x) for x in range(20) for session in (first, second)]
        check_equal(len(mh.wait(futures, LIMIT).done), 40)
        futures += [session.submit(work.square, 5) for session in (first, second)]
        check_equal(len(list(mh.as_completed(futures, LIMIT))), 42)
        check_equal(mh.gather(futures[-2:], timeout=LIMIT), [25, 25])


@case()
def the_standard_wait_takes_our_futures(open_session: OpenSession) -> None:
    """`concurrent.futures.wait` and `as_completed` work on our futures."""
    with open_session(workers=2) as session:
        naps = [session.submit(work.nap, 0.01) for _ in range(6)]
        check_equal(concurrent.futures.wait(naps, timeout=LIMIT), (set(naps), set()))
        futures: list[concurrent.futures.Future[int]]
        futures = [session.submit(work.square, x) for x in range(50)]
        found = {f.result() for f in concurrent.futures.as_completed(futures, timeout=LIMIT)}
        check_equal(found, {x * x for x in range(50)})
        outside, pending = _make_pending(session)
        quick = session.submit(work.square, 1)
        done, not_done = concurrent.futures.wait(
            [pending, quick], LIMIT, return_when=concurrent.futures.FIRST_COMPLETED
        )
        check_equal((done, not_done), ({quick}, {pending}))
        outside.set_result(1)


@case()
def futures_can_be_awaited(open_session: OpenSession) -> None:
    """A coroutine awaits futures, one by one and together, and gets results and errors."""

    async def use(session: mh.Session) -> list[Any]:
        one = await session.submit(work.square, 3)
        several = await asyncio.gather(
            *(asyncio.wrap_future(session.submit(work.nap, 0.01)) for _ in range(5)),
        )
        try:
            await session.submit(work.fail, "awaited")
        except ValueError as error:
            return [one, several, str(error)]
        return [one, several]

    with open_session(workers=2) as session:
        found = asyncio.run(asyncio.wait_for(use(session), LIMIT))
        check_equal(found, [9, [0.01] * 5, "awaited"])


@case("concurrent")
def the_event_loop_runs_on(open_session: OpenSession) -> None:
    """While a coroutine waits for a call, others run."""

    async def use(session: mh.Session, gate: work.Gate) -> list[str]:
        order: list[str] = []

        async def release() -> None:
            order.append("released")
            gate.open()

        future = asyncio.wrap_future(session.submit(gate.enter, "done"))
        _, value = await asyncio.gather(release(), future)
        return [*order, value]

    with open_folder() as folder, open_session(workers=1) as session:
        found = asyncio.run(asyncio.wait_for(use(session, work.Gate(folder)), LIMIT))
        check_equal(found, ["released", "done"])


@case()
def callbacks_are_called_once(open_session: OpenSession) -> None:
    """A callback gets its future once it is done; at once where it is done; one that raises disturbs nobody."""
    calls: list[Any] = []
    came = threading.Event()

    def complain(future: object) -> None:
        raise RuntimeError(f"a callback of {future!r} that fails, on purpose")

    with open_session(workers=2) as session:
        outside, future = _make_pending(session)
        future.add_done_callback(complain)
        future.add_done_callback(calls.append)
        future.add_done_callback(lambda _: came.set())
        check_equal(calls, [])
        outside.set_result(3)
        check(came.wait(LIMIT), "no callback came, though nobody waited for the result")
        check_equal((calls, future.result(LIMIT)), ([future], 9))
        future.add_done_callback(calls.append)
        check_equal(calls, [future, future])
        check_equal(session.submit(work.square, 4).result(LIMIT), 16)


@case()
def callbacks_come_without_a_wait(open_session: OpenSession) -> None:
    """Callbacks of many calls come though nobody waits for any of them."""
    counter = threading.Semaphore(0)
    with open_session(workers=2) as session:
        for x in range(100):
            session.submit(work.square, x).add_done_callback(lambda _: counter.release())
        for number in range(100):
            check(counter.acquire(timeout=LIMIT), f"{number} of 100 callbacks came")


@case()
def a_callback_may_submit(open_session: OpenSession) -> None:
    """A callback may use the session that called it."""
    follow: list[mh.Future[int]] = []
    came = threading.Event()
    with open_session(workers=2) as session:

        def go_on(future: mh.Future[int]) -> None:
            follow.append(session.submit(work.square, future.result()))
            came.set()

        session.submit(work.square, 2).add_done_callback(go_on)
        check(came.wait(LIMIT), "no callback came")
        check_equal(follow[0].result(LIMIT), 16)


@case()
def calls_run_though_nobody_waits(open_session: OpenSession) -> None:
    """A call that was submitted runs, also where nobody ever asks for its result."""
    with open_folder() as folder, open_session(workers=2) as session:
        for x in range(10):
            session.submit(work.note, str(folder), x)
        wait_for(
            lambda: len(list(folder.iterdir())) == 10, "ten calls ran, without a wait for them"
        )
