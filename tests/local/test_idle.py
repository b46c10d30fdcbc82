"""Who has nothing to do uses no processor time."""

import os
import threading
import time
from pathlib import Path

import pytest

import manyhands as mh
from manyhands.testing.checks import LIMIT, wait_for
from manyhands.testing.work import Gate
from tests.local.processes import count_cpu_seconds, list_family

SPAN = 1.0
NOT_SPINNING = 0.2  # seconds of processor time within `SPAN`; one process that spins uses all of it
"""Seconds of idling that are measured: idling is the work under test here."""

ALLOWED = 0.01
"""Seconds of processor time that all processes together may use in that span."""


def measure_idling(wait: threading.Event, session: mh.Session) -> float:
    # Other libraries may have left processes of theirs to this one.
    template = session._engine.staff.template.pid  # type: ignore[attr-defined]
    family = [os.getpid(), *list_family(template)]
    assert len(family) == 4, "this process, the template and two workers"
    before = count_cpu_seconds(family)
    wait.wait(SPAN)
    return count_cpu_seconds(family) - before


def await_parking(session: mh.Session) -> None:
    """The background thread looks around for a moment before it sleeps."""
    driver = session._engine.driver  # type: ignore[attr-defined]
    wait_for(lambda: driver._is_parked, "the background thread sleeps")


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_an_idle_pool(start_method: str) -> None:
    with mh.Session("local", workers=2, start_method=start_method) as session:
        session.map(abs, range(1000))
        session.submit(abs, 1).result(LIMIT)
        await_parking(session)
        assert measure_idling(threading.Event(), session) < ALLOWED


def test_a_pool_that_was_never_used() -> None:
    with mh.Session("local", workers=2) as session:
        pids = session.map(lambda _: os.getpid(), range(4))  # they are up
        assert pids
        await_parking(session)
        assert measure_idling(threading.Event(), session) < ALLOWED


def test_waiting_for_a_call_that_waits(tmp_path: Path) -> None:
    """Two calls that sleep, one thread that waits for them: nobody spins."""
    with mh.Session("local", workers=2) as session:
        calls = [session.submit(time.sleep, SPAN + 0.5) for _ in range(2)]
        waiter = threading.Thread(target=mh.gather, args=(calls,))
        waiter.start()
        wait_for(lambda: all(call.running() for call in calls), "both calls run")
        assert measure_idling(threading.Event(), session) < NOT_SPINNING
        waiter.join(LIMIT)


def test_one_busy_worker_beside_an_idle_one() -> None:
    """A free core invites the leader to look instead of sleeping: for a moment, and not for ever."""
    with mh.Session("local", workers=2) as session:
        session.map(abs, range(100))
        call = session.submit(time.sleep, SPAN + 0.5)
        wait_for(call.running, "the call runs")
        waiter = threading.Thread(target=call.result)
        waiter.start()
        assert measure_idling(threading.Event(), session) < NOT_SPINNING
        waiter.join(LIMIT)


def test_calls_that_nobody_waits_for(tmp_path: Path) -> None:
    """The background thread drives, and sleeps while nothing comes; also with calls that wait in queues."""
    gate = Gate(tmp_path)
    with mh.Session("local", workers=2) as session:
        for _ in range(10):
            session.submit(time.sleep, SPAN + 1.5)
        wait_for(lambda: len(session._engine.stats().pids) == 2, "both workers are up")
        assert gate.count_entered() == 0
        assert measure_idling(threading.Event(), session) < NOT_SPINNING
        session.close(grace=0)
