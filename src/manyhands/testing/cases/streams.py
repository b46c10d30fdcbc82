"""Streams: endless input, bounded memory, results as they come, balance."""

from __future__ import annotations

from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

_AHEAD = 32
"""Items that a stream of batches of one may read ahead for each worker."""


class _Endless:
    """Numbers without end, and how many were read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        for number in count():
            self.read += 1
            yield number


@case()
def imap_takes_endless_input(open_session: OpenSession) -> None:
    """A stream over a generator without end gives results."""
    with open_session(workers=2) as session:
        stream = session.imap(work.square, count())
        check_equal(list(islice(stream, 2000)), [x * x for x in range(2000)])
        unordered = session.imap_unordered(work.square, count())
        check_equal(len(list(islice(unordered, 500))), 500)
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case()
def imap_reads_a_bounded_number_ahead(open_session: OpenSession) -> None:
    """What is read of the input stays near what was consumed of the results."""
    with open_session(workers=2) as session:
        for open_stream in (session.imap, session.imap_unordered):
            numbers = _Endless()
            stream = open_stream(work.square, numbers, batch=1)
            check(numbers.read <= 2 * _AHEAD, f"{numbers.read} read before any was asked for")
            for consumed, _ in enumerate(islice(stream, 50), start=1):
                check(
                    numbers.read <= consumed + 2 * _AHEAD,
                    f"{numbers.read} read, {consumed} consumed",
                )


@case()
def a_consumer_that_rests_holds_the_stream(open_session: OpenSession) -> None:
    """While nobody takes results, nothing more is read, though other calls run."""
    with open_session(workers=2) as session:
        numbers = _Endless()
        stream = session.imap(work.square, numbers, batch=1)
        next(stream)
        for x in range(50):
            check_equal(session.submit(work.square, x).result(LIMIT), x * x)
        check(numbers.read <= 1 + 2 * _AHEAD, f"{numbers.read} read, 1 consumed")
        check_equal(next(stream), 1)


@case()
def a_stream_can_be_left(open_session: OpenSession) -> None:
    """Whoever leaves a stream early, by `close`, break or an error, leaves the session whole."""
    with open_session(workers=2) as session:
        for _ in range(3):
            stream = session.imap(work.square, count())
            next(stream)
            close = getattr(stream, "close", None)
            check(close is not None, "a stream has no close()")
            if close is not None:
                close()
            check_equal(list(stream), [])
        for x in session.imap_unordered(work.square, count()):
            if x >= 0:
                break
        check_equal(session.map(work.square, range(10)), [x * x for x in range(10)])


@case()
def streams_can_be_interleaved(open_session: OpenSession) -> None:
    """Several streams of one session are consumed in turn."""
    with open_session(workers=2) as session:
        squares = session.imap(work.square, range(200))
        doubles = session.imap(partial(work.add, 1), range(200))
        pairs = list(zip(squares, doubles, strict=True))
        check_equal(pairs, [(x * x, x + 1) for x in range(200)])


@case()
def an_error_ends_a_stream_in_its_place(open_session: OpenSession) -> None:
    """The results before a failed item come first, then its error, then nothing."""
    with open_session(workers=2) as session:
        stream = session.imap(partial(work.fail_at, (20,)), range(50), batch=1)
        check_equal([next(stream) for _ in range(20)], [x * x for x in range(20)])
        with expect(ValueError) as caught:
            next(stream)
        check_equal(str(caught.error), "item 20 is bad")
        check_equal(list(stream), [])


@case()
def an_error_of_the_input_is_raised(open_session: OpenSession) -> None:
    """What the input raises while it is read comes out of the map as itself."""

    def read() -> Iterator[int]:
        yield from range(100)
        raise KeyError("the source is dry")

    with open_session(workers=2) as session:
        with expect(KeyError):
            session.map(work.square, read())
        with expect(KeyError):
            list(session.imap(work.square, read()))
        check_equal(session.map(work.square, [3]), [9])


@case("concurrent")
def imap_unordered_gives_what_is_ready(open_session: OpenSession) -> None:
    """One slow item holds up no other item's result."""
    with open_folder() as folder, open_session(workers=2) as session:
        gate = work.Gate(folder)
        stream = session.imap_unordered(partial(_enter_at_zero, gate), range(100))
        found = [next(stream) for _ in range(99)]
        check_equal(sorted(found), list(range(1, 100)))
        gate.open()
        check_equal(list(stream), [0])


@case("concurrent")
def a_slow_call_holds_up_no_other(open_session: OpenSession) -> None:
    """Calls that were sent to a busy worker run on another that is free."""
    with open_folder() as folder, open_session(workers=2) as session:
        gate = work.Gate(folder)
        mh.gather([session.submit(_enter_at_zero, gate, x) for x in range(1, 100)], timeout=LIMIT)
        slow = session.submit(_enter_at_zero, gate, 0)
        quick = [session.submit(_enter_at_zero, gate, x) for x in range(1, 400)]
        done = mh.wait(quick, timeout=LIMIT).done
        check_equal((len(done), slow.done()), (399, False))
        gate.open()
        check_equal(slow.result(LIMIT), 0)


@case("concurrent")
def all_workers_share_the_work(open_session: OpenSession) -> None:
    """Two workers are at work at once, in a map and on calls."""
    with open_folder() as folder, open_session(workers=2) as session:
        gate = work.Gate(folder, "calls")
        calls = [session.submit(gate.enter, x) for x in range(2)]
        wait_for(lambda: gate.count_entered() == 2, "two calls run at once")
        gate.open()
        check_equal(mh.gather(calls, timeout=LIMIT), [0, 1])
        check_equal(session.map(partial(_meet, str(folder)), range(2)), [0, 1])


def _enter_at_zero(gate: work.Gate, x: int) -> int:
    return int(gate.enter(x)) if x == 0 else x


def _meet(folder: str, x: int) -> int:
    """Return when a second call is here as well."""
    mark = work.Mark(folder)
    mark.add("met")
    wait_for(lambda: mark.count("met") >= 2, "two items run at once")
    return x
