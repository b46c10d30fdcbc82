"""Futures as arguments: a call waits for its inputs."""

from __future__ import annotations

from concurrent.futures import CancelledError
from concurrent.futures import Future as StandardFuture
from threading import Timer
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder


@case()
def a_future_can_be_an_argument(open_session: OpenSession) -> None:
    """A future stands for its result, among positional and among keyword arguments."""
    with open_session(workers=2) as session:
        two = session.submit(work.add, 1, 1)
        submit: Any = session.submit
        check_equal(submit(work.add, two, two).result(LIMIT), 4)
        check_equal(submit(work.add, 1, b=two, c=two).result(LIMIT), 5)


@case()
def futures_can_be_nested(open_session: OpenSession) -> None:
    """Futures inside lists, tuples and dicts, however deep, stand for their results."""
    with open_session(workers=2) as session:
        one, two, three = (session.submit(work.echo, x) for x in (1, 2, 3))
        value = {"a": [one, (two, {"b": three})], "c": 10}
        check_equal(session.submit(work.total, value).result(LIMIT), 16)
        found = session.submit(work.echo, value).result(LIMIT)
        check_equal(found, {"a": [1, (2, {"b": 3})], "c": 10})
        check(value["a"] == [one, (two, {"b": three})], "the caller's own containers were changed")


@case()
def a_chain_of_calls_runs(open_session: OpenSession) -> None:
    """Hundreds of calls that each wait for the one before."""
    with open_session(workers=2) as session:
        future: Any = session.submit(work.echo, 0)
        for _ in range(300):
            future = session.submit(work.add, future, 1)
        check_equal(future.result(LIMIT), 300)


@case()
def a_diamond_of_calls_runs(open_session: OpenSession) -> None:
    """Many calls that share inputs, each of which runs once."""
    with open_folder() as folder, open_session(workers=2) as session:
        root = session.submit(work.note, str(folder), 1)
        submit: Any = session.submit
        middle = [submit(work.add, root, x) for x in range(40)]
        check_equal(submit(work.total, middle).result(LIMIT), 40 + sum(range(40)))
        check_equal(work.Mark(folder).count(1), 1)


@case()
def many_calls_wait_for_one(open_session: OpenSession) -> None:
    """Inputs that are slow start nothing early."""
    with open_session(workers=2) as session:
        slow = session.submit(work.nap, 0.1)
        waiting = [session.submit(work.echo, [slow, x]) for x in range(100)]
        check_equal(mh.gather(waiting, timeout=LIMIT), [[0.1, x] for x in range(100)])


@case()
def a_standard_future_can_be_an_argument(open_session: OpenSession) -> None:
    """A `concurrent.futures.Future` of anybody is waited for as well."""
    outside: StandardFuture[int] = StandardFuture()
    with open_session(workers=2) as session:
        submit: Any = session.submit
        future = submit(work.add, outside, 1)
        check(not future.done(), "a call ran before its input was there")
        outside.set_result(5)
        check_equal(future.result(LIMIT), 6)


@case()
def a_wait_lasts_until_the_input_comes(open_session: OpenSession) -> None:
    """Whoever waits for a call waits for its inputs too, also where another thread brings them."""
    outside: StandardFuture[int] = StandardFuture()
    timer = Timer(0.05, outside.set_result, [5])
    with open_session(workers=2) as session:
        submit: Any = session.submit
        future = submit(work.add, outside, 1)
        timer.start()
        check_equal(future.result(LIMIT), 6)
    timer.join(LIMIT)


@case()
def inputs_may_come_from_another_session(open_session: OpenSession) -> None:
    """A future of one session is an argument in another."""
    with open_session(workers=1) as first, open_session(workers=1) as second:
        submit: Any = second.submit
        future = submit(work.add, first.submit(work.nap, 0.05), 1)
        check_equal(future.result(LIMIT), 1.05)
        back: Any = first.submit
        check_equal(back(work.add, future, 1).result(LIMIT), 2.05)


@case()
def a_failed_input_fails_the_call(open_session: OpenSession) -> None:
    """The call is not run; its error is DependencyError, caused by the input's error."""
    with open_folder() as folder, open_session(workers=2) as session:
        failed = session.submit(work.fail, "the input")
        submit: Any = session.submit
        for future in (submit(work.note, str(folder), failed), submit(work.total, [1, (failed,)])):
            error = future.exception(LIMIT)
            check(isinstance(error, mh.DependencyError), f"found {error!r}")
            cause = error.__cause__
            check_equal((type(cause), str(cause)), (ValueError, "the input"))
        check_equal(list(folder.iterdir()), [])


@case()
def an_input_that_failed_before_fails_the_call(open_session: OpenSession) -> None:
    """It makes no difference whether the input failed before or after the submission."""
    with open_session(workers=2) as session:
        failed = session.submit(work.fail, "the input")
        failed.exception(LIMIT)
        submit: Any = session.submit
        error = submit(work.square, failed).exception(LIMIT)
        check(isinstance(error, mh.DependencyError), f"found {error!r}")
        check_equal(str(error.__cause__), "the input")


@case()
def a_failure_goes_down_the_chain(open_session: OpenSession) -> None:
    """Everything that hangs on a failed call fails; the causes lead to the root."""
    with open_session(workers=2) as session:
        future: Any = session.submit(work.fail, "the root")
        for _ in range(5):
            future = session.submit(work.square, future)
        error = future.exception(LIMIT)
        check(isinstance(error, mh.DependencyError), f"found {error!r}")
        while isinstance(error, mh.DependencyError):
            error = error.__cause__
        check_equal(str(error), "the root")


@case()
def a_failed_input_is_not_retried_by_the_call(open_session: OpenSession) -> None:
    """A call's retries are for the call, not for what its inputs did."""
    with open_session(workers=2) as session:
        failed: Any = session.submit(work.fail, "the input")
        error = mh.task(work.square, retries=3).submit(failed).exception(LIMIT)
        check(isinstance(error, mh.DependencyError), f"found {error!r}")
        check_equal(session.report().retried, 0)


@case()
def an_input_with_retries_is_waited_for(open_session: OpenSession) -> None:
    """A call waits for the last attempt of its input."""
    with open_folder() as folder, open_session(workers=2) as session:
        task = mh.task(work.fail_until, retries=2, backoff=0.001)
        source: Any = task.submit(str(folder), 3, 6)
        check_equal(session.submit(work.square, source).result(LIMIT), 36)


@case()
def a_cancelled_input_cancels_the_call(open_session: OpenSession) -> None:
    """What waits for a call that is withdrawn is withdrawn with it, however far."""
    outside: Any = StandardFuture()
    with open_session(workers=2) as session:
        source: Any = session.submit(work.square, outside)
        dependent: Any = session.submit(work.square, source)
        last = session.submit(work.total, [1, dependent])
        check(source.cancel(), "a call that waits for its input could not be cancelled")
        check(dependent.cancelled() and last.cancelled(), "what waits for it is not cancelled")
        with expect(CancelledError):
            last.result(LIMIT)
        with expect(CancelledError):
            session.submit(work.square, source).result(LIMIT)
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)
