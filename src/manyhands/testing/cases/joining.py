"""Joining: calls that return a future, whose result is theirs."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for


@case()
def a_call_may_return_a_future(open_session: OpenSession) -> None:
    """The result of a call that returns a future is that future's result; the same for those that wait for it."""
    with open_session(workers=2) as session:
        submit: Any = session.submit
        joined = submit(_submit_square, 5)
        check_equal(joined.result(LIMIT), 25)
        check_equal(submit(work.add, joined, 1).result(LIMIT), 26)
        futures = [submit(_submit_square, x) for x in range(50)]
        check_equal(mh.gather(futures, timeout=LIMIT), [x * x for x in range(50)])
        check_equal(submit(work.measure, submit(_submit_block, 1_000_000)).result(LIMIT), 1_000_000)


@case()
def a_call_may_return_a_future_that_is_done(open_session: OpenSession) -> None:
    """It makes no difference that the call had waited for the future that it returns."""
    with open_session(workers=1) as session:
        check_equal(session.submit(_submit_and_wait, 5).result(LIMIT), 25)


@case()
def the_failure_of_a_returned_future_is_the_calls(open_session: OpenSession) -> None:
    """Where the future that a call returns fails, so does the call, with the same error; `retries` cover it."""
    with open_folder() as folder, open_session(workers=2) as session:
        error: Any = session.submit(_submit_failing, 7).exception(LIMIT)
        check_equal((type(error), error.code), (work.CustomError, 7))
        task = mh.task(_submit_fail_until, retries=2, backoff=0.01)
        check_equal(task.submit(str(folder), 3, 1).result(LIMIT), 1)
        check_equal(work.Mark(folder).count(1), 3)
        few = task.options(retries=1).submit(str(folder), 3, 2).exception(LIMIT)
        check_equal((type(few), str(few)), (OSError, "attempt 2 at item 2"))


@case()
def returned_futures_form_chains(open_session: OpenSession) -> None:
    """A call may return the future of a call that returns a future, and so on, with one worker."""
    with open_session(workers=1) as session:
        check_equal(session.submit(_count_down, 20).result(LIMIT), "done")
        check_equal(session.submit(_factorial, 10).result(LIMIT), 3_628_800)


@case("resources", "concurrent")
def a_joined_call_holds_no_worker(open_session: OpenSession) -> None:
    """While the future that a call returned is not done, its worker and what it held are free for others."""
    with open_folder() as folder, open_session(workers=2, resources={"seat": 1}):
        gate = work.Gate(folder)
        joined = mh.task(_submit_gate, resources={"seat": 1}, cpus=2).submit(gate)
        wait_for(gate.count_entered, "the inner call began")
        seated = mh.task(work.square, resources={"seat": 1}).submit(3)
        check_equal(seated.result(LIMIT), 9)
        check(not joined.done(), f"left as {joined!r}")
        gate.open()
        check_equal(joined.result(LIMIT), "through")


@case("concurrent")
def the_cancellation_of_a_joined_call_goes_down(open_session: OpenSession) -> None:
    """Cancelling a call that has returned a future cancels that one too."""
    with open_folder() as folder, open_session(workers=2) as session:
        joined = session.submit(_submit_spin, str(folder))
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("spin-began"), "the inner call began")
        check(joined.cancel(running=True), f"could not be cancelled: {joined!r}")
        with expect(CancelledError):
            joined.result(LIMIT)
        wait_for(lambda: mark.count("spin-ended"), "the inner call was interrupted")
        check_equal(session.map(work.square, range(20)), [x * x for x in range(20)])


@case("concurrent")
def the_cancellation_of_a_returned_future_goes_up(open_session: OpenSession) -> None:
    """A call whose returned future is cancelled is not left waiting."""
    with open_folder() as folder, open_session(workers=2) as session:
        joined = session.submit(_submit_and_cancel, str(folder))
        check(mh.wait([joined], LIMIT).done, f"left as {joined!r}")
        check(joined.cancelled() or joined.exception() is not None, f"ended as {joined!r}")


@case("isolates")
def a_joined_call_survives_deaths(open_session: OpenSession) -> None:
    """Whether the worker of the inner call dies or that which the outer one ran in, the outer call has its result."""
    from os import kill
    from signal import SIGKILL

    with open_folder() as folder, open_session(workers=2) as session:
        joined = session.submit(_submit_misbehaving, str(folder), ("die", "ok"), 3)
        check_equal(joined.result(LIMIT), 3)
        gate = work.Gate(folder)
        joined = session.submit(_tell_pid_and_submit, str(folder))
        wait_for(gate.count_entered, "the inner call began")
        kill(int(work.Diary(folder).read()[0]), SIGKILL)
        gate.open()
        check_equal(joined.result(LIMIT), "through")


@case("concurrent")
def a_joined_call_has_a_timeout(open_session: OpenSession) -> None:
    """`timeout` of a call counts while it runs itself; the inner call has its own, whose error is the outer one's."""
    with open_folder() as folder, open_session(workers=2):
        task = mh.task(_submit_spin_shortly, timeout=LIMIT)
        error = task.submit(str(folder)).exception(LIMIT)
        check(isinstance(error, mh.CallTimeoutError), f"found {error!r}")


@case()
def items_may_return_futures(open_session: OpenSession) -> None:
    """The items of a map may return futures; the map has their results."""
    with open_session(workers=2) as session:
        check_equal(session.map(_submit_square, range(20)), [x * x for x in range(20)])


@case()
def coroutines_may_return_futures(open_session: OpenSession) -> None:
    """A coroutine that returns a future has its result."""
    with open_session(workers=2) as session:
        check_equal(session.submit(_submit_square_async, 5).result(LIMIT), 25)


def _submit_square(x: int) -> Any:
    return mh.submit(work.square, x)


async def _submit_square_async(x: int) -> Any:
    return mh.submit(work.square, x)


def _submit_block(size: int) -> Any:
    return mh.submit(bytes, size)


def _submit_and_wait(x: int) -> Any:
    future = mh.submit(work.square, x)
    future.result(LIMIT)
    return future


def _submit_failing(code: int) -> Any:
    return mh.submit(work.fail_with_custom_error, code)


def _submit_fail_until(folder: str, attempt: int, x: int) -> Any:
    return mh.submit(work.fail_until, folder, attempt, x)


def _count_down(number: int) -> Any:
    return mh.submit(_count_down, number - 1) if number else "done"


def _factorial(number: int, product: int = 1) -> Any:
    return mh.submit(_factorial, number - 1, product * number) if number else product


def _submit_gate(gate: work.Gate) -> Any:
    return mh.task(gate.enter, cpus=1).submit("through")


def _submit_spin(folder: str) -> Any:
    return mh.submit(work.spin, folder)


def _submit_spin_shortly(folder: str) -> Any:
    return mh.task(work.spin, timeout=0.2).submit(folder)


def _submit_and_cancel(folder: str) -> Any:
    future = mh.submit(work.spin, folder)
    wait_for(lambda: work.Mark(folder).count("spin-began"), "the inner call began")
    future.cancel(running=True)
    return future


def _submit_misbehaving(folder: str, plan: tuple[str, ...], value: int) -> Any:
    return mh.submit(work.misbehave, folder, plan, value)


def _tell_pid_and_submit(folder: str) -> Any:
    work.Diary(folder).write(work.get_pid())
    return mh.submit(work.Gate(folder).enter, "through")
