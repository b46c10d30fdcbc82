"""Calls that use the package inside a worker, and what may come between."""

import manyhands as mh
from manyhands.core import place
from manyhands.errors import CallInterrupted
from manyhands.testing.checks import LIMIT


def interrupt_the_opening() -> tuple[bool, str, int]:
    """Be interrupted while the first nested call opens the worker's session; was it, and what comes of the next."""
    from manyhands.engines.local.nested import NestedEngine
    from manyhands.session import get_session

    start = NestedEngine.start

    def be_interrupted(engine: NestedEngine, *args: object) -> None:
        start(engine, *args)  # type: ignore[arg-type]
        place.link.waits.interrupt()

    NestedEngine.start = be_interrupted  # type: ignore[method-assign, assignment]
    was_interrupted = False
    try:
        mh.submit(abs, -1)
    except CallInterrupted:
        was_interrupted = True
    finally:
        NestedEngine.start = start  # type: ignore[method-assign]
    return was_interrupted, get_session().engine, mh.submit(abs, -2).result(LIMIT)


def test_a_call_that_is_interrupted_as_it_opens_its_session_leaves_it_whole() -> None:
    with mh.Session("local", workers=1) as session:
        found = session.submit(interrupt_the_opening).result(LIMIT)
        assert found == (True, "nested", 2)
        assert session.submit(interrupt_the_opening).result(LIMIT)[1:] == ("nested", 2)
