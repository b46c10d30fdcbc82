"""Attempts: which errors are tried again, when, how often, and what the last error tells of them."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from time import monotonic
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for


def _read_notes(error: Any) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


@case()
def a_function_may_say_what_is_tried_again(open_session: OpenSession) -> None:
    """`retry_on` may be a function, which is given the error and says whether to try again."""

    def is_first(error: BaseException) -> bool:
        return "attempt 1 " in str(error)

    with open_folder() as folder, open_session(workers=2) as session:
        task = mh.task(work.fail_until, retries=5, retry_on=is_first, backoff=0)
        check_equal(task.submit(str(folder), 2, 1).result(LIMIT), 1)
        error = task.submit(str(folder), 3, 2).exception(LIMIT)
        check_equal((type(error), str(error)), (OSError, "attempt 2 at item 2"))
        check_equal(work.Mark(folder).count(2), 2)
        fail = partial(work.fail_until, str(folder))
        options: Any = {"retries": 5, "retry_on": is_first, "backoff": 0}
        found = session.map(fail, [2, 3], [3, 4], on_error="return", **options)
        check_equal([type(value) for value in found], [int, OSError])
        check_equal([work.Mark(folder).count(x) for x in (3, 4)], [2, 2])


@case()
def a_question_that_fails_means_no(open_session: OpenSession) -> None:
    """A `retry_on` that raises lets the call fail with its own error, which tells of that."""

    def ask(error: BaseException) -> bool:
        raise KeyError(f"no answer to {error}")

    with open_folder() as folder, open_session(workers=1):
        task = mh.task(work.fail_until, retries=5, retry_on=ask)
        error = task.submit(str(folder), 3).exception(LIMIT)
        check_equal((type(error), str(error)), (OSError, "attempt 1 at item 0"))
        check("no answer" in _read_notes(error), f"notes: {_read_notes(error)}")


@case()
def wrong_policies_fail_at_once(open_session: OpenSession) -> None:
    """Attempts and pauses that cannot be meant are an error before any work."""
    options: Any
    with open_session(workers=1) as session:
        for options in (
            {"retries": True},
            {"worker_retries": -1},
            {"worker_retries": 1.5},
            {"backoff": -1},
            {"backoff": "1s"},
            {"backoff_cap": float("nan")},
            {"retry_on": 5},
            {"retry_on": (5,)},
        ):
            with expect(mh.InvalidArgumentError):
                mh.task(work.square, **options)
            with expect(mh.InvalidArgumentError):
                session.map(work.square, [1], **options)


@case()
def pauses_grow_and_are_capped(open_session: OpenSession) -> None:
    """Each pause is `backoff` doubled as often as there were attempts, at most the cap, and not under half of that."""
    pauses = {"backoff": 0.04, "backoff_cap": 0.16}
    attempts = 11
    options: Any = {"retries": attempts - 1, **pauses}
    with open_folder() as folder, open_session(workers=1) as session:
        for name in ("call", "item"):
            diary = work.Diary(folder, name)
            if name == "call":
                error = mh.task(_note_time_and_fail, **options).submit(diary).exception(LIMIT)
                check(isinstance(error, OSError), f"found {error!r}")
            else:
                session.map(_note_time_and_fail, [diary], on_error="return", **options)
            moments = [float(line) for line in diary.read()]
            check_equal(len(moments), attempts)
            for number, (before, after) in enumerate(pairwise(moments)):
                least = min(0.04 * 2**number, 0.16) / 2
                check(after - before >= least, f"pause {number}: {after - before}, under {least}")
            # Without a cap the last pause alone takes ten seconds, and with it all of them take two.
            check(moments[-1] - moments[-2] < 8, "the pauses are not capped")


@case("concurrent")
def a_pause_holds_up_no_other_work(open_session: OpenSession) -> None:
    """While a call or an item waits for its next attempt, its worker runs others."""
    options: Any = {"retries": 1, "backoff": 2 * LIMIT, "backoff_cap": 2 * LIMIT}
    with open_folder() as folder, open_session(workers=1) as session:
        paused = mh.task(work.fail_until, **options).submit(str(folder), 2, 99)
        check_equal(session.map(work.square, range(20)), [x * x for x in range(20)])
        check(not paused.done(), f"did not wait for its next attempt: {paused!r}")
        fail = partial(work.fail_until, str(folder))
        stream = session.imap_unordered(fail, [2, 1, 1, 1], range(4), batch=1, **options)
        check_equal({next(stream) for _ in range(3)}, {1, 2, 3})


@case("concurrent")
def a_call_in_a_pause_can_be_cancelled(open_session: OpenSession) -> None:
    """A call that waits for its next attempt is withdrawn, also without `running`, and is not tried again."""
    with open_folder() as folder, open_session(workers=1) as session:
        options: Any = {"retries": 1, "backoff": 0.2, "backoff_cap": 0.2}
        future = mh.task(work.fail_until, **options).submit(str(folder), 2, 5)
        wait_for(lambda: session.report().retried, "the first attempt failed")
        check(future.cancel(), f"could not be cancelled: {future!r}")
        check(future.cancelled(), f"left as {future!r}")
        later = mh.task(work.fail_until, retries=1, backoff=0.4, backoff_cap=0.4)
        check_equal(later.submit(str(folder), 2, 6).result(LIMIT), 6)  # twice the pause, at least
        check_equal(work.Mark(folder).count(5), 1)


@case()
def the_error_tells_of_every_attempt(open_session: OpenSession) -> None:
    """The error of a call or an item that failed at several attempts shows what became of each."""
    with open_folder() as folder, open_session(workers=2) as session:
        options: Any = {"retries": 3, "backoff": 0.01}
        calls = mh.task(work.fail_until, **options).submit(str(folder), 10, 1)
        fail = partial(work.fail_until, str(folder), 10)
        items = session.map(fail, [2], on_error="return", **options)
        for x, error in ((1, calls.exception(LIMIT)), (2, items[0])):
            notes = _read_notes(error)
            for attempt in range(1, 5):
                check(f"OSError: attempt {attempt} at item {x}" in notes, f"notes: {notes}")
        once = _read_notes(session.submit(work.fail, "once").exception(LIMIT))
        check("attempts" not in once, f"one attempt is told of as several: {once}")


@case("isolates")
def a_lost_worker_is_not_the_calls_fault(open_session: OpenSession) -> None:
    """A call or an item whose worker died is tried once more, though nobody asked for retries."""
    with open_folder() as folder, open_session(workers=2) as session:
        future = session.submit(work.misbehave, str(folder), ("die", "ok"), 7)
        check_equal(future.result(LIMIT), 7)
        check_equal(session.report().deaths, 1)
        values: list[Any] = list(range(20))
        plans = [("die", "ok") if x in (3, 17) else ("ok",) for x in values]
        check_equal(session.map(partial(work.misbehave, str(folder)), plans, values), values)
        check_equal([work.count_attempts(folder, x) for x in (3, 17)], [2, 2])


@case("isolates")
def worker_retries_can_be_refused(open_session: OpenSession) -> None:
    """With `worker_retries=0` a call or an item whose worker dies is not run again, whatever `retries` says."""
    with open_folder() as folder, open_session(workers=2) as session:
        options: Any = {"retries": 5, "worker_retries": 0}
        task = mh.task(work.misbehave, **options)
        error = task.submit(str(folder), ("die", "ok"), 1).exception(LIMIT)
        check(isinstance(error, mh.WorkerDiedError), f"found {error!r}")
        die = partial(work.misbehave, str(folder), ("die", "ok"))
        found = session.map(die, [2], on_error="return", **options)
        check(isinstance(found[0], mh.WorkerDiedError), f"found {found!r}")
        check_equal([work.count_attempts(folder, x) for x in (1, 2)], [1, 1])


@case("isolates")
def deaths_count_by_themselves(open_session: OpenSession) -> None:
    """Deaths use up `worker_retries` and failures `retries`, each of them its own."""
    plan = ("raise", "die", "raise", "die", "ok")
    with open_folder() as folder, open_session(workers=2):
        task = mh.task(work.misbehave, retries=2, worker_retries=2, backoff=0.01)
        check_equal(task.submit(str(folder), plan, 1).result(LIMIT), 1)
        few = task.options(worker_retries=1).submit(str(folder), plan, 2).exception(LIMIT)
        check(isinstance(few, mh.WorkerDiedError), f"found {few!r}")
        fewer = task.options(retries=1).submit(str(folder), plan, 3).exception(LIMIT)
        check_equal((type(fewer), str(fewer)), (OSError, "attempt 3 of 3"))
        check_equal([work.count_attempts(folder, x) for x in (1, 2, 3)], [5, 4, 3])
        for text in ("attempt 1 of 3", "WorkerDiedError", "attempt 3 of 3"):
            check(text in _read_notes(fewer), f"notes: {_read_notes(fewer)}")


@case("isolates")
def what_keeps_killing_is_given_up_alone(open_session: OpenSession) -> None:
    """A call or an item that kills each of its workers fails with all its attempts in the error; others finish."""
    with open_folder() as folder, open_session(workers=2) as session:
        deadly = mh.task(work.misbehave, worker_retries=2).submit(str(folder), ("die",), "call")
        futures = [session.submit(work.square, x) for x in range(100)]
        error = deadly.exception(LIMIT)
        check_equal(mh.gather(futures, timeout=LIMIT), [x * x for x in range(100)])
        values: list[Any] = [*range(10), "item", *range(10, 20)]
        plans = [("die",) if value == "item" else ("ok",) for value in values]
        kill = partial(work.misbehave, str(folder))
        found: list[Any] = session.map(kill, plans, values, worker_retries=2, on_error="return")
        check_equal([value for value in found if isinstance(value, int)], list(range(20)))
        for name, failure in (("call", error), ("item", found[10])):
            check(isinstance(failure, mh.WorkerDiedError), f"{name}: found {failure!r}")
            notes = _read_notes(failure)
            check(notes.count("WorkerDiedError") >= 3, f"{name}: not every attempt in: {notes}")
        check_equal(work.count_attempts(folder, "call"), 3)


@case("pickles")
def attempts_get_the_arguments_of_the_submission(open_session: OpenSession) -> None:
    """What the caller or an attempt makes of an argument reaches no later attempt."""
    with open_folder() as folder, open_session(workers=1) as session:
        values = [1, 2]
        task = mh.task(_spoil_and_fail_once, retries=1, backoff=0.1)
        future = task.submit(str(folder), values)
        values.append(100)
        check_equal(future.result(LIMIT), [1, 2])
        items = [[1, 2], [3]]
        folders = [str(folder), str(folder)]
        found = session.map(_spoil_and_fail_once, folders, items, retries=1, backoff=0.1)
        check_equal(found, [[1, 2], [3]])


@case()
def attempts_get_the_results_of_their_inputs(open_session: OpenSession) -> None:
    """Each attempt at a call gets what its futures stood for, and none of these calls runs again."""
    with open_folder() as folder, open_session(workers=2) as session:
        source: Any = session.submit(work.note, str(folder), 6)
        task: Any = mh.task(work.misbehave, retries=2, backoff=0.01)
        future = task.submit(str(folder), ("raise", "raise", "ok"), source)
        check_equal(future.result(LIMIT), 6)
        check_equal((work.count_attempts(folder, 6), work.Mark(folder).count(6)), (3, 1))


@case()
def tasks_may_change_their_policy(open_session: OpenSession) -> None:
    """`options` of a task changes how its calls are tried, and leaves the task as it is."""
    with open_folder() as folder, open_session(workers=1):
        task = mh.task(work.fail_until, retries=2, backoff=0.01)
        once = task.options(retries=0)
        check(isinstance(once.submit(str(folder), 3, 1).exception(LIMIT), OSError), "was retried")
        check_equal(task.submit(str(folder), 3, 2).result(LIMIT), 2)
        check_equal([work.Mark(folder).count(x) for x in (1, 2)], [1, 3])


def _note_time_and_fail(diary: work.Diary) -> None:
    diary.write(monotonic())
    raise OSError("on purpose")


def _spoil_and_fail_once(folder: str, values: list[int]) -> list[int]:
    number = work.Mark(folder).add(f"of-{len(values)}")
    found = values.copy()
    values.append(0)
    if number == 1:
        raise OSError(f"attempt {number}")
    return found
