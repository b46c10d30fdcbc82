"""Who drives the engine: one thread at a time waits for the workers and takes in what they send.

A thread that waits for a result drives meanwhile, so a round trip needs no hand-over between threads. When
nobody waits, a background thread drives, and gives way as soon as somebody does. `Steps` is what is driven; the
driver knows nothing of calls.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from time import monotonic, perf_counter, sleep

from manyhands.core.interrupts import HeldInterrupts
from manyhands.engines.local.channel import LONGEST_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from manyhands.engines.local.steps import Steps

_TICK_SECONDS = 0.005
"""How often the background thread looks whether anybody else drives."""

_IDLE_TICKS = 40
"""Ticks without work after which it sleeps until it is called: idle workers cost nothing."""

_FOLLOW_SECONDS = 0.1
"""How long a thread that waits beside the driving one goes without looking for itself."""

_BURST_CALLS = 64
_BURST_SECONDS = 0.0005
"""In a burst of submissions calls are gathered, up to so many or so long, and sent together: a message that wakes
a worker costs as much as ten submissions. A wait for a result sends them at once."""


_SPIN_SECONDS = 0.00015
"""How long the leader looks for results before it sleeps, where a core is free for that."""


class Driver:
    """Lets one thread at a time take the lead.

    Parameters
    ----------
    steps
        What to drive.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake_fd, select.EPOLLIN)
        self._handlers[self._wake_fd] = self._take_wake
        self._is_woken = False

        self._lead = threading.Lock()
        self._leader: int | None = None
        self._interrupts = HeldInterrupts()
        self._holds = False  # whether the leader holds interrupts back
        self._progress = threading.Condition(threading.Lock())
        self._followers = 0
        self._submits = 0  # since the last step
        self._stepped_at = 0.0
        self._again: float | None = None  # seconds after which to dispatch though nothing has come
        self._requests: deque[tuple[Callable[[], None], list[BaseException | None]]] = deque()

        self._background: threading.Thread | None = None
        self._gate = threading.Semaphore(0)
        self._is_parked = False
        self._is_background_leading = False
        self._is_attended = False  # somebody waits by other means than `wait_until`
        self._is_active = False  # some caller has driven since the last tick
        self._is_closed = False

    # What is driven.

    def watch(self, fd: int, handle: Callable[[], None]) -> None:
        """Call `handle` whenever `fd` has something to read."""
        self._handlers[fd] = handle
        self._poll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; call before closing it."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    # What callers use.

    def nudge(self) -> None:
        """There is something new to send."""
        self._is_active = True
        self._submits += 1
        if self._submits < _BURST_CALLS and monotonic() - self._stepped_at < _BURST_SECONDS:
            if self._leader is not None and self._leader != threading.get_ident():
                self.wake()  # it may sleep for long
            if self._is_parked:
                self._gate.release()
            return
        if self._take_lead():
            try:
                self._step(0)
            finally:
                self._leave_lead()
        else:
            self.wake()
        if self._background is None:
            self._start_background()
        elif self._is_parked:
            self._gate.release()

    def run(self, action: Callable[[], None]) -> None:
        """Have the leader run `action`, and wait for that; without a leader the caller is it."""
        if self._leader == threading.get_ident():
            action()
        elif self._take_lead():
            try:
                action()
            finally:
                self._leave_lead()
        else:
            done: list[BaseException | None] = []
            self._requests.append((action, done))
            self.wake()
            self.wait_until(lambda: bool(done), None)
            if done[0] is not None:
                raise done[0]

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `is_done`, driving where nobody else does; False where `timeout` seconds passed first."""
        deadline = None if timeout is None else monotonic() + timeout
        while not is_done():
            if self._is_closed:  # whoever closed it ends all that was waited for in a moment
                self._follow(is_done, _TICK_SECONDS)
            elif self._leader == threading.get_ident():  # a callback that waits, inside a step
                return self._drive(is_done, deadline)
            elif self._take_lead():
                try:
                    if self._drive(is_done, deadline):
                        return True
                finally:
                    self._leave_lead()
            else:
                left = (
                    _FOLLOW_SECONDS
                    if deadline is None
                    else min(_FOLLOW_SECONDS, deadline - monotonic())
                )
                self._follow(is_done, left)
            if deadline is not None and monotonic() >= deadline:
                return is_done()
        return True

    def attend(self) -> None:
        """Drive in the background from now on, as long as there is work."""
        self._is_attended = True
        if self._background is None:
            self._start_background()
        self._gate.release()

    def rouse(self) -> None:
        """Something ended outside of the steps: have all that wait look again."""
        self.wake()
        if self._followers:
            with self._progress:
                self._progress.notify_all()

    def wake(self) -> None:
        """Have the leader look up from its wait."""
        if not self._is_woken and not self._is_closed:
            self._is_woken = True
            os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Stop the background thread. The caller drives no more."""
        # Not the other way round: who leads would be woken before there is anything to see, and sleep on.
        self._is_closed = True
        if self._wake_fd >= 0:
            os.eventfd_write(self._wake_fd, 1)
        self._gate.release()
        if self._background is not None and self._background is not threading.current_thread():
            self._background.join()
        if self._leader == threading.get_ident():
            self.abandon()
        else:
            with self._lead:  # whoever drives stops at the next look
                self.abandon()

    def abandon(self) -> None:
        """Give the descriptors back, without any word to anybody."""
        self._is_closed = True
        self._handlers.clear()
        self._poll.close()
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1

    # The lead.

    def _take_lead(self) -> bool:
        is_held = self._interrupts.hold()
        if self._lead.acquire(blocking=False):
            self._leader = threading.get_ident()
            self._holds = is_held
            return True
        if is_held:
            self._interrupts.release()
        return False

    def _leave_lead(self) -> None:
        is_held, self._holds = self._holds, False
        self._leader = None
        self._lead.release()
        if self._followers:
            with self._progress:
                self._progress.notify_all()
        if is_held:
            self._interrupts.release()

    def _follow(self, is_done: Callable[[], bool], seconds: float) -> None:
        """Wait beside the leader; ask the background thread to hand over."""
        self._followers += (
            1  # before the last look, so that the leader either sees us or we see the end
        )
        try:
            if self._is_background_leading or self._submits:
                self.wake()
            with self._progress:
                if not is_done() and (self._lead.locked() or self._is_closed):
                    self._progress.wait(max(0.0, seconds))
        finally:
            self._followers -= 1

    def _drive(self, is_done: Callable[[], bool], deadline: float | None) -> bool:
        self._is_active = True
        while not is_done():
            if self._is_closed:
                return is_done()
            left = None if deadline is None else max(0.0, deadline - monotonic())
            self._step(left)
            if left == 0:  # at least one look, also for those who come without time
                return is_done()
        return True

    def _step(self, timeout: float | None) -> None:
        """Send, wait for at most `timeout` seconds, take in, send, pass on."""
        steps = self._steps
        try:
            self._serve_requests()
            if self._submits:
                self._dispatch()
            if self._again is not None and (timeout is None or self._again < timeout):
                timeout = self._again
            for fd, _ in self._wait(timeout):
                handle = self._handlers.get(fd)
                if handle is not None:
                    handle()
            self._serve_requests()
            self._dispatch()
        except Exception as error:
            steps.give_up(error)
        steps.deliver()
        self._stepped_at = monotonic()
        if self._followers:
            with self._progress:
                self._progress.notify_all()

    def _dispatch(self) -> None:
        self._submits = 0
        self._again = self._steps.dispatch()

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """What has come, after at most `timeout` seconds."""
        try:
            self._interrupts.begin_wait()
            if timeout == 0:
                return self._poll.poll(0)
            nap = self._steps.estimate_slack()
            if nap and (timeout is None or nap < timeout):
                sleep(nap)
            elif self._steps.has_free_core() and (events := self._watch()):
                return events
            return self._poll.poll(None if timeout is None else min(timeout, LONGEST_SECONDS))
        finally:
            self._interrupts.end_wait()

    def _watch(self) -> list[tuple[int, int]]:
        """What has come within a moment, without sleeping: being woken takes 10 to 100 µs, more than a call."""
        poll = self._poll.poll
        end = perf_counter() + _SPIN_SECONDS
        while not (events := poll(0)) and perf_counter() < end:
            pass
        return events

    def _serve_requests(self) -> None:
        while self._requests:
            action, done = self._requests.popleft()
            try:
                action()
            except Exception as error:
                done.append(error)
            else:
                done.append(None)

    def _take_wake(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            pass
        # Not before that: a wake that came between the two would be read, and nobody could wake us any more.
        self._is_woken = False

    # The background thread.

    def _start_background(self) -> None:
        with self._progress:
            if self._background is None and not self._is_closed:
                thread = threading.Thread(
                    target=self._run_background, name="manyhands-driver", daemon=True
                )
                thread.start()
                self._background = thread

    def _run_background(self) -> None:
        idle_ticks = 0
        while not self._is_closed:
            if idle_ticks >= _IDLE_TICKS:
                self._is_parked = True
                again = self._steps.rest()
                is_called = self._steps.is_busy() or self._gate.acquire(timeout=again)
                self._is_parked = False
                if not is_called:
                    continue
                idle_ticks = 0
            self._gate.acquire(timeout=_TICK_SECONDS)
            is_active, self._is_active = self._is_active, False
            if not self._steps.is_busy():
                self._is_attended = False
                idle_ticks += 1
                continue
            idle_ticks = 0
            if (self._is_attended or not is_active) and not self._followers and self._take_lead():
                self._is_background_leading = True
                try:
                    self._drive(self._must_hand_over, None)
                finally:
                    self._is_background_leading = False
                    self._leave_lead()

    def _must_hand_over(self) -> bool:
        return bool(self._followers) or self._is_closed or not self._steps.is_busy()
