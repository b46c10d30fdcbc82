"""Errors: a user's as themselves, ours with the way out, wrong use at the call."""

from __future__ import annotations

import traceback
from functools import partial
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect


def _read(error: BaseException) -> str:
    """All that Python would print of an error, its notes included."""
    return "".join(traceback.format_exception(error))


@case()
def an_error_comes_back_as_itself(open_session: OpenSession) -> None:
    """What a call raises is raised by `result` and returned by `exception`, of the same class, with its arguments."""
    with open_session(workers=2) as session:
        future = session.submit(work.fail, "broken")
        with expect(ValueError) as caught:
            future.result(LIMIT)
        check_equal((type(caught.error), caught.error.args), (ValueError, ("broken",)))
        found = future.exception(LIMIT)
        check_equal((type(found), str(found)), (ValueError, "broken"))


@case()
def an_error_keeps_its_attributes(open_session: OpenSession) -> None:
    """An exception whose class asks for other arguments than it keeps arrives with its attributes."""
    with open_session(workers=2) as session:
        error: Any = session.submit(work.fail_with_custom_error, 42).exception(LIMIT)
        check_equal(type(error), work.CustomError)
        check_equal(
            (error.code, error.detail, str(error)), (42, "out of order", "out of order (42)")
        )


@case()
def an_error_tells_where_it_was_raised(open_session: OpenSession) -> None:
    """The traceback shows the function that raised, also from another process."""
    with open_session(workers=2) as session:
        text = _read(session.submit(work.fail, "broken").exception(LIMIT) or Exception())
        check("in fail" in text and "work.py" in text, f"no frame of the function:\n{text}")
        with expect(ValueError) as caught:
            session.map(work.fail, ["broken"])
        text = _read(caught.error)
        check("in fail" in text and "work.py" in text, f"no frame of the function:\n{text}")


@case()
def an_error_keeps_its_cause(open_session: OpenSession) -> None:
    """`raise ... from ...` survives."""
    with open_session(workers=2) as session:
        error = session.submit(work.fail_with_cause).exception(LIMIT)
        check_equal(type(error), KeyError)
        cause = None if error is None else error.__cause__
        check_equal((type(cause), str(cause)), (ValueError, "the root"))


@case()
def an_error_of_a_local_class_arrives(open_session: OpenSession) -> None:
    """An exception of a class made inside the call arrives, as itself or with its name and words."""
    with open_session(workers=2) as session:
        error = session.submit(work.fail_with_local_class).exception(LIMIT)
        text = "" if error is None else f"{type(error).__name__} {_read(error)}"
        check("LocalError" in text and "made here" in text, f"found {text!r}")


@case()
def an_unpicklable_error_arrives(open_session: OpenSession) -> None:
    """An exception that holds what cannot travel arrives all the same."""
    with open_session(workers=2) as session:
        error = session.submit(work.fail_unpicklably).exception(LIMIT)
        check(isinstance(error, ValueError), f"found {error!r}")
        check_equal(session.submit(work.square, 2).result(LIMIT), 4)


@case()
def an_error_of_a_map_names_its_item(open_session: OpenSession) -> None:
    """The error of an item carries the item's index as a note."""
    with open_session(workers=2) as session:
        for batch in (1, 16, None):
            with expect(ValueError) as caught:
                session.map(partial(work.fail_at, (37,)), range(50), batch=batch)
            check_equal(str(caught.error), "item 37 is bad")
            notes = "\n".join(getattr(caught.error, "__notes__", []))
            check("item 37 " in notes, f"notes: {notes}")


@case()
def a_failed_map_leaves_the_session_whole(open_session: OpenSession) -> None:
    """After an error of a map the session goes on."""
    with open_session(workers=2) as session:
        for _ in range(3):
            with expect(ValueError):
                session.map(partial(work.fail_at, (5,)), range(1000))
            check_equal(session.map(work.square, range(10)), [x * x for x in range(10)])


@case()
def errors_can_be_results(open_session: OpenSession) -> None:
    """With `on_error="return"` errors stand at their items' places, and all other items have results."""
    bad = (0, 13, 14, 99)
    with open_session(workers=2) as session:
        for batch in (None, 1, 10):
            found = session.map(
                partial(work.fail_at, bad), range(100), on_error="return", batch=batch
            )
            for x, value in enumerate(found):
                if x in bad:
                    check_equal((type(value), str(value)), (ValueError, f"item {x} is bad"))
                else:
                    check_equal(value, x * x)
            check_equal(len(found), 100)


@case()
def errors_can_be_results_of_streams(open_session: OpenSession) -> None:
    """`on_error="return"` holds for streams and starmaps."""
    with open_session(workers=2) as session:
        fail = partial(work.fail_at, (2,))
        found = list(session.imap(fail, range(4), on_error="return"))
        check_equal([type(value) for value in found], [int, int, ValueError, int])
        found = session.starmap(fail, [(1,), (2,)], on_error="return")
        check_equal([type(value) for value in found], [int, ValueError])
        unordered = list(session.imap_unordered(fail, range(4), on_error="return"))
        check_equal(
            sorted(type(value).__name__ for value in unordered), ["ValueError", *["int"] * 3]
        )


@case()
def stop_iteration_does_not_shorten_a_map(open_session: OpenSession) -> None:
    """StopIteration out of a function is an error and not the end of the map."""
    with open_session(workers=2) as session:
        with expect((RuntimeError, StopIteration)):  # type: ignore[arg-type]
            session.map(work.stop_at_three, range(10))
        found = session.map(work.stop_at_three, range(10), on_error="return")
        check_equal(len(found), 10)
        check_equal([v for v in found if isinstance(v, int)], [0, 1, 2, 4, 5, 6, 7, 8, 9])


@case()
def sys_exit_is_the_death_of_a_worker(open_session: OpenSession) -> None:
    """`sys.exit` in a call fails that call with WorkerDiedError, and nothing else."""
    with open_session(workers=2) as session:
        futures = [session.submit(work.square, x) for x in range(20)]
        exiting = session.submit(work.exit_with, 4)
        error: Any = exiting.exception(LIMIT)
        check_equal((type(error), error.exit_code), (mh.WorkerDiedError, 4))
        check("exit_with" in str(error), f"does not name the call: {error}")
        check_equal(mh.gather(futures, timeout=LIMIT), [x * x for x in range(20)])
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("pickles")
def an_unpicklable_argument_is_named(open_session: OpenSession) -> None:
    """An argument that cannot travel fails its call, and the error says which part of it."""
    with open_session(workers=2) as session:
        lock = work.hold_lock()
        error = session.submit(work.echo, {"key": [1, lock]}).exception(LIMIT)
        check(isinstance(error, mh.UnpicklableError), f"found {error!r}")
        check("argument 0" in str(error) and "key" in str(error), f"says: {error}")
        error = session.submit(work.add, 1, b=lock).exception(LIMIT)
        check(isinstance(error, mh.UnpicklableError) and "'b'" in str(error), f"says: {error}")
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("pickles")
def an_unpicklable_result_is_named(open_session: OpenSession) -> None:
    """A result that cannot travel fails its call alone."""
    with open_session(workers=2) as session:
        error = session.submit(work.hold_lock).exception(LIMIT)
        check(isinstance(error, mh.UnpicklableError), f"found {error!r}")
        check("result" in str(error) and "lock" in str(error), f"says: {error}")
        found = session.map(work.hold_lock, range(3), on_error="return")
        check(all(isinstance(v, mh.UnpicklableError) for v in found), f"found {found!r}")
        check_equal(session.map(work.square, range(5)), [0, 1, 4, 9, 16])


@case("pickles")
def an_unpicklable_function_is_named(open_session: OpenSession) -> None:
    """A function that closes over what cannot travel fails its call, and the error names the variable."""
    held = work.hold_lock()

    def use(x: int) -> Any:
        return held, x

    with open_session(workers=2) as session:
        error = session.submit(use, 1).exception(LIMIT)
        check(isinstance(error, mh.UnpicklableError), f"found {error!r}")
        check("use" in str(error) and "held" in str(error), f"says: {error}")
        with expect(mh.UnpicklableError):
            session.map(use, range(3))
        check_equal(session.map(work.square, range(5)), [0, 1, 4, 9, 16])


@case()
def wrong_arguments_fail_at_the_call(open_session: OpenSession) -> None:
    """What cannot be meant is an error at once, and a built-in one too."""
    not_callable: Any
    options: Any
    number: Any = 5
    with open_session(workers=2) as session:
        for not_callable in (None, 3, "abs"):
            with expect(mh.NotCallableError):
                session.submit(not_callable)
            with expect(TypeError):
                session.map(not_callable, [1])
        for options in ({"batch": 0}, {"batch": -1}, {"batch": 1.5}, {"batch": True}):
            with expect(mh.InvalidArgumentError):
                session.map(work.square, [1], **options)
        for options in ({"retries": -1}, {"on_error": "ignore"}, {"retry_on": "OSError"}):
            with expect(ValueError):
                session.map(work.square, [1], **options)
        with expect(mh.InvalidArgumentError):
            session.map(work.square, number)


@case()
def wrong_session_options_fail_at_once(open_session: OpenSession) -> None:
    """A session with options that cannot be meant does not open."""
    for workers in (0, -1, 1.5, True):
        with expect(mh.InvalidArgumentError):
            open_session(workers=workers).close()
    with expect(mh.NotCallableError):
        open_session(workers=1, initializer=3).close()
