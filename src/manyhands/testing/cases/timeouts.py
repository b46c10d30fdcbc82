"""Time-outs: calls that run too long, and maps and gathers that are not done in time."""

from __future__ import annotations

from functools import partial
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for

_SHORT = 0.2
"""Seconds that a call has which takes for ever."""


def _check_timeout(error: Any, name: str, seconds: float = _SHORT) -> None:
    check(isinstance(error, mh.CallTimeoutError), f"found {error!r}")
    check(isinstance(error, TimeoutError), "it is no TimeoutError")
    check(name in error.call and name in str(error), f"does not name {name}: {error}")
    check(seconds <= error.seconds < LIMIT, f"says that it ran for {error.seconds} s")
    check(name in error.stack, f"the stack does not show {name}: {error.stack}")


@case("concurrent")
def a_loop_past_its_time_is_interrupted(open_session: OpenSession) -> None:
    """A call past its `timeout` fails with CallTimeoutError, which says how long it ran and where it stood."""
    with open_folder() as folder, open_session(workers=1) as session:
        task = mh.task(work.spin, timeout=_SHORT)
        _check_timeout(task.submit(str(folder)).exception(LIMIT), "spin")
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("spin-ended"), "the call ended")
        check_equal(mark.count("spin-CallInterrupted"), 1)
        with expect(mh.CallTimeoutError):
            task.submit(str(folder), "again").result(LIMIT)
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("interrupts")
def a_sleep_past_its_time_is_interrupted(open_session: OpenSession) -> None:
    """A call that sleeps is interrupted in its sleep, and its worker lives on."""
    with open_folder() as folder, open_session(workers=1) as session:
        pid = session.submit(work.get_pid).result(LIMIT)
        error = mh.task(work.doze, timeout=_SHORT).submit(str(folder)).exception(LIMIT)
        _check_timeout(error, "doze")
        check_equal(work.Mark(folder).count("doze-CallInterrupted"), 1)
        check_equal(session.submit(work.get_pid).result(LIMIT), pid)


@case("interrupts")
def a_call_that_defies_its_timeout_is_ended(open_session: OpenSession) -> None:
    """A call that swallows interrupts, or hangs in native code, ends too, and its worker is replaced."""
    for run in (work.defy, work.freeze):
        with open_folder() as folder, open_session(workers=1) as session:
            pid = session.submit(work.get_pid).result(LIMIT)
            future = mh.task(run, timeout=_SHORT).submit(str(folder))
            queued = [session.submit(work.note, str(folder), x) for x in range(5)]
            _check_timeout(future.exception(LIMIT), run.__name__)
            check_equal(mh.gather(queued, timeout=LIMIT), list(range(5)))
            check_equal([work.Mark(folder).count(x) for x in range(5)], [1] * 5)
            check(session.submit(work.get_pid).result(LIMIT) != pid, "its worker goes on")


@case("concurrent")
def the_time_counts_from_the_start(open_session: OpenSession) -> None:
    """While a call is queued, sent ahead, or waits for its inputs, its `timeout` does not run."""
    with open_session(workers=1) as session:
        session.map(work.nap, [0.0] * 50)  # so that more of them are sent ahead
        timed: Any = mh.task(work.echo, timeout=_SHORT)
        slow = session.submit(work.nap, 3 * _SHORT)
        queued = [timed.submit(x) for x in range(20)]
        waiting = timed.submit([slow])
        check_equal(mh.gather(queued, timeout=LIMIT), list(range(20)))
        check_equal(waiting.result(LIMIT), [3 * _SHORT])


@case("concurrent")
def timeouts_are_tried_again(open_session: OpenSession) -> None:
    """`retries` cover time-outs, each attempt has its own time, and the error tells of all of them."""
    with open_folder() as folder, open_session(workers=1):
        task = mh.task(work.misbehave, timeout=_SHORT, retries=1, backoff=0.01)
        check_equal(task.submit(str(folder), ("spin", "ok"), 1).result(LIMIT), 1)
        error: Any = task.submit(str(folder), ("spin",), 2).exception(LIMIT)
        check(isinstance(error, mh.CallTimeoutError), f"found {error!r}")
        notes = "\n".join(error.__notes__)
        check(notes.count("CallTimeoutError") >= 2, f"not every attempt in: {notes}")
        other = task.options(retry_on=(KeyError,))
        check_equal(
            type(other.submit(str(folder), ("spin", "ok"), 3).exception(LIMIT)), type(error)
        )
        check_equal([work.count_attempts(folder, x) for x in (1, 2, 3)], [2, 2, 1])


@case("concurrent")
def items_have_timeouts(open_session: OpenSession) -> None:
    """`timeout` of a map is that of each item: the one past it fails, with its index, and the others have results."""
    with open_session(workers=2) as session:
        for batch in (None, 1, 8):
            with open_folder() as folder:
                run = partial(_spin_at, str(folder), 13)
                with expect(mh.CallTimeoutError) as caught:
                    session.map(run, range(20), timeout=_SHORT, batch=batch)
                notes = "\n".join(caught.error.__notes__)
                check("item 13 " in notes, f"batch {batch}, notes: {notes}")
                found: list[Any] = session.map(
                    run, range(20), timeout=_SHORT, batch=batch, on_error="return"
                )
                check_equal([v for v in found if isinstance(v, int)], [*range(13), *range(14, 20)])
                check(isinstance(found[13], mh.CallTimeoutError), f"found {found[13]!r}")


@case()
def items_do_not_share_their_time(open_session: OpenSession) -> None:
    """Many items that each take less than `timeout` pass, however long they take together."""
    with open_session(workers=1) as session:
        for batch in (None, 20):
            naps = [0.02] * 20
            check_equal(session.map(work.nap, naps, timeout=_SHORT, batch=batch), naps)


@case("concurrent")
def tasks_may_change_their_timeout(open_session: OpenSession) -> None:
    """`options(timeout=…)` gives calls another limit, or none, and leaves the task as it is."""
    with open_folder() as folder, open_session(workers=1):
        plain = mh.task(work.nap)
        limited = plain.options(timeout=0.01)
        check_equal(limited.options(timeout=None).submit(0.05).result(LIMIT), 0.05)
        check_equal(limited.options(timeout=LIMIT).submit(0.05).result(LIMIT), 0.05)
        check_equal(plain.submit(0.05).result(LIMIT), 0.05)
        spin = mh.task(work.spin).options(timeout=_SHORT)
        _check_timeout(spin.submit(str(folder)).exception(LIMIT), "spin")
        found = spin.map([str(folder)], on_error="return")
        check(isinstance(found[0], mh.CallTimeoutError), f"found {found[0]!r}")


@case()
def wrong_timeouts_fail_at_once(open_session: OpenSession) -> None:
    """A time that cannot be meant is an error before any work."""
    wrong: Any
    with open_session(workers=1) as session:
        for wrong in (0, -1, "1s", True, float("nan"), float("inf")):
            with expect(mh.InvalidArgumentError):
                mh.task(work.square, timeout=wrong)
            for name in ("timeout", "deadline"):
                options: Any = {name: wrong}
                with expect(mh.InvalidArgumentError):
                    session.map(work.square, [1], **options)


@case()
def timeouts_that_are_kept_change_nothing(open_session: OpenSession) -> None:
    """Calls and items that end in time have their results."""
    with open_session(workers=2) as session:
        task = mh.task(work.square, timeout=LIMIT)
        expected = [x * x for x in range(200)]
        check_equal(mh.gather([task.submit(x) for x in range(200)], timeout=LIMIT), expected)
        check_equal(task.map(range(200)), expected)
        check_equal(session.map(work.square, range(200), deadline=LIMIT), expected)
        check_equal(list(session.imap(work.square, range(200), deadline=LIMIT)), expected)
        wrong: Any = "x"
        failed = task.options(retries=0).submit(wrong).exception(LIMIT)
        check(isinstance(failed, TypeError), f"found {failed!r}")


@case("concurrent")
def a_timeout_strikes_no_other_call(open_session: OpenSession) -> None:
    """However a time-out and the end of a call meet, it has its result or its error, and others are unhurt."""
    with open_session(workers=2) as session:
        task = mh.task(_compute, timeout=0.01)
        timed, others = [], []
        for number in range(100):
            timed.append(task.submit(0.008 + number % 5 / 1000))
            others.append(session.submit(work.square, number))
        check_equal(mh.gather(others, timeout=LIMIT), [x * x for x in range(100)])
        for value in mh.gather(timed, on_error="return", timeout=LIMIT):
            is_right = isinstance(value, (float, mh.CallTimeoutError))
            check(is_right, f"neither its result nor its error: {value!r}")


@case("concurrent")
def a_map_has_a_deadline(open_session: OpenSession) -> None:
    """A map not done by its `deadline` fails with DeadlineError; what runs is interrupted, the rest never starts."""
    with open_session(workers=2) as session:
        session.map(partial(_spin_at, "", -1), range(50))  # so that the workers are up
        for way in (session.map, _list_imap(session), _list_unordered(session)):
            with open_folder() as folder:
                run = partial(_spin_at, str(folder), None)
                with expect(mh.DeadlineError) as caught:
                    way(run, range(50), deadline=_SHORT, batch=1)
                check(isinstance(caught.error, TimeoutError), "it is no TimeoutError")
                check("_spin_at" in str(caught.error), f"does not name the map: {caught.error}")
                check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])
                mark = work.Mark(folder)
                began = mark.count("spin-began")
                check(began <= 2, f"{began} items began, and there are two workers")
                wait_for(lambda m=mark, n=began: m.count("spin-ended") >= n, "all ended")  # type: ignore[misc]
                check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])
                check_equal(mark.count("spin-began"), began)


@case("concurrent")
def a_deadline_ends_pauses_too(open_session: OpenSession) -> None:
    """A map whose item waits for its next attempt ends at its `deadline`."""
    with open_folder() as folder, open_session(workers=1) as session:
        fail = partial(work.fail_until, str(folder))
        options: Any = {"retries": 1, "backoff": 2 * LIMIT, "backoff_cap": 2 * LIMIT}
        with expect(mh.DeadlineError):
            session.map(fail, [1, 2, 1], range(3), deadline=_SHORT, **options)


@case("concurrent")
def a_gather_has_a_deadline(open_session: OpenSession) -> None:
    """Calls that are gathered and not done by the `deadline` are cancelled, and DeadlineError is raised."""
    with open_folder() as folder, open_session(workers=1) as session:
        done = session.submit(work.square, 3)
        done.result(LIMIT)
        mark = work.Mark(folder)
        running = session.submit(work.spin, str(folder))
        wait_for(lambda: mark.count("spin-began"), "the call has begun")
        waiting = session.submit(work.note, str(folder), 5)
        futures: list[mh.Future[Any]] = [done, running, waiting]
        with expect(mh.DeadlineError):
            mh.gather(futures, deadline=_SHORT)
        check_equal([future.cancelled() for future in futures], [False, True, True])
        check_equal(done.result(LIMIT), 9)
        wait_for(lambda: mark.count("spin-ended"), "the call was interrupted")
        check_equal(session.submit(work.square, 4).result(LIMIT), 16)
        check_equal(mark.count(5), 0)
        check_equal(mh.gather([session.submit(work.square, 5)], deadline=LIMIT), [25])


@case("concurrent")
def a_call_that_waits_runs_out_of_time(open_session: OpenSession) -> None:
    """A call that waits for its own calls past its `timeout` is interrupted, and these with it."""
    with open_folder() as folder, open_session(workers=2) as session:
        error = mh.task(_wait_for_spin, timeout=2 * _SHORT).submit(str(folder)).exception(LIMIT)
        check(isinstance(error, mh.CallTimeoutError), f"found {error!r}")
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("spin-ended") >= mark.count("spin-began"), "its call ended")
        check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])


@case("concurrent")
def calls_of_calls_have_timeouts(open_session: OpenSession) -> None:
    """Inside a call, a call past its `timeout` fails with CallTimeoutError, which the outer one may catch."""
    with open_folder() as folder, open_session(workers=2) as session:
        name = session.submit(_catch_timeout, str(folder)).result(LIMIT)
        check_equal(name, "CallTimeoutError")
        check_equal(session.submit(_catch_deadline, str(folder)).result(LIMIT), "DeadlineError")


def _compute(seconds: float) -> float:
    from time import monotonic

    end = monotonic() + seconds
    while monotonic() < end:
        pass
    return seconds


def _spin_at(folder: str, bad: int | None, x: int) -> int:
    if bad in (None, x):
        work.spin(folder)
    return x


def _list_imap(session: mh.Session) -> Any:
    return lambda *args, **options: list(session.imap(*args, **options))


def _list_unordered(session: mh.Session) -> Any:
    return lambda *args, **options: list(session.imap_unordered(*args, **options))


def _wait_for_spin(folder: str) -> None:
    mh.submit(work.spin, folder).result(LIMIT)


def _catch_timeout(folder: str) -> str:
    error = mh.task(work.spin, timeout=_SHORT).submit(folder).exception(LIMIT)
    return type(error).__name__


def _catch_deadline(folder: str) -> str:
    try:
        mh.map(work.spin, [folder] * 3, deadline=_SHORT)
    except Exception as error:
        return type(error).__name__
    return "nothing"
