"""Workers' lives: how they begin, how long they stay, and when fresh ones come."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for

_GROUP = 4


@case("staffs", "isolates")
def the_initializer_runs_in_every_worker(open_session: OpenSession) -> None:
    """Workers that come later have run the initializer too: for calls that wait, after a restart, for actors."""
    with (
        open_folder() as folder,
        open_session(workers=2, initializer=_initialize, initargs=(str(folder),)) as session,
    ):
        seen = partial(_tell_start, folder=str(folder))
        check_equal(session.submit(seen).result(LIMIT), True)
        session.restart_workers()
        check_equal(session.submit(seen).result(LIMIT), True)
        gate = work.Gate(folder)
        busy = [session.submit(gate.enter) for _ in range(2)]
        wait_for(lambda: gate.count_entered() == 2, "both workers are busy")
        check_equal(mh.task(seen, cpus=0).submit().result(LIMIT), True)
        check_equal(session.submit(_tell_below, str(folder)).cancel(), True)
        gate.open()
        mh.gather(busy, timeout=LIMIT)
        check_equal(session.submit(_tell_below, str(folder)).result(LIMIT), True)
        actor = mh.actor(_Teller).start(str(folder))
        check_equal(actor.tell(), True)
        check_equal(set(work.Diary(folder, "starts").read()) >= {str(actor.get_pid())}, True)


@case("staffs", "isolates")
def workers_are_replaced_after_so_many_calls(open_session: OpenSession) -> None:
    """With `max_calls_per_worker` no process runs more calls than that, and every call has its result."""
    with open_session(workers=2, max_calls_per_worker=_GROUP) as session:
        pids = mh.gather([session.submit(work.get_pid) for _ in range(40)], timeout=LIMIT)
        most = max(pids.count(pid) for pid in pids)
        check(most <= _GROUP, f"a worker ran {most} calls")
        check(len(set(pids)) >= 40 // _GROUP, f"{len(set(pids))} workers ran 40 calls")
        check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])
        check_equal(session.report().deaths, 0)
        error = session.submit(work.fail, "x").exception(LIMIT)
        check_equal(str(error), "x")


@case("staffs", "isolates")
def one_call_per_worker_is_possible(open_session: OpenSession) -> None:
    """With `max_calls_per_worker=1` each call has a process of its own, also one that calls others."""
    with open_session(workers=2, max_calls_per_worker=1) as session:
        pids = mh.gather([session.submit(work.get_pid) for _ in range(8)], timeout=LIMIT)
        check_equal(len(set(pids)), 8)
        check_equal(session.submit(work.descend, 2, "submit").result(LIMIT), 2)


@case("staffs", "isolates")
def workers_come_when_calls_wait(open_session: OpenSession) -> None:
    """With `min_workers` others come as calls wait, up to `workers`, and go again when there is nothing to do."""
    with open_folder() as folder, open_session(workers=3, min_workers=1) as session:
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)
        gate = work.Gate(folder)
        futures = [session.submit(gate.enter, x) for x in range(5)]
        wait_for(lambda: gate.count_entered() == 3, "as many workers came as there may be")
        check_equal(session.workers, 3)
        gate.open()
        check_equal(mh.gather(futures, timeout=LIMIT), list(range(5)))
        pids = session.map(work.get_pid, range(50), batch=1)
        wait_for(lambda: sum(map(_lives, set(pids))) <= 1, "the others went")
        check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])
        check_equal(session.report().deaths, 0)


@case("staffs", "isolates")
def a_session_may_keep_no_worker(open_session: OpenSession) -> None:
    """With `min_workers=0` workers come for the first call, and again after they went."""
    with open_session(workers=2, min_workers=0) as session:
        pid = session.submit(work.get_pid).result(LIMIT)
        wait_for(lambda: not _lives(pid), "the worker went")
        check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])


@case()
def wrong_numbers_of_workers_fail_at_once(open_session: OpenSession) -> None:
    """A session whose workers cannot be meant does not open."""
    options: Any
    for options in (
        {"min_workers": -1},
        {"min_workers": 3},
        {"min_workers": 1.5},
        {"max_calls_per_worker": 0},
        {"max_calls_per_worker": True},
    ):
        with expect(mh.InvalidArgumentError):
            open_session(workers=2, **options).close()


@case("staffs", "isolates")
def workers_can_be_restarted(open_session: OpenSession) -> None:
    """After `restart_workers` calls run in fresh processes; one that was running ends in its own."""
    with open_folder() as folder, open_session(workers=2) as session:
        before = set(session.map(work.get_pid, range(50), batch=1))
        gate = work.Gate(folder)
        running = session.submit(_pass_and_tell, gate)
        wait_for(gate.count_entered, "the call began")
        session.restart_workers()
        after = set(session.map(work.get_pid, range(50), batch=1))
        check(not before & after, f"calls ran in old workers: {before & after}")
        gate.open()
        old = running.result(LIMIT)
        check(old not in after, "a running call was moved")
        check_equal(session.report().deaths, 0)
        wait_for(lambda: not any(map(_lives, {*before, old} - after)), "the old workers went")


@case("staffs", "isolates")
def a_call_may_restart_the_workers(open_session: OpenSession) -> None:
    """In a call, and while calls wait, `restart_workers` loses none."""
    with open_session(workers=2) as session:
        futures = [session.submit(work.square, x) for x in range(200)]
        for _ in range(3):
            session.restart_workers()
            futures += [session.submit(work.square, x) for x in range(200)]
        check_equal(session.submit(_restart).result(LIMIT), "restarted")
        check_equal(mh.gather(futures, timeout=LIMIT), [x * x for x in range(200)] * 4)
        check_equal(session.report().deaths, 0)


@case("staffs", "isolates")
def workers_can_be_pinned(open_session: OpenSession) -> None:
    """With `pin` each worker keeps to one core, and workers share cores only where there are too few."""
    with open_folder() as folder, open_session(workers=2, pin=True) as session:
        gate = work.Gate(folder)
        futures = [session.submit(_tell_cores, gate) for _ in range(2)]
        wait_for(lambda: gate.count_entered() == 2, "both workers are busy")
        gate.open()
        cores = mh.gather(futures, timeout=LIMIT)
        check_equal([len(own) for own in cores], [1, 1])
        check_equal(len(set().union(*cores)), min(2, len(os.sched_getaffinity(0))))


@case("isolates")
def a_forked_child_gets_an_answer(open_session: OpenSession) -> None:
    """A child that a call forks, and that uses the session, has a clear error or a result, and never hangs."""
    with open_folder() as folder, open_session(workers=2) as session:
        found = session.submit(_use_in_child, str(folder)).result(LIMIT)
        check(found in (["9"], ["SessionClosedError"]), f"the child found {found}")
        check_equal(session.map(work.square, range(50)), [x * x for x in range(50)])


class _Teller:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def tell(self) -> bool:
        return _tell_start(folder=self.folder)

    def get_pid(self) -> int:
        return work.get_pid()


def _initialize(folder: str) -> None:
    work.Diary(folder, "starts").write(work.get_pid())


def _tell_start(*, folder: str) -> bool:
    """Whether the initializer has run in this process, and once."""
    return work.Diary(folder, "starts").read().count(str(work.get_pid())) == 1


def _tell_below(folder: str) -> bool:
    return mh.submit(partial(_tell_start, folder=folder)).result(LIMIT)


def _restart() -> str:
    from manyhands.session import get_session

    get_session().restart_workers()
    return "restarted"


def _lives(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has waited for does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - as short
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _pass_and_tell(gate: work.Gate) -> int:
    gate.enter()
    return work.get_pid()


def _tell_cores(gate: work.Gate) -> set[int]:
    gate.enter()
    return os.sched_getaffinity(0)


def _use_in_child(folder: str) -> list[str]:
    import warnings

    diary = work.Diary(folder)
    check_equal(mh.submit(work.square, 2).result(LIMIT), 4)  # so that the session is in use here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads; there are none of ours
        child = os.fork()
    if child == 0:
        try:
            diary.write(mh.submit(work.square, 3).result(LIMIT / 2))
        except BaseException as error:
            diary.write(type(error).__name__)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return diary.read()
