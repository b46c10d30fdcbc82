"""Interruption: calls that run and are not wanted any more, with all that hangs on them."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def _await_mark(folder: Path, name: str, times: int = 1) -> None:
    mark = work.Mark(folder)
    wait_for(lambda: mark.count(name) >= times, f"{name}, {times} times")


@case("concurrent")
def a_running_call_can_be_interrupted(open_session: OpenSession) -> None:
    """`cancel(running=True)` cancels a call that runs; `CallInterrupted` is raised in it, and its worker goes on."""
    with open_folder() as folder, open_session(workers=1) as session:
        place = session.submit(work.get_place).result(LIMIT)[0]
        future = session.submit(work.spin, str(folder))
        _await_mark(folder, "spin-began")
        check_equal(future.cancel(), False)
        check_equal(future.cancel(running=True), True)
        check_equal((future.cancelled(), future.done(), future.running()), (True, True, False))
        for ask in (future.result, future.exception):
            with expect(CancelledError):
                ask(LIMIT)
        _await_mark(folder, "spin-CallInterrupted")
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)
        check_equal(session.submit(work.get_place).result(LIMIT)[0], place)
        check_equal(session.report().deaths, 0)


@case("concurrent")
def an_interrupted_call_cleans_up(open_session: OpenSession) -> None:
    """The `finally` blocks of an interrupted call run, and `except Exception` does not keep it alive."""
    with open_folder() as folder, open_session(workers=2) as session:
        future = session.submit(_persist, str(folder))
        _await_mark(folder, "began")
        check(future.cancel(running=True), f"could not be cancelled: {future!r}")
        _await_mark(folder, "cleaned")
        check_equal(work.Mark(folder).count("caught"), 0)


@case("interrupts")
def a_sleeping_call_can_be_interrupted(open_session: OpenSession) -> None:
    """A call that sleeps is interrupted in its sleep."""
    with open_folder() as folder, open_session(workers=1) as session:
        future = session.submit(work.doze, str(folder))
        _await_mark(folder, "doze-began")
        check(future.cancel(running=True), f"could not be cancelled: {future!r}")
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)
        check_equal(
            [work.Mark(folder).count(f"doze-{x}") for x in ("CallInterrupted", "ended")], [1, 1]
        )


@case("interrupts")
def a_call_that_defies_is_ended(open_session: OpenSession) -> None:
    """A cancelled call that swallows every interrupt, or hangs in native code, makes room for others all the same."""
    for run in (work.defy, work.freeze):
        with open_folder() as folder, open_session(workers=1) as session:
            future = session.submit(run, str(folder))
            _await_mark(folder, f"{run.__name__}-began")
            queued = [session.submit(work.note, str(folder), x) for x in range(5)]
            check(future.cancel(running=True), f"could not be cancelled: {future!r}")
            check_equal(mh.gather(queued, timeout=LIMIT), list(range(5)))
            check_equal([work.Mark(folder).count(x) for x in range(5)], [1] * 5)
            check(future.cancelled(), f"left as {future!r}")


@case("concurrent")
def an_interrupted_call_is_not_tried_again(open_session: OpenSession) -> None:
    """Retries of a call do not outlive its cancellation."""
    with open_folder() as folder, open_session(workers=1) as session:
        everything: Any = (BaseException,)
        task = mh.task(work.spin, retries=3, retry_on=everything, worker_retries=3, backoff=0)
        future = task.submit(str(folder))
        _await_mark(folder, "spin-began")
        check(future.cancel(running=True), f"could not be cancelled: {future!r}")
        _await_mark(folder, "spin-ended")
        check_equal(session.map(work.square, range(9)), [x * x for x in range(9)])
        check_equal(work.Mark(folder).count("spin-began"), 1)


@case("concurrent")
def cancelled_calls_never_start(open_session: OpenSession) -> None:
    """Of calls that wait, also of those sent ahead, none starts that was cancelled with `running`; all others do."""
    with open_folder() as folder, open_session(workers=2) as session:
        session.map(partial(work.note, str(folder)), range(1000, 1100))  # so that its time is known
        gate = work.Gate(folder)
        running = [session.submit(gate.enter) for _ in range(2)]
        wait_for(lambda: gate.count_entered() == 2, "both calls began")
        queued = [session.submit(work.note, str(folder), x) for x in range(40)]
        check(all(future.cancel(running=True) for future in queued[::2]), "not all were cancelled")
        gate.open()
        check_equal(mh.gather(queued[1::2], timeout=LIMIT), list(range(1, 40, 2)))
        mh.gather(running, timeout=LIMIT)
        check_equal([work.Mark(folder).count(x) for x in range(40)], [0, 1] * 20)


@case()
def what_waits_for_a_cancelled_call_is_cancelled(open_session: OpenSession) -> None:
    """Calls that wait for a call, however far down, are cancelled with it; all others go on."""
    from concurrent.futures import Future as StandardFuture

    outside: Any = StandardFuture()
    with open_folder() as folder, open_session(workers=2) as session:
        submit: Any = session.submit
        source = submit(work.square, outside)
        other = submit(work.square, 3)
        child = submit(work.note, str(folder), source)
        several = submit(work.total, [other, source, 1])
        grandchild = submit(work.add, child, 1)
        apart = submit(work.add, other, outside)
        check(source.cancel(), f"could not be cancelled: {source!r}")
        for future in (child, several, grandchild):
            check(mh.wait([future], LIMIT).done, f"left as {future!r}")
            check(future.cancelled(), f"not cancelled: {future!r}")
        late = submit(work.square, source)
        check(mh.wait([late], LIMIT).done and late.cancelled(), f"came later, left as {late!r}")
        outside.set_result(5)
        check_equal(apart.result(LIMIT), 14)
        check_equal(list(folder.iterdir()), [])


@case("concurrent")
def what_waits_for_an_interrupted_call_is_cancelled(open_session: OpenSession) -> None:
    """The same where the call was running."""
    with open_folder() as folder, open_session(workers=2) as session:
        submit: Any = session.submit
        source = submit(work.spin, str(folder))
        child = submit(work.note, str(folder), source)
        grandchild = submit(work.echo, [child])
        _await_mark(folder, "spin-began")
        check(source.cancel(running=True), f"could not be cancelled: {source!r}")
        check_equal([future.cancelled() for future in (child, grandchild)], [True, True])
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("concurrent")
def an_interruption_wakes_waiters(open_session: OpenSession) -> None:
    """Whoever waits for a call hears at once that it was cancelled."""
    found: list[object] = []
    with open_folder() as folder, open_session(workers=1) as session:
        future: mh.Future[Any] = session.submit(work.spin, str(folder))
        future.add_done_callback(found.append)

        def ask() -> None:
            try:
                future.result(LIMIT)
            except CancelledError as error:
                found.append(type(error))

        thread = threading.Thread(target=ask)
        thread.start()
        _await_mark(folder, "spin-began")
        future.cancel(running=True)
        thread.join(LIMIT)
        check_equal(set(found), {future, CancelledError})
        check_equal(mh.wait([future], LIMIT).done, {future})
        check_equal(list(mh.as_completed([future], LIMIT)), [future])


@case("concurrent")
def a_broken_stream_cancels_the_rest(open_session: OpenSession) -> None:
    """`break`, `close` and an error in the loop end what runs of a stream, and what waits never starts."""
    with open_session(workers=2) as session:
        for way in ("break", "close", "error"):
            with open_folder() as folder:
                _leave_stream(session, folder, way)
                _await_mark(folder, "spin-ended")
                check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])
                entries = sorted(entry.name for entry in folder.iterdir())
                check_equal(work.Mark(folder).count("late"), 0)
                check_equal(sorted(entry.name for entry in folder.iterdir()), entries)


def _leave_stream(session: mh.Session, folder: Path, way: str) -> None:
    stream: Any = session.imap_unordered(partial(_spin_at_one, str(folder)), count(), batch=1)
    try:
        for value in stream:
            if value == 0:
                continue
            _await_mark(folder, "spin-began")
            if way == "break":
                break
            if way == "close":
                stream.close()
                work.Mark(folder).add("closed")
            else:
                raise KeyError(way)
    except KeyError:
        pass
    if way == "error":
        stream.close()  # its frame is in the error's traceback, which others may hold


@case("concurrent")
def a_failed_map_cancels_its_rest(open_session: OpenSession) -> None:
    """When an item fails a map, those that run are interrupted, and the others do not start."""
    with open_folder() as folder, open_session(workers=2) as session:
        with expect(ValueError):
            session.map(partial(_fail_beside, str(folder)), range(20), batch=1)
        _await_mark(folder, "spin-ended")
        check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])
        check_equal(work.Mark(folder).count("late"), 0)


@case("concurrent")
def the_calls_of_a_cancelled_call_are_cancelled(open_session: OpenSession) -> None:
    """A cancelled call takes those along that it has made, however deep: running ones end, and others never start."""
    with open_folder() as folder, open_session(workers=2) as session:
        future = session.submit(_breed, str(folder), 2)
        _await_mark(folder, "spin-began")
        check(future.cancel(running=True), f"could not be cancelled: {future!r}")
        _await_mark(folder, "spin-ended")
        _await_mark(folder, "parent-ended", 2)
        check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])
        began = work.Mark(folder).count("spin-began")
        # One that was interrupted as it was about to note that it began noted its end alone.
        wait_for(lambda: work.Mark(folder).count("spin-ended") >= began, "all that began ended")
        check(began <= 3, f"{began} of the calls began, and there are two workers")


@case("concurrent")
def the_calls_of_a_failed_call_are_cancelled(open_session: OpenSession) -> None:
    """A call that fails takes those along that it has made and that have not ended."""
    with open_folder() as folder, open_session(workers=2) as session:
        error = session.submit(_spawn_and_fail, str(folder)).exception(LIMIT)
        check_equal((type(error), str(error)), (ValueError, "after a start"))
        _await_mark(folder, "spin-ended")
        check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])


@case("isolates")
def the_calls_of_a_dead_call_are_cancelled(open_session: OpenSession) -> None:
    """A call whose worker dies takes those along that it has made; its next attempt makes its own."""
    with open_folder() as folder, open_session(workers=2) as session:
        future = session.submit(_spawn_and_die_once, str(folder))
        _await_mark(folder, "spin-ended")
        check_equal(future.result(LIMIT), "again")
        check_equal(work.Mark(folder).count("spin-began"), 1)


@case("concurrent")
def a_call_may_cancel_its_calls(open_session: OpenSession) -> None:
    """Inside a call, `cancel` withdraws what it has submitted, and with `running` interrupts it."""
    with open_folder() as folder, open_session(workers=2) as session:
        check_equal(session.submit(_spawn_and_cancel, str(folder)).result(LIMIT), (True, True))
        _await_mark(folder, "spin-ended")
        check_equal(work.Mark(folder).count(7), 0)
        check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])


@case("interrupts")
def leaving_the_block_ends_what_runs(open_session: OpenSession) -> None:
    """When a session's block is left, its calls are cancelled, those that run are ended, and none starts later."""
    with open_folder() as folder:
        with open_session(workers=2) as session:
            futures = [session.submit(_tick, str(folder)) for _ in range(2)]
            _await_mark(folder, "ticking", 2)
            futures += [session.submit(_tick, str(folder)) for _ in range(8)]
        check(all(future.cancelled() for future in futures), f"left as {futures!r}")
        check_equal(work.Mark(folder).count("ticking"), 2)
        ticks = len(work.Diary(folder).read())
        with open_session(workers=1) as session:
            session.submit(work.nap, 0.1).result(LIMIT)
        check_equal(len(work.Diary(folder).read()), ticks)


@case("concurrent")
def an_interrupt_strikes_no_other_call(open_session: OpenSession) -> None:
    """However a cancellation and the end of a call meet, it is cancelled or has its result, and others are unhurt."""
    with open_session(workers=2) as session:
        session.map(work.square, range(100))
        outcomes = set()
        for number in range(200):
            future = session.submit(work.nap, 0.0005)
            others = [session.submit(work.square, x) for x in range(3)]
            session.submit(work.nap, 0.0001 * (number % 8)).result(LIMIT)
            was_cancelled = future.cancel(running=True)
            check_equal(mh.gather(others, timeout=LIMIT), [0, 1, 4])
            outcomes.add(was_cancelled)
            if was_cancelled:
                check(future.cancelled(), f"says that it was cancelled, and is {future!r}")
            else:
                check_equal(future.result(LIMIT), 0.0005)
        check_equal(list(islice(session.imap(work.square, count()), 5)), [0, 1, 4, 9, 16])
        check(outcomes, "nothing was tried")


def _persist(folder: str) -> None:
    """Go on after every error."""
    mark = work.Mark(folder)
    try:
        mark.add("began")
        for _ in range(10):
            try:
                work.spin(folder)
            except Exception:
                mark.add("caught")
    finally:
        mark.add("cleaned")


def _spin_at_one(folder: str, x: int) -> int:
    if x == 1:
        work.spin(folder)
    elif work.Mark(folder).count("spin-ended"):
        work.Mark(folder).add("late")
    return x


def _fail_beside(folder: str, x: int) -> int:
    """One item spins, the next fails once it does, and others note that they began too late."""
    mark = work.Mark(folder)
    if x == 0:
        work.spin(folder)
    elif x == 1:
        wait_for(lambda: mark.count("spin-began"), "the first item began")
        raise ValueError("beside a running item")
    mark.add("late")
    return x


def _breed(folder: str, depth: int) -> None:
    """Wait for calls that wait for calls that spin."""
    try:
        if depth == 0:
            work.spin(folder)
        mh.gather([mh.submit(_breed, folder, depth - 1) for _ in range(3)])
    finally:
        if depth:
            work.Mark(folder).add("parent-ended")


def _spawn_spinning(folder: str) -> mh.Future[None]:
    future = mh.submit(work.spin, folder)
    wait_for(lambda: work.Mark(folder).count("spin-began"), "the call of a call began")
    return future


def _spawn_and_fail(folder: str) -> None:
    _spawn_spinning(folder)
    raise ValueError("after a start")


def _spawn_and_die_once(folder: str) -> str:
    from manyhands.testing.faults import Damage, strike

    if work.Mark(folder).add("attempt") == 1:
        _spawn_spinning(folder)
        strike(Damage.KILL)
    return "again"


def _spawn_and_cancel(folder: str) -> tuple[bool, bool]:
    running = _spawn_spinning(folder)
    waiting: Any = mh.submit(work.note, folder, mh.submit(work.echo, running))  # type: ignore[arg-type]
    was_waiting: bool = waiting.cancel()
    return was_waiting, running.cancel(running=True)


def _tick(folder: str) -> None:
    work.Mark(folder).add("ticking")
    while True:
        work.Diary(folder).write("tick")
        work.nap(0.002)
