"""Results: the right ones, each once, each in its place."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, open_folder


@case()
def submit_gives_the_result(open_session: OpenSession) -> None:
    """A call returns what its function returns."""
    with open_session(workers=2) as session:
        check_equal(session.submit(work.square, 7).result(LIMIT), 49)


@case()
def submit_passes_all_arguments(open_session: OpenSession) -> None:
    """Positional and keyword arguments reach the function."""
    with open_session(workers=2) as session:
        check_equal(session.submit(work.add, 1, b=20, c=300).result(LIMIT), 321)
        check_equal(session.submit(work.add, 1).result(LIMIT), 1)


@case()
def many_calls_keep_their_results(open_session: OpenSession) -> None:
    """Each of thousands of calls gets its own result."""
    with open_session(workers=2) as session:
        futures = [session.submit(work.square, x) for x in range(3000)]
        check_equal(mh.gather(futures, timeout=LIMIT), [x * x for x in range(3000)])


@case()
def every_call_runs_once(open_session: OpenSession) -> None:
    """No call is lost, and none runs twice."""
    with open_folder() as folder, open_session(workers=2) as session:
        futures = [session.submit(work.note, str(folder), x) for x in range(60)]
        futures += [session.submit(work.note, str(folder), x) for x in range(60, 120)]
        mh.gather(futures, timeout=LIMIT)
        mark = work.Mark(folder)
        check_equal([mark.count(x) for x in range(120)], [1] * 120)


@case()
def map_keeps_the_order(open_session: OpenSession) -> None:
    """The results of a map stand in the order of its input."""
    with open_session(workers=2) as session:
        check_equal(session.map(work.square, range(10_000)), [x * x for x in range(10_000)])
        check_equal(session.map(work.square, [3, 1, 2]), [9, 1, 4])


@case()
def map_runs_every_item_once(open_session: OpenSession) -> None:
    """No item of a map is lost, and none runs twice."""
    with open_folder() as folder, open_session(workers=2) as session:
        session.map(partial(work.note, str(folder)), range(100))
        mark = work.Mark(folder)
        check_equal([mark.count(x) for x in range(100)], [1] * 100)


@case()
def map_of_uneven_items_keeps_the_order(open_session: OpenSession) -> None:
    """Items that take unlike times come back in order."""
    durations = [0.02 if x % 7 == 0 else 0.0 for x in range(60)]
    with open_session(workers=2) as session:
        check_equal(session.map(work.nap, durations), durations)


@case()
def map_of_nothing_is_empty(open_session: OpenSession) -> None:
    """A map over an empty input gives an empty list."""
    with open_session(workers=2) as session:
        check_equal(session.map(work.square, []), [])
        check_equal(session.map(work.square, iter(())), [])
        check_equal(session.map(work.add, [], range(5)), [])
        check_equal(list(session.imap(work.square, [])), [])


@case()
def map_stops_at_the_shortest(open_session: OpenSession) -> None:
    """A map over several inputs pairs them up and ends with the shortest."""
    with open_session(workers=2) as session:
        check_equal(session.map(work.add, range(100), [10, 20, 30]), [10, 21, 32])
        check_equal(session.map(work.add, iter([1, 2]), range(100)), [1, 3])
        check_equal(session.map(pow, [2, 3], [5, 2], [7, 7]), [4, 2])


@case()
def map_takes_any_iterable(open_session: OpenSession) -> None:
    """Generators, sets, dicts, strings, ranges and tuples are inputs."""
    with open_session(workers=2) as session:
        check_equal(session.map(work.square, (x for x in range(100))), [x * x for x in range(100)])
        check_equal(sorted(session.map(work.square, {1, 2})), [1, 4])
        check_equal(session.map(work.echo, {"a": 1, "b": 2}), ["a", "b"])
        check_equal(session.map(str.upper, "abc"), ["A", "B", "C"])
        check_equal(session.map(work.square, range(9, 0, -3)), [81, 36, 9])
        check_equal(session.map(work.square, (1, 2)), [1, 4])


@case()
def map_obeys_a_batch_size(open_session: OpenSession) -> None:
    """A batch size changes nothing but the travel."""
    with open_session(workers=2) as session:
        for batch in (1, 7, 1000):
            check_equal(
                session.map(work.square, range(100), batch=batch), [x * x for x in range(100)]
            )


@case()
def starmap_unpacks_tuples(open_session: OpenSession) -> None:
    """Each tuple of a starmap gives the arguments of a call."""
    with open_session(workers=2) as session:
        pairs = [(x, 2 * x) for x in range(500)]
        check_equal(session.starmap(work.add, pairs), [3 * x for x in range(500)])
        check_equal(session.starmap(work.add, iter(pairs[:3])), [0, 3, 6])


@case()
def imap_keeps_the_order(open_session: OpenSession) -> None:
    """A stream gives the results in the input's order."""
    with open_session(workers=2) as session:
        check_equal(list(session.imap(work.square, range(2000))), [x * x for x in range(2000)])
        check_equal(list(session.imap(work.add, [1, 2], [10, 20])), [11, 22])


@case()
def imap_unordered_gives_all(open_session: OpenSession) -> None:
    """An unordered stream gives every result once."""
    with open_session(workers=2) as session:
        found = sorted(session.imap_unordered(work.square, range(2000)))
        check_equal(found, [x * x for x in range(2000)])


@case()
def any_callable_runs(open_session: OpenSession) -> None:
    """Lambdas, closures, bound methods, partial functions, built-ins and classes run."""
    offset = 10

    def closure(x: int) -> int:
        return x + offset

    with open_session(workers=2) as session:
        check_equal(session.map(lambda x: x + 1, [1, 2]), [2, 3])
        check_equal(session.map(closure, [1, 2]), [11, 12])
        check_equal(session.submit("a-b".split, "-").result(LIMIT), ["a", "b"])
        check_equal(session.map(partial(work.add, 1, c=2), [3, 4]), [6, 7])
        check_equal(session.map(operator.itemgetter(1), [(0, 5)]), [5])
        check_equal(session.map(complex, [1, 2]), [1 + 0j, 2 + 0j])


@case()
def a_function_sees_its_globals_now(open_session: OpenSession) -> None:
    """A closure that changes between two calls is run as it is at each."""
    factor = 1

    def scale(x: int) -> int:
        return factor * x

    with open_session(workers=1) as session:
        check_equal(session.submit(scale, 5).result(LIMIT), 5)
        factor = 3
        check_equal(session.submit(scale, 5).result(LIMIT), 15)


@case()
def values_come_back_equal(open_session: OpenSession) -> None:
    """Values of all built-in kinds survive the way there and back."""
    values: list[Any] = [
        None,
        True,
        -1,
        2**200,
        0.1,
        "ä\n\x00",
        b"\x00\xff",
        (1, (2, [3])),
        {"a": {1, 2}, ("b",): None},
        range(3),
        slice(1, 2),
        ValueError,
    ]
    with open_session(workers=2) as session:
        check_equal(session.map(work.echo, values), values)
        check_equal(session.submit(work.echo, values).result(LIMIT), values)


@case()
def an_exception_can_be_a_value(open_session: OpenSession) -> None:
    """An exception that is returned, not raised, is a result like any other."""
    with open_session(workers=2) as session:
        value = session.submit(work.echo, ValueError("a value")).result(LIMIT)
        check(isinstance(value, ValueError), f"found {value!r}")
        check_equal([str(v) for v in session.map(work.echo, [KeyError(1)])], ["1"])


@case()
def large_values_travel(open_session: OpenSession) -> None:
    """A few megabytes go there and back."""
    block = bytes(range(256)) * 16_384
    with open_session(workers=2) as session:
        check(session.submit(work.echo, block).result(LIMIT) == block, "4 MiB came back changed")
        found = session.map(work.echo, [block, block[:-1], b""])
        check(found == [block, block[:-1], b""], "mapped megabytes came back changed")


@case("pickles")
def arguments_count_as_they_were(open_session: OpenSession) -> None:
    """What the caller changes after a submission does not reach the call."""
    with open_session(workers=1) as session:
        session.submit(work.nap, 0.05)  # so that the next call is still waiting
        values = [1, 2]
        future = session.submit(work.total, values)
        values.append(100)
        check_equal(future.result(LIMIT), 3)


@case("pickles")
def calls_cannot_change_the_callers_values(open_session: OpenSession) -> None:
    """A call that changes its argument changes a copy."""
    values = [1]
    with open_session(workers=1) as session:
        check_equal(session.submit(work.append, values).result(LIMIT), [1, 0])
    check_equal(values, [1])


@case("isolates")
def calls_run_in_other_processes(open_session: OpenSession) -> None:
    """Calls run outside the caller's process."""
    here = work.get_pid()
    with open_session(workers=2) as session:
        check(session.submit(work.get_pid).result(LIMIT) != here, "a call ran in the caller")
        check(here not in session.map(work.get_pid, range(50)), "an item ran in the caller")


@case()
def tasks_run_here_and_there(open_session: OpenSession) -> None:
    """A task is an ordinary function here, and its `submit` and `map` use the session."""
    task = mh.task(work.square)
    with open_session(workers=2):
        check_equal(task(4), 16)
        check_equal(task.submit(5).result(LIMIT), 25)
        check_equal(task.map([1, 2, 3]), [1, 4, 9])
        named = task.options(name="other").submit(6)
        check_equal((named.result(LIMIT), named.name), (36, "other"))


@case()
def the_report_counts_calls(open_session: OpenSession) -> None:
    """The report tells how many calls and items ran, and how many of them failed."""
    with open_session(workers=2) as session:
        mh.gather([session.submit(work.square, x) for x in range(5)], timeout=LIMIT)
        session.map(work.square, range(20))
        session.submit(work.fail, "x").exception(LIMIT)
        session.map(partial(work.fail_at, (1, 3)), range(4), on_error="return")
        report = session.report()
        check_equal((report.calls, report.failed), (30, 3))
        check(report.wall_seconds > 0, "no time passed")
        check("30 calls" in str(report), str(report))
