"""What calls print, log and warn reaches the caller's streams."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _catch_streams() -> Iterator[tuple[StringIO, StringIO]]:
    """The caller's standard output and error, as a notebook or a test runner replaces them."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        yield out, err


@case()
def printed_lines_arrive_before_the_result(open_session: OpenSession) -> None:
    """What a call printed is on the caller's stream when its result is there."""
    with open_session(workers=2) as session, _catch_streams() as (out, err):
        for number in range(20):
            session.submit(work.say, f"line {number}").result(LIMIT)
            check_equal(out.getvalue(), "".join(f"line {n}\n" for n in range(number + 1)))
        session.submit(work.say, "to the other", "stderr").result(LIMIT)
        check_equal(err.getvalue(), "to the other\n")


@case()
def lines_stay_whole(open_session: OpenSession) -> None:
    """Lines of several workers do not run into each other, and none is lost."""
    texts = [f"{x}:" + "ä" * (x % 90) for x in range(300)]
    with open_session(workers=2) as session, _catch_streams() as (out, _):
        session.map(work.say, texts)
        mh.gather([session.submit(work.say, text) for text in texts], timeout=LIMIT)
        check_equal(sorted(out.getvalue().splitlines()), sorted(texts * 2))


@case()
def a_long_text_arrives_whole(open_session: OpenSession) -> None:
    """More than a pipe holds arrives, in order."""
    text = "\n".join(f"line {number}" for number in range(50_000))
    with open_session(workers=2) as session, _catch_streams() as (out, _):
        session.submit(work.say, text).result(LIMIT)
        check(out.getvalue() == text + "\n", f"{len(out.getvalue())} of {len(text) + 1} characters")


@case()
def log_records_reach_the_callers_handlers(open_session: OpenSession) -> None:
    """What a call logs is handled by the caller's logging, with its level, and only from the level on."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger = logging.getLogger("manyhands-conformance.part")
    parent = logging.getLogger("manyhands-conformance")
    handler = Keep()
    parent.addHandler(handler)
    parent.propagate = False
    parent.setLevel(logging.INFO)
    try:
        with open_session(workers=2) as session:
            log = partial(work.log, logger.name)
            session.submit(log, logging.DEBUG, "too little").result(LIMIT)
            session.submit(log, logging.INFO, "hello").result(LIMIT)
            session.submit(log, logging.ERROR, "trouble").result(LIMIT)
    finally:
        parent.removeHandler(handler)
        parent.setLevel(logging.NOTSET)
        parent.propagate = True
    found = [(record.levelname, record.getMessage()) for record in records]
    check_equal(found, [("INFO", "hello, said worker"), ("ERROR", "trouble, said worker")])


@case()
def warnings_are_seen(open_session: OpenSession) -> None:
    """A warning in a call is shown, or caught where the caller catches warnings in its own process."""
    with (
        warnings.catch_warnings(record=True) as caught,
        open_session(workers=1) as session,
        _catch_streams() as (_, err),
    ):
        warnings.simplefilter("always")
        session.submit(work.warn, "mind the gap").result(LIMIT)
        shown = err.getvalue() + "".join(str(warning.message) for warning in caught)
        check("mind the gap" in shown, f"shown: {shown!r}")
