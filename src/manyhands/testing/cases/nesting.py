"""Nesting: calls that make calls and wait for them, to any depth, with however few workers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for

if TYPE_CHECKING:
    from pathlib import Path

_WAYS = (
    "submit",
    "gather",
    "wait",
    "as_completed",
    "map",
    "starmap",
    "imap",
    "imap_unordered",
)


@case()
def calls_nest_to_any_depth(open_session: OpenSession) -> None:
    """Calls that wait in whatever way for calls, five deep and two for each, end with one worker and with two."""
    for workers in (1, 2):
        with open_session(workers=workers) as session:
            for way in _WAYS:
                check_equal(session.submit(work.descend, 5, way).result(LIMIT), 5)
            check_equal(session.map(work.descend, [2] * len(_WAYS), _WAYS), [2] * len(_WAYS))


@case()
def calls_nest_deeply(open_session: OpenSession) -> None:
    """A chain of twenty calls, each of which waits for the next, ends with one worker."""
    with open_session(workers=1) as session:
        check_equal(session.submit(_chain, 20).result(LIMIT), 20)


@case()
def fibonacci_can_be_recursive(open_session: OpenSession) -> None:
    """Hundreds of calls, each of which waits for two others, have the right sum."""
    with open_session(workers=2) as session:
        check_equal(session.submit(work.compute_fibonacci, 10).result(LIMIT), 55)
        futures = [session.submit(work.compute_fibonacci, n) for n in range(7)]
        check_equal(mh.gather(futures, timeout=LIMIT), [0, 1, 1, 2, 3, 5, 8])


@case()
def quicksort_can_be_recursive(open_session: OpenSession) -> None:
    """A list is sorted by calls that sort its parts."""
    values = [Random(7).randrange(1000) for _ in range(500)]
    with open_session(workers=2) as session:
        check_equal(session.submit(work.sort_quickly, values).result(LIMIT), sorted(values))


@case()
def a_directory_walk_can_be_recursive(open_session: OpenSession) -> None:
    """A tree of folders is measured by a call for each."""
    with open_folder() as folder, open_session(workers=2) as session:
        size = _plant_tree(folder, 3)
        check_equal(session.submit(work.measure_folder, str(folder)).result(LIMIT), size)


@case()
def errors_travel_up(open_session: OpenSession) -> None:
    """What a call deep down raises arrives as itself, class and attributes, at all that wait for it, up to the top."""
    with open_session(workers=2) as session:
        error: Any = session.submit(_fail_deep, 3).exception(LIMIT)
        check_equal((type(error), str(error)), (work.CustomError, "out of order (3)"))
        check_equal((error.code, error.detail), (3, "out of order"))
        check_equal(session.submit(_catch_deep, 3).result(LIMIT), ("CustomError", 3))
        with expect(ValueError) as caught:
            session.submit(_map_failing).result(LIMIT)
        check_equal(str(caught.error), "item 2 is bad")
        check("item 2 " in "\n".join(caught.error.__notes__), "does not name its item")


@case("isolates")
def deaths_travel_up(open_session: OpenSession) -> None:
    """A call of a call whose worker dies is tried again, and at last is an error to the one that made it."""
    with open_folder() as folder, open_session(workers=2) as session:
        check_equal(
            session.submit(_misbehave_below, str(folder), ("die", "ok"), 1).result(LIMIT), 1
        )
        error = session.submit(_misbehave_below, str(folder), ("die",), 2).exception(LIMIT)
        check(isinstance(error, mh.WorkerDiedError), f"found {error!r}")
        counts = [work.count_attempts(folder, x) for x in (1, 2)]
        if session.capabilities.staffs:
            check_equal(counts, [2, 2])
            check_equal(session.report().deaths, 3)
        else:  # the call above may be at the worker that dies, which costs it an attempt too
            check(min(counts) >= 2, f"attempts: {counts}")


@case("isolates")
def a_death_above_is_survived(open_session: OpenSession) -> None:
    """A call whose worker dies while it waits for its calls is run again, and makes them again."""
    with open_folder() as folder, open_session(workers=2) as session:
        future = session.submit(_wait_and_tell_pid, str(folder))
        gate = work.Gate(folder)
        wait_for(gate.count_entered, "its call began")
        from os import kill
        from signal import SIGKILL

        pid = int(work.Diary(folder).read()[0])
        kill(pid, SIGKILL)
        gate.open()
        check_equal(future.result(LIMIT), "through")
        pids = work.Diary(folder).read()
        check_equal((len(pids), len(set(pids))), (2, 2))


@case("concurrent")
def no_more_compute_than_there_are_cpus(open_session: OpenSession) -> None:
    """However many calls wait for others, no more of them compute at once than the session has cpus."""
    for workers in (1, 2):
        with open_folder() as folder, open_session(workers=workers) as session:
            diary = work.Diary(folder)
            futures = [session.submit(_compute_tree, diary, 3) for _ in range(2)]
            check_equal(mh.gather(futures, timeout=LIMIT), [15, 15])
            check_equal(len(diary.read()), 2 * 2 * (15 + 7))
            most = diary.count_most()
            check(most <= workers, f"{most} computed at once, with {workers} cpus")


@case("resources", "concurrent")
def a_waiting_call_gives_its_cpus_up(open_session: OpenSession) -> None:
    """A call that holds all cpus of the session may wait for calls that need all of them."""
    with open_session(workers=2):
        check_equal(mh.task(_need_all, cpus=2).submit(4).result(LIMIT), 4)


@case("concurrent")
def a_waiting_call_lets_others_run(open_session: OpenSession) -> None:
    """While a call waits for one of its own, calls that have nothing to do with it run in its place."""
    with open_folder() as folder, open_session(workers=2) as session:
        gate = work.Gate(folder)
        waiting = session.submit(_wait_at, gate)
        wait_for(gate.count_entered, "its call began")
        check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])
        check(not waiting.done(), f"left as {waiting!r}")
        gate.open()
        check_equal(waiting.result(LIMIT), "through")


@case("concurrent")
def calls_wait_no_longer_than_they_say(open_session: OpenSession) -> None:
    """In a call `result`, `gather`, `wait` and `as_completed` keep their limits, though its calls hold every cpu."""
    with open_folder() as folder, open_session(workers=1) as session:
        found = session.submit(_wait_shortly, str(folder)).result(LIMIT)
        check_equal(found, ["TimeoutError", "TimeoutError", 1, "TimeoutError"])
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("spin-ended"), "the call of the call was cancelled")


@case()
def futures_are_arguments_inside_calls(open_session: OpenSession) -> None:
    """In a call, futures among the arguments of another stand for their results, or fail it."""
    with open_session(workers=2) as session:
        check_equal(session.submit(_depend, 5).result(LIMIT), [6, 36, [6, 36]])
        name, cause = session.submit(_depend_on_failure).result(LIMIT)
        check_equal((name, cause), ("DependencyError", "the input"))


@case()
def refs_travel_through_nested_calls(open_session: OpenSession) -> None:
    """A ref that was put here or in a call is readable in calls of calls, and in the caller when it comes back."""
    block = bytes(range(256)) * 400
    with open_session(workers=2) as session:
        ref = session.put(block)
        check_equal(session.submit(_measure_below, ref, 3).result(LIMIT), len(block))
        check_equal(session.submit(_measure_below, [[ref]], 3).result(LIMIT), len(block))
        found = session.submit(_put_below, 3).result(LIMIT)
        check(isinstance(found, mh.Ref), f"found {found!r}")
        check_equal(found.get(), [3] * 50_000)
        check_equal(session.submit(_sum_own_ref, 100_000).result(LIMIT), 100_000)


@case()
def large_values_travel_through_nested_calls(open_session: OpenSession) -> None:
    """Megabytes are arguments and results of calls in calls."""
    with open_session(workers=2) as session:
        found = session.submit(_echo_below, bytes(3_000_000), 3).result(LIMIT)
        check_equal((len(found), set(found)), (3_000_000, {0}))
        check_equal(session.map(_measure_echoes, [100_000] * 6), [400_000] * 6)


@case()
def calls_in_calls_have_options(open_session: OpenSession) -> None:
    """In a call tasks have their retries and names, and maps theirs."""
    with open_folder() as folder, open_session(workers=2) as session:
        found = session.submit(_retry_below, str(folder)).result(LIMIT)
        check_equal(found, [1, [10, 11, 12], "other"])


@case()
def closures_travel_through_nested_calls(open_session: OpenSession) -> None:
    """Lambdas and functions made inside calls are run by calls of calls."""
    scale = 3
    with open_session(workers=2) as session:

        def outer(x: int) -> int:
            return sum(mh.map(lambda y: scale * y, range(x)))

        check_equal(session.submit(outer, 5).result(LIMIT), 30)
        check_equal(session.map(outer, range(6)), [0, 0, 3, 9, 18, 30])


@case()
def many_calls_make_many_calls(open_session: OpenSession) -> None:
    """Calls that each make hundreds have all of their results, in their places."""
    with open_session(workers=2) as session:
        futures = [session.submit(_gather_many, start) for start in range(0, 2000, 200)]
        expected = [[x * x for x in range(start, start + 200)] for start in range(0, 2000, 200)]
        check_equal(mh.gather(futures, timeout=LIMIT), expected)


@case("concurrent")
def calls_outlive_a_call_that_does_not_wait(open_session: OpenSession) -> None:
    """Calls that a call has made and not waited for run all the same after it has ended well."""
    with open_folder() as folder, open_session(workers=1) as session:
        check_equal(session.submit(_start_notes, str(folder), 10).result(LIMIT), "started")
        mark = work.Mark(folder)
        wait_for(lambda: all(mark.count(x) for x in range(10)), "they ran")
        check_equal([mark.count(x) for x in range(10)], [1] * 10)


@case()
def threads_of_a_call_make_calls(open_session: OpenSession) -> None:
    """Threads that a call has started submit, map and wait in its session."""
    with open_session(workers=2) as session:
        check_equal(session.submit(_map_in_threads, 4).result(LIMIT), [[0, 1, 4, 9]] * 4)
        check_equal(session.report().deaths, 0)


@case()
def callbacks_come_inside_calls(open_session: OpenSession) -> None:
    """In a call a future calls back, at the latest while the call waits for something."""
    with open_session(workers=2) as session:
        check_equal(session.submit(_call_back).result(LIMIT), [9, 9])


@case()
def maps_end_early_inside_calls(open_session: OpenSession) -> None:
    """In a call a stream over endless input may be left, and the call goes on."""
    with open_session(workers=2) as session:
        expected = [0, 1, 4, 9, 16]
        check_equal(session.map(_leave_stream, [5] * 4), [expected] * 4)


def _chain(depth: int) -> int:
    return depth and 1 + mh.submit(_chain, depth - 1).result(LIMIT)


def _plant_tree(folder: Path, depth: int) -> int:
    """Files in folders in folders; how many bytes."""
    (folder / "file").write_bytes(bytes(10 + depth))
    size = 10 + depth
    for number in range(2 if depth else 0):
        inner = folder / f"folder-{number}"
        inner.mkdir()
        size += _plant_tree(inner, depth - 1)
    return size


def _fail_deep(depth: int) -> None:
    if depth == 0:
        work.fail_with_custom_error(3)
    mh.submit(_fail_deep, depth - 1).result(LIMIT)


def _catch_deep(depth: int) -> tuple[str, int]:
    try:
        mh.submit(_fail_deep, depth).result(LIMIT)
    except work.CustomError as error:
        return type(error).__name__, error.code
    return "nothing", 0


def _map_failing() -> list[int]:
    return mh.map(partial(work.fail_at, (2,)), range(5))


def _misbehave_below(folder: str, plan: tuple[str, ...], value: int) -> int:
    return int(mh.submit(work.misbehave, folder, plan, value).result(LIMIT))


def _wait_and_tell_pid(folder: str) -> str:
    work.Diary(folder).write(work.get_pid())
    return str(mh.submit(work.Gate(folder).enter, "through").result(LIMIT))


def _compute_tree(diary: work.Diary, depth: int) -> int:
    """Compute, wait for two calls that do the same, and compute again; how many did."""
    diary.stay(0.004)
    if depth == 0:
        return 1
    below = [mh.submit(_compute_tree, diary, depth - 1) for _ in range(2)]
    number = 1 + sum(mh.gather(below))
    diary.stay(0.004)
    return number


def _need_all(depth: int) -> int:
    if depth == 0:
        return 0
    return 1 + mh.task(_need_all, cpus=2).submit(depth - 1).result(LIMIT)


def _wait_at(gate: work.Gate) -> str:
    return str(mh.submit(gate.enter, "through").result(LIMIT))


def _wait_shortly(folder: str) -> list[Any]:
    future = mh.submit(work.spin, folder)
    found: list[Any] = []
    try:
        future.result(0.05)
    except TimeoutError as error:
        found.append(type(error).__name__)
    try:
        mh.gather([future], timeout=0.05)
    except TimeoutError as error:
        found.append(type(error).__name__)
    found.append(len(mh.wait([future], 0.05).not_done))
    try:
        list(mh.as_completed([future], 0.05))
    except TimeoutError as error:
        found.append(type(error).__name__)
    wait_for(lambda: work.Mark(folder).count("spin-began"), "the call began")
    future.cancel(running=True)
    return found


def _depend(x: int) -> list[Any]:
    submit: Any = mh.submit
    more = submit(work.add, x, 1)
    square = submit(work.square, more)
    both = submit(work.echo, [more, square])
    return [more.result(LIMIT), square.result(LIMIT), both.result(LIMIT)]


def _depend_on_failure() -> tuple[str, str]:
    submit: Any = mh.submit
    error = submit(work.square, submit(work.fail, "the input")).exception(LIMIT)
    return type(error).__name__, str(error.__cause__)


def _measure_below(value: Any, depth: int) -> int:
    if depth:
        return int(mh.submit(_measure_below, value, depth - 1).result(LIMIT))
    return work.measure(value[0][0] if isinstance(value, list) else value)


def _put_below(depth: int) -> Any:
    return mh.submit(_put_below, depth - 1).result(LIMIT) if depth else mh.put([3] * 50_000)


def _sum_own_ref(size: int) -> int:
    ref = mh.put(bytes([1]) * size)
    submit: Any = mh.submit
    return int(submit(sum, ref).result(LIMIT))


def _echo_below(value: bytes, depth: int) -> bytes:
    return mh.submit(_echo_below, value, depth - 1).result(LIMIT) if depth else value


def _measure_echoes(size: int) -> int:
    return sum(map(len, mh.map(work.echo, [bytes(size)] * 4)))


def _retry_below(folder: str) -> list[Any]:
    task = mh.task(work.fail_until, retries=2, backoff=0.01)
    fail = partial(work.fail_until, folder)
    named = mh.task(work.square, name="other").submit(1)
    return [
        task.submit(folder, 3, 1).result(LIMIT),
        mh.map(fail, [1, 2, 1], [10, 11, 12], retries=1, backoff=0.01),
        named.name,
    ]


def _gather_many(start: int) -> list[int]:
    return mh.gather([mh.submit(work.square, x) for x in range(start, start + 200)])


def _start_notes(folder: str, number: int) -> str:
    for x in range(number):
        mh.submit(work.note, folder, x)
    return "started"


def _map_in_threads(number: int) -> list[list[int]]:
    with ThreadPoolExecutor(number) as threads:
        found = list(threads.map(lambda _: mh.map(work.square, range(4)), range(number)))
    results: list[list[int]] = []
    thread = threading.Thread(target=lambda: results.append(work.map_squares(4)))
    thread.start()
    thread.join(LIMIT)
    check_equal(results, found[:1])
    return found


def _call_back() -> list[int]:
    found: list[int] = []
    future = mh.submit(work.square, 3)
    future.add_done_callback(lambda ended: found.append(ended.result()))
    other = mh.submit(work.nap, 0.05)
    both: list[mh.Future[Any]] = [future, other]
    mh.gather(both)
    future.add_done_callback(lambda ended: found.append(ended.result()))
    return found


def _leave_stream(number: int) -> list[int]:
    from itertools import count, islice

    return list(islice(mh.imap(work.square, count()), number))
