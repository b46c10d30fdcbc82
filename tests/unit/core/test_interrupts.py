"""Ctrl-C is held back until a step is whole."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from manyhands.core.interrupts import HeldInterrupts


class Recorder:
    """A program's own handler."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, number: int, frame: Any) -> None:
        self.calls.append(number)


@pytest.fixture
def handler() -> Iterator[Recorder]:
    recorder = Recorder()
    before = signal.signal(signal.SIGINT, recorder)
    yield recorder
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_happens_at_the_release(handler: Recorder) -> None:
    held = HeldInterrupts()
    assert held.hold()
    signal.raise_signal(signal.SIGINT)
    assert handler.calls == []
    held.release()
    assert handler.calls == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is handler


def test_several_interrupts_are_one(handler: Recorder) -> None:
    held = HeldInterrupts()
    held.hold()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    held.release()
    assert handler.calls == [signal.SIGINT]


def test_without_an_interrupt_nothing_happens(handler: Recorder) -> None:
    held = HeldInterrupts()
    held.hold()
    held.release()
    assert handler.calls == []
    signal.raise_signal(signal.SIGINT)
    assert handler.calls == [signal.SIGINT]


def test_an_interrupt_is_told_once(handler: Recorder) -> None:
    held = HeldInterrupts()
    held.hold()
    signal.raise_signal(signal.SIGINT)
    held.release()
    held.hold()
    held.release()
    assert handler.calls == [signal.SIGINT]


def test_a_wait_is_interrupted_at_once(handler: Recorder) -> None:
    held = HeldInterrupts()
    held.hold()
    held.begin_wait()
    signal.raise_signal(signal.SIGINT)
    assert handler.calls == [signal.SIGINT]
    held.end_wait()
    held.release()
    assert handler.calls == [signal.SIGINT]


def test_what_came_before_a_wait_happens_as_it_begins(handler: Recorder) -> None:
    held = HeldInterrupts()
    held.hold()
    signal.raise_signal(signal.SIGINT)
    held.begin_wait()
    assert handler.calls == [signal.SIGINT]
    held.end_wait()
    signal.raise_signal(signal.SIGINT)
    assert handler.calls == [signal.SIGINT]  # it is held back again
    held.release()
    assert handler.calls == [signal.SIGINT] * 2


def test_a_wait_of_another_thread_lets_nothing_happen_here(handler: Recorder) -> None:
    held = HeldInterrupts()
    held.hold()
    thread = threading.Thread(target=held.begin_wait)
    thread.start()
    thread.join()
    signal.raise_signal(signal.SIGINT)
    assert handler.calls == []
    held.release()
    assert handler.calls == [signal.SIGINT]


def test_pythons_own_handler_raises_at_the_release() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        held = HeldInterrupts()
        held.hold()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            held.release()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_holding_again_inside_is_nothing(handler: Recorder) -> None:
    held = HeldInterrupts()
    assert held.hold()
    assert not held.hold()
    held.release()
    assert signal.getsignal(signal.SIGINT) is handler


def test_two_holders_leave_the_programs_handler(handler: Recorder) -> None:
    outer, inner = HeldInterrupts(), HeldInterrupts()
    assert outer.hold()
    assert inner.hold()
    signal.raise_signal(signal.SIGINT)
    inner.release()
    assert handler.calls == []
    outer.release()
    assert handler.calls == [signal.SIGINT]


@pytest.mark.parametrize("setting", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_is_no_function_is_left_alone(handler: Recorder, setting: Any) -> None:
    signal.signal(signal.SIGINT, setting)
    assert not HeldInterrupts().hold()
    assert signal.getsignal(signal.SIGINT) is setting


def test_other_threads_hold_nothing(handler: Recorder) -> None:
    held = HeldInterrupts()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(held.hold()))
    thread.start()
    thread.join()
    assert answers == [False]
    assert signal.getsignal(signal.SIGINT) is handler
