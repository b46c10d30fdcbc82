"""Retries: further attempts at a call or an item that failed."""

from __future__ import annotations

from functools import partial

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder


@case()
def a_call_is_tried_again(open_session: OpenSession) -> None:
    """A task with retries succeeds if one of its attempts does."""
    with open_folder() as folder, open_session(workers=2) as session:
        task = mh.task(work.fail_until, retries=3, backoff=0.001)
        check_equal(task.submit(str(folder), 3, 7).result(LIMIT), 7)
        check_equal(work.Mark(folder).count(7), 3)
        check_equal(session.report().retried, 2)


@case()
def attempts_end(open_session: OpenSession) -> None:
    """After the last attempt the error is the last attempt's, and tells of the others."""
    with open_folder() as folder, open_session(workers=2):
        task = mh.task(work.fail_until, retries=2, backoff=0.001)
        error = task.submit(str(folder), 10).exception(LIMIT)
        check_equal((type(error), str(error)), (OSError, "attempt 3 at item 0"))
        notes = "\n".join(getattr(error, "__notes__", []))
        for number in (1, 2, 3):
            words = f"{number}. OSError: attempt {number} at item 0"
            check(words in notes, f"attempt {number} is not told of: {notes}")
        check_equal(work.Mark(folder).count(0), 3)


@case()
def only_some_errors_are_tried_again(open_session: OpenSession) -> None:
    """`retry_on` says which."""
    with open_folder() as folder, open_session(workers=2):
        other = mh.task(work.fail_until, retries=5, retry_on=(ValueError, KeyError))
        check(
            isinstance(other.submit(str(folder), 3, 1).exception(LIMIT), OSError), "not its error"
        )
        check_equal(work.Mark(folder).count(1), 1)
        fitting = mh.task(work.fail_until, retries=5, retry_on=OSError, backoff=0.001)
        check_equal(fitting.submit(str(folder), 3, 2).result(LIMIT), 2)


@case()
def a_task_without_retries_is_tried_once(open_session: OpenSession) -> None:
    """Nobody who asked for no retries gets any."""
    with open_folder() as folder, open_session(workers=2) as session:
        future = session.submit(work.fail_until, str(folder), 2, 5)
        check(isinstance(future.exception(LIMIT), OSError), "a call was tried again unasked")
        with expect(OSError):
            session.map(partial(work.fail_until, str(folder), 2), [8])
        check_equal([work.Mark(folder).count(x) for x in (5, 8)], [1, 1])


@case()
def items_are_tried_again(open_session: OpenSession) -> None:
    """Each item of a map has its own attempts, and only those that failed run again."""
    with open_folder() as folder, open_session(workers=2) as session:
        fail = partial(work.fail_until, str(folder))
        attempts = [3 if x in (2, 11) else 1 for x in range(20)]
        check_equal(
            session.map(fail, attempts, range(20), retries=2, backoff=0.001), list(range(20))
        )
        check_equal([work.Mark(folder).count(x) for x in range(20)], attempts)
        check_equal(session.report().retried, 4)


@case()
def items_attempts_end(open_session: OpenSession) -> None:
    """An item that fails at every attempt fails the map, with its index, or stands among the results."""
    with open_folder() as folder, open_session(workers=2) as session:
        fail = partial(work.fail_until, str(folder))
        with expect(OSError) as caught:
            session.map(fail, [1, 9, 1], range(3), retries=1, backoff=0.001)
        check_equal(str(caught.error), "attempt 2 at item 1")
        check("item 1 " in "\n".join(caught.error.__notes__), f"notes: {caught.error.__notes__}")
        found = session.map(
            fail, [1, 9, 1], range(10, 13), retries=1, backoff=0.001, on_error="return"
        )
        check_equal([type(value) for value in found], [int, OSError, int])
        with expect(OSError):
            session.map(fail, [2], [20], retries=4, retry_on=(ValueError,))
        check_equal(work.Mark(folder).count(20), 1)


@case()
def streams_try_items_again(open_session: OpenSession) -> None:
    """A stream keeps its order across attempts."""
    with open_folder() as folder, open_session(workers=2) as session:
        fail = partial(work.fail_until, str(folder))
        attempts = [2 if x % 5 == 0 else 1 for x in range(30)]
        check_equal(
            list(session.imap(fail, attempts, range(30), retries=1, backoff=0.001)), list(range(30))
        )


@case()
def a_task_of_a_map_has_its_retries(open_session: OpenSession) -> None:
    """A task's own retries count for each item of its map."""
    with open_folder() as folder, open_session(workers=2):
        task = mh.task(partial(work.fail_until, str(folder), 2), retries=1, backoff=0.001)
        check_equal(task.map(range(5)), list(range(5)))
