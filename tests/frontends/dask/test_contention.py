"""The report says where threads were the wrong place."""

import threading
import time
from typing import Any

import dask
from dask import delayed

import manyhands as mh


def compute_long(_: int) -> None:
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        sum(range(1000))


def wait_long(_: int) -> None:
    threading.Event().wait(0.5)


def compute_and_look(session: mh.Session, fn: Any) -> bool:
    """Whether the report hints at workers after a computation."""
    dask.compute(*[delayed(fn)(n) for n in range(4)], on="threads")
    return "on='workers'" in str(session.report())


def test_the_report_hints_at_workers() -> None:
    """Where other programs have the cores, as here while tests run, it may take more than one computation to see."""
    with mh.Session("local", workers=2) as session:
        assert any(compute_and_look(session, compute_long) for _ in range(20))


def test_the_report_does_not_hint_where_threads_wait() -> None:
    with mh.Session("local", workers=2) as session:
        assert not compute_and_look(session, wait_long)
