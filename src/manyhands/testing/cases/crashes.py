"""Workers that die: one call fails, everything else goes on."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for
from manyhands.testing.faults import (
    EXIT_CODE,
    Damage,
    PicklingFault,
    RunningFault,
    UnpicklingFault,
    make_result,
)

_DEADLY = (Damage.EXIT, Damage.OS_EXIT, Damage.SEGFAULT, Damage.KILL)
_SIGNALS = {Damage.SEGFAULT: signal.SIGSEGV, Damage.KILL: signal.SIGKILL}


def _check_death(session: mh.Session, error: Any, damage: Damage) -> None:
    check(isinstance(error, mh.WorkerDiedError), f"{damage}: found {error!r}")
    if not session.capabilities.witnesses:
        return
    expected = _SIGNALS.get(damage)
    if expected is None:
        check_equal((error.exit_code, error.signal), (EXIT_CODE, None))
    else:
        check_equal((error.exit_code, error.signal), (None, expected))
        check(expected.name in str(error), f"the signal is not named: {error}")
    check(error.pid is not None and str(error.pid) in str(error), f"no process id: {error}")


@case("isolates")
def a_death_fails_its_own_call(open_session: OpenSession) -> None:
    """Whatever ends a worker fails the call that it was at, and the error says what it was."""
    with open_session(workers=2) as session:
        for damage in _DEADLY:
            task = mh.task(RunningFault(damage), worker_retries=0)
            error = task.submit().exception(LIMIT)
            _check_death(session, error, damage)
            check("RunningFault" in str(error), f"the call is not named: {error}")
            check_equal(session.submit(work.square, 3).result(LIMIT), 9)
        check_equal(session.report().deaths, len(_DEADLY))


@case("isolates")
def a_death_leaves_other_calls_alone(open_session: OpenSession) -> None:
    """All other calls finish, each run once, but for those whose results may be lost with a worker."""
    with open_folder() as folder, open_session(workers=2) as session:
        futures: list[Any] = []
        for x in range(200):
            futures.append(session.submit(work.note, str(folder), x))
            if x % 50 == 25:
                futures.append(session.submit(RunningFault(Damage.KILL)))
        found = mh.gather(futures, on_error="return", timeout=LIMIT)
        check_equal([value for value in found if isinstance(value, int)], list(range(200)))
        check_equal(sum(isinstance(value, mh.WorkerDiedError) for value in found), 4)
        counts = [work.Mark(folder).count(x) for x in range(200)]
        check(min(counts) == 1, f"some did not run: {counts}")
        if session.capabilities.keeps:
            check_equal(counts, [1] * 200)


@case("isolates")
def a_death_in_a_map_names_its_item(open_session: OpenSession) -> None:
    """The error of a map whose item killed a worker carries the item's index."""
    values: list[Any] = [*range(30), UnpicklingFault(Damage.KILL), *range(30)]
    with open_session(workers=2) as session:
        for batch in (None, 1, 16):
            with expect(mh.WorkerDiedError) as caught:
                session.map(work.echo, values, batch=batch)
            notes = "\n".join(caught.error.__notes__)
            check("item 30 " in notes, f"batch {batch}, notes: {notes}")
        check_equal(session.map(work.square, range(5)), [0, 1, 4, 9, 16])


@case("isolates")
def a_death_in_a_map_can_be_a_result(open_session: OpenSession) -> None:
    """With `on_error="return"` all other items have their results."""
    with open_session(workers=2) as session:
        fail = partial(_kill_at, (3, 40))
        for batch in (None, 1, 16):
            found: list[Any] = session.map(fail, range(60), batch=batch, on_error="return")
            for x, value in enumerate(found):
                if x in (3, 40):
                    check(isinstance(value, mh.WorkerDiedError), f"item {x}: {value!r}")
                else:
                    check_equal(value, x)
            check_equal(len(found), 60)


@case("isolates")
def a_death_is_tried_again_once(open_session: OpenSession) -> None:
    """A call or an item whose worker died is tried once more unasked, since a lost worker is not its fault."""
    with open_folder() as folder, open_session(workers=2) as session:
        once = RunningFault(Damage.KILL, once=folder / "call")
        check_equal(session.submit(once, 7).result(LIMIT), 7)
        once = RunningFault(Damage.OS_EXIT, once=folder / "map")
        check_equal(session.map(once, range(40)), list(range(40)))
        error: Any = session.submit(RunningFault(Damage.KILL)).exception(LIMIT)
        check_equal(session.report().deaths, 4)
        notes = "\n".join(error.__notes__)
        check("All 2 attempts failed" in notes, f"not all attempts are told of: {notes}")


@case("isolates")
def deaths_have_retries_of_their_own(open_session: OpenSession) -> None:
    """`worker_retries` says how often a call is tried again after a death; `retries` has nothing to do with that."""
    with open_folder() as folder, open_session(workers=2) as session:
        once = RunningFault(Damage.KILL, once=folder / "call")
        task = mh.task(once, retries=5, worker_retries=0)
        _check_death(session, task.submit(7).exception(LIMIT), Damage.KILL)
        check_equal(task.submit(7).result(LIMIT), 7)
        once = RunningFault(Damage.KILL, once=folder / "map")
        found: Any = session.map(
            once, range(3), batch=1, retries=5, worker_retries=0, on_error="return"
        )
        check_equal(sum(isinstance(value, mh.WorkerDiedError) for value in found), 1)
        check_equal(session.report().retried, 0)


@case("isolates")
def a_call_that_always_kills_is_given_up(open_session: OpenSession) -> None:
    """It fails after its attempts, alone."""
    with open_session(workers=2) as session:
        deadly = mh.task(RunningFault(Damage.KILL), worker_retries=2).submit()
        futures = [session.submit(work.square, x) for x in range(100)]
        check(isinstance(deadly.exception(LIMIT), mh.WorkerDiedError), "it did not fail")
        check_equal(mh.gather(futures, timeout=LIMIT), [x * x for x in range(100)])
        check_equal(session.report().deaths, 3)


@case("isolates")
def an_idle_worker_that_dies_is_replaced(open_session: OpenSession) -> None:
    """Killing workers that are at nothing fails no call."""
    import os

    with open_session(workers=2) as session:
        for _ in range(2):
            for pid in set(session.map(work.get_pid, range(50))):
                os.kill(pid, signal.SIGKILL)
            check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])


@case("isolates", "witnesses")
def the_last_words_are_in_the_error(open_session: OpenSession) -> None:
    """The error of a death shows the last lines that the worker wrote to its standard error."""
    with open_session(workers=1) as session:
        error: Any = session.submit(_complain_and_die).exception(LIMIT)
        check(isinstance(error, mh.WorkerDiedError), f"found {error!r}")
        check("the last straw" in "\n".join(error.stderr), f"stderr: {error.stderr}")
        check("the last straw" in str(error), f"says: {error}")


@case("isolates", "pickles")
def unpickling_in_a_worker_may_fail(open_session: OpenSession) -> None:
    """An argument that cannot be rebuilt, or kills while it is, fails its own call."""
    with open_session(workers=2) as session:
        for damage in _DEADLY:
            _check_death(
                session, session.submit(work.echo, UnpicklingFault(damage)).exception(LIMIT), damage
            )
        error = session.submit(work.echo, UnpicklingFault(Damage.RAISE)).exception(LIMIT)
        check(isinstance(error, mh.UnloadableError), f"found {error!r}")
        check("on purpose" in str(error), f"the reason is missing: {error}")
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("isolates", "pickles")
def pickling_in_a_worker_may_fail(open_session: OpenSession) -> None:
    """A result that cannot be pickled, or kills while it is, fails its own call."""
    with open_session(workers=2) as session:
        for damage in _DEADLY:
            _check_death(
                session, session.submit(make_result, PicklingFault, damage).exception(LIMIT), damage
            )
        error = session.submit(make_result, PicklingFault, Damage.RAISE).exception(LIMIT)
        check(isinstance(error, mh.UnpicklableError), f"found {error!r}")
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("pickles")
def unpickling_in_the_caller_may_fail(open_session: OpenSession) -> None:
    """A result that cannot be rebuilt fails its own call, for every ask the same way."""
    with open_session(workers=2) as session:
        future = session.submit(make_result, UnpicklingFault, Damage.RAISE)
        for _ in range(2):
            error = future.exception(LIMIT)
            check(isinstance(error, mh.UnloadableError), f"found {error!r}")
        with expect(mh.UnloadableError):
            future.result(LIMIT)
        found = session.map(_make_bad_result_at_three, range(6), on_error="return")
        check_equal(
            [type(value).__name__ for value in found],
            [*["int"] * 3, "UnloadableError", *["int"] * 2],
        )


@case("isolates", "concurrent")
def a_killed_worker_loses_no_waiting_call(open_session: OpenSession) -> None:
    """Calls that wait in the queue of a worker that is killed run elsewhere, once each."""
    import os

    with open_folder() as folder, open_session(workers=1) as session:
        session.submit(work.note, str(folder), 999).result(LIMIT)
        gate = work.Gate(folder)
        pid = session.submit(work.get_pid).result(LIMIT)
        running = mh.task(gate.enter, worker_retries=0).submit()
        wait_for(gate.count_entered, "the call began")
        waiting = [session.submit(work.note, str(folder), x) for x in range(30)]
        os.kill(pid, signal.SIGKILL)
        _check_death(session, running.exception(LIMIT), Damage.KILL)
        check_equal(mh.gather(waiting, timeout=LIMIT), list(range(30)))
        check_equal([work.Mark(folder).count(x) for x in range(30)], [1] * 30)


def _kill_at(bad: tuple[int, ...], x: int) -> int:
    return x if x not in bad else int(RunningFault(Damage.KILL)(x))


def _make_bad_result_at_three(x: int) -> Any:
    return UnpicklingFault(Damage.RAISE) if x == 3 else x


def _complain_and_die() -> None:
    work.say("this is", "stderr")
    work.say("the last straw", "stderr")
    RunningFault(Damage.OS_EXIT)()
