"""An exception that one thread has raised in another."""

import threading

from manyhands.core.interruption import let_interrupt_come, send_interrupt
from manyhands.errors import CallInterrupted

LONG = 30.0


def test_an_interrupt_strikes_a_thread_that_runs() -> None:
    begun = threading.Event()
    struck: list[str] = []

    def spin() -> None:
        try:
            begun.set()
            while True:
                pass
        except CallInterrupted:
            struck.append("yes")

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    assert begun.wait(LONG)
    send_interrupt(thread.ident or 0)
    thread.join(LONG)
    assert struck == ["yes"]


def test_what_is_on_its_way_comes_at_the_latest_when_it_is_let() -> None:
    may_go, begun = threading.Lock(), threading.Event()
    told: list[str] = []

    def wait() -> None:
        try:
            begun.set()
            with may_go:  # a wait in C: nothing is raised in it
                let_interrupt_come()
            told.append("it did not come")
        except CallInterrupted:
            told.append("it came")
        let_interrupt_come()
        told.append("once")

    thread = threading.Thread(target=wait, daemon=True)
    with may_go:
        thread.start()
        assert begun.wait(LONG)
        send_interrupt(thread.ident or 0)
    thread.join(LONG)
    assert told == ["it came", "once"]


def test_a_thread_that_is_gone_is_left_alone() -> None:
    send_interrupt(0)
    let_interrupt_come()
