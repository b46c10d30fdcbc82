"""Cancelling: what has not started can be withdrawn."""

from __future__ import annotations

from concurrent.futures import CancelledError
from concurrent.futures import Future as StandardFuture
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for


@case()
def a_waiting_call_can_be_cancelled(open_session: OpenSession) -> None:
    """A call whose inputs are not there is withdrawn, and asking for its result says so."""
    outside: Any = StandardFuture()
    with open_folder() as folder, open_session(workers=2) as session:
        future = session.submit(work.note, str(folder), outside)
        check_equal((future.cancel(), future.cancelled(), future.done()), (True, True, True))
        check(future.cancel(), "cancelling again says that it is not cancelled")
        for ask in (future.result, future.exception):
            with expect(CancelledError):
                ask(LIMIT)
        outside.set_result(1)
        check_equal(session.submit(work.square, 2).result(LIMIT), 4)
        check_equal(list(folder.iterdir()), [])


@case()
def an_ended_call_cannot_be_cancelled(open_session: OpenSession) -> None:
    """`cancel` of a call that has ended returns False, and the result stays."""
    with open_session(workers=2) as session:
        future = session.submit(work.square, 3)
        future.result(LIMIT)
        check_equal((future.cancel(), future.cancelled(), future.result()), (False, False, 9))
        failed = session.submit(work.fail, "x")
        failed.exception(LIMIT)
        check(not failed.cancel(), "a failed call was cancelled")


@case("concurrent")
def a_running_call_cannot_be_cancelled(open_session: OpenSession) -> None:
    """`cancel` of a call that has begun returns False, and it ends as if nothing had been."""
    with open_folder() as folder, open_session(workers=1) as session:
        gate = work.Gate(folder)
        future = session.submit(gate.enter, 5)
        wait_for(gate.count_entered, "the call began")
        check_equal((future.cancel(), future.cancelled()), (False, False))
        gate.open()
        check_equal(future.result(LIMIT), 5)


@case("concurrent")
def queued_calls_can_be_cancelled(open_session: OpenSession) -> None:
    """Calls behind a running one, also those sent ahead to its worker, are withdrawn and never run."""
    with open_folder() as folder, open_session(workers=1) as session:
        gate = work.Gate(folder)
        session.submit(work.note, str(folder), 99).result(LIMIT)  # so that its duration is known
        running = session.submit(gate.enter, 5)
        wait_for(gate.count_entered, "the call began")
        queued = [session.submit(work.note, str(folder), x) for x in range(20)]
        check_equal([future.cancel() for future in queued[::2]], [True] * 10)
        gate.open()
        check_equal(running.result(LIMIT), 5)
        check_equal(mh.gather(queued[1::2], timeout=LIMIT), list(range(1, 20, 2)))
        check_equal([work.Mark(folder).count(x) for x in range(20)], [0, 1] * 10)


@case("concurrent")
def cancelled_calls_wake_waiters(open_session: OpenSession) -> None:
    """Cancelling calls back, and counts as an end for those who wait."""
    calls: list[Any] = []
    with open_folder() as folder, open_session(workers=1) as session:
        gate = work.Gate(folder)
        session.submit(gate.enter)
        wait_for(gate.count_entered, "the call began")
        future = session.submit(work.square, 1)
        future.add_done_callback(calls.append)
        check(future.cancel(), "a queued call could not be cancelled")
        check_equal(calls, [future])
        check_equal(mh.wait([future], LIMIT).done, {future})
        gate.open()


@case()
def closing_cancels_waiting_calls(open_session: OpenSession) -> None:
    """What has not ended when its session closes is cancelled."""
    outside: Any = StandardFuture()
    session = open_session(workers=2)
    waiting = session.submit(work.square, outside)
    ended = session.submit(work.square, 3)
    ended.result(LIMIT)
    session.close()
    check(waiting.cancelled(), f"left as {waiting!r}")
    check_equal(ended.result(LIMIT), 9)
    outside.set_result(1)  # too late, and harmless


@case("concurrent")
def closing_cancels_queued_calls(open_session: OpenSession) -> None:
    """Calls behind a running one do not run after the close, and nobody who waits for them waits on."""
    with open_folder() as folder:
        gate = work.Gate(folder)
        session = open_session(workers=1)
        session.submit(gate.enter)
        wait_for(gate.count_entered, "the call began")
        queued = [session.submit(work.note, str(folder), x) for x in range(10)]
        session.close(grace=0.01)
        gate.open()
        check(all(future.cancelled() for future in queued), f"left as {queued!r}")
        for future in queued:
            with expect(CancelledError):
                future.result(LIMIT)
        check_equal([work.Mark(folder).count(x) for x in range(10)], [0] * 10)
