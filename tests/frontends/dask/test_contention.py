"""The report says where threads were the wrong place."""

import threading
import time
from typing import Any

import dask
import pytest
from dask import delayed

import manyhands as mh


def compute_long(_: int) -> None:
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        sum(range(1000))


def wait_long(_: int) -> None:
    threading.Event().wait(0.5)


@pytest.mark.parametrize(("fn", "is_told"), [(compute_long, True), (wait_long, False)])
def test_the_report_hints_at_workers(fn: Any, is_told: bool) -> None:
    with mh.Session("local", workers=2) as session:
        dask.compute(*[delayed(fn)(n) for n in range(4)], on="threads")
        assert ("on='workers'" in str(session.report())) is is_told
