"""Sessions: their workers' start, their end, several at once, from several threads, inside calls."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder


@case()
def the_initializer_runs_before_calls(open_session: OpenSession) -> None:
    """Every worker has run the initializer before its first call."""
    with open_session(workers=2, initializer=work.put_setting, initargs=("tone", "a")) as session:
        check_equal(set(session.map(partial(work.get_setting, "tone"), range(200))), {"a"})
        check_equal(session.submit(work.get_setting, "tone").result(LIMIT), "a")


@case("isolates")
def the_initializer_runs_in_new_workers(open_session: OpenSession) -> None:
    """A worker that takes a dead one's place has run the initializer too."""
    with open_session(workers=1, initializer=work.put_setting, initargs=("tone", "b")) as session:
        session.submit(work.exit_with, 1).exception(LIMIT)
        check_equal(session.submit(work.get_setting, "tone").result(LIMIT), "b")


@case()
def an_initializer_may_be_a_lambda(open_session: OpenSession) -> None:
    """Initializers and their arguments travel as calls do."""
    scale = 3
    with open_session(
        workers=1, initializer=lambda x: work.put_setting("scale", scale * x), initargs=(2,)
    ) as session:
        check_equal(session.submit(work.get_setting, "scale").result(LIMIT), 6)


@case()
def a_failed_initializer_fails_the_session(open_session: OpenSession) -> None:
    """Opening, or every call, fails with WorkerStartError, caused by the initializer's error; nothing hangs."""
    with (
        expect(mh.WorkerStartError) as caught,
        open_session(workers=2, initializer=work.fail, initargs=("no start",)) as session,
    ):
        futures = [session.submit(work.square, x) for x in range(10)]
        mh.gather(futures, timeout=LIMIT)
    cause = caught.error.__cause__
    check("no start" in f"{caught.error} {cause}", f"found {caught.error!r}, cause {cause!r}")
    with (
        expect(mh.WorkerStartError),
        open_session(workers=2, initializer=work.fail, initargs=("no start",)) as session,
    ):
        session.map(work.square, range(10))


@case()
def a_closed_session_says_so(open_session: OpenSession) -> None:
    """Using a closed session is an error at once; closing it again is none."""
    session = open_session(workers=2)
    check_equal(session.submit(work.square, 2).result(LIMIT), 4)
    session.close()
    session.close()
    with expect(mh.SessionClosedError):
        session.submit(work.square, 2)
    with expect(mh.SessionClosedError):
        session.map(work.square, [2])
    with expect(mh.SessionClosedError):
        list(session.imap(work.square, [2]))
    with expect(mh.SessionClosedError), session:
        pass
    check("closed" in repr(session), repr(session))


@case()
def the_functions_use_the_innermost_session(open_session: OpenSession) -> None:
    """Inside a `with` block the package's functions use its session."""
    with open_session(workers=1) as outer:
        with open_session(workers=1) as inner:
            mh.map(work.square, range(3))
            check_equal((outer.report().calls, inner.report().calls), (0, 3))
        mh.submit(work.square, 1).result(LIMIT)
        check_equal((outer.report().calls, mh.report().calls), (1, 1))


@case()
def sessions_do_not_disturb_each_other(open_session: OpenSession) -> None:
    """Two sessions work at once, and the end of one leaves the other whole."""
    with open_session(workers=1) as first:
        with open_session(workers=1) as second:
            futures = [s.submit(work.square, x) for x in range(50) for s in (first, second)]
            expected = [x * x for x in range(50) for _ in range(2)]
            check_equal(mh.gather(futures, timeout=LIMIT), expected)
            late = first.submit(work.nap, 0.05)
        check_equal(late.result(LIMIT), 0.05)
        check_equal(first.map(work.square, range(5)), [0, 1, 4, 9, 16])


@case()
def sessions_open_one_after_another(open_session: OpenSession) -> None:
    """A session opens after another has closed, again and again, also one that was never used."""
    for _ in range(3):
        with open_session(workers=2):
            pass
        with open_session(workers=2) as session:
            check_equal(session.map(work.square, range(5)), [0, 1, 4, 9, 16])


@case()
def several_threads_use_one_session(open_session: OpenSession) -> None:
    """Threads submit, map and wait at once, and each gets its own results."""

    def use(number: int) -> bool:
        for turn in range(5):
            base = 1000 * number + 100 * turn
            futures = [session.submit(work.add, base, x) for x in range(40)]
            mapped = session.map(partial(work.add, base), range(100))
            streamed = list(session.imap(partial(work.add, base), range(20)))
            if mh.gather(futures, timeout=LIMIT) != [base + x for x in range(40)]:
                return False
            if mapped != [base + x for x in range(100)] or streamed != mapped[:20]:
                return False
        return True

    with open_session(workers=2) as session, ThreadPoolExecutor(4) as threads:
        check_equal(list(threads.map(use, range(4), timeout=LIMIT)), [True] * 4)


@case()
def threads_share_the_session_of_a_block(open_session: OpenSession) -> None:
    """A thread that was started in a `with` block uses its session."""
    found: list[int] = []
    with open_session(workers=1) as session:
        thread = threading.Thread(target=lambda: found.extend(mh.map(work.square, range(4))))
        thread.start()
        thread.join(LIMIT)
        check_equal((found, session.report().calls), ([0, 1, 4, 9], 4))


@case("concurrent")
def a_thread_may_wait_while_others_work(open_session: OpenSession) -> None:
    """A thread that waits long keeps no other from its results."""
    with open_folder() as folder, open_session(workers=2) as session:
        gate = work.Gate(folder)
        slow = session.submit(gate.enter, "slow")
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(slow.result(LIMIT)))
        thread.start()
        for x in range(50):
            check_equal(session.submit(work.square, x).result(LIMIT), x * x)
        check_equal(found, [])
        gate.open()
        thread.join(LIMIT)
        check_equal(found, ["slow"])


@case()
def calls_may_map(open_session: OpenSession) -> None:
    """Maps and calls inside calls end, though every worker is at the outer ones."""
    with open_session(workers=2) as session:
        futures = [session.submit(work.map_squares, 5) for _ in range(6)]
        check_equal(mh.gather(futures, timeout=LIMIT), [[0, 1, 4, 9, 16]] * 6)
        futures_of_one = [session.submit(work.submit_square, x) for x in range(6)]
        check_equal(mh.gather(futures_of_one, timeout=LIMIT), [x * x for x in range(6)])
        check_equal(session.map(work.map_squares, [1, 2, 3]), [[0], [0, 1], [0, 1, 4]])
