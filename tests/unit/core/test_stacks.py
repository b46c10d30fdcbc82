"""Where a thread stands, as text."""

import threading

from manyhands.core.stacks import format_traceback, see_stack
from manyhands.errors import CallInterrupted

LONG = 30.0


def test_a_threads_stack_can_be_seen() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def wait_long() -> None:
        begun.set()
        assert may_end.wait(LONG)

    thread = threading.Thread(target=wait_long, daemon=True)
    thread.start()
    assert begun.wait(LONG)
    stack = see_stack(thread.ident or 0)
    may_end.set()
    thread.join()
    assert "in wait_long" in stack
    assert "_bootstrap" not in stack  # how a thread begins tells nothing of the call


def test_a_thread_that_is_gone_has_none() -> None:
    assert see_stack(0) == ""


def test_a_traceback_tells_where_the_interrupt_struck() -> None:
    def clean_up() -> None:
        try:
            raise CallInterrupted
        finally:
            raise OSError

    try:
        clean_up()
    except OSError as error:
        text = format_traceback(error)
    assert "raise CallInterrupted" in text
    assert "raise OSError" not in text
    assert format_traceback(None) == ""
