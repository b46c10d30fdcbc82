"""A worker that runs calls beside each other, as `engines.local.host` has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyhands.core.timeouts import GRACE_SECONDS, make_timeout_error
from manyhands.engines.local import messages as m
from manyhands.errors import CallInterrupted
from tests.simulation.outside import here, pack_error
from tests.simulation.performance import Scene, perform
from tests.simulation.worker import SimulatedWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.simulation.processes import SimulatedProcess
    from tests.simulation.scripts import Script
    from tests.simulation.world import World

    Steps = Generator[None, None, Any]

_INFINITY = float("inf")

_HOLD_SECONDS = 0.001
_ATTENTIVE_SECONDS = 0.005


class _Thread:
    """A thread, or a coroutine on the loop, that is at a call.

    Attributes
    ----------
    until, is_ready
        When it goes on: at a time, or when something holds.
    is_started, is_over
        Whether it has begun the call, and whether it is through with that.
    waits
        How many waits it is in.
    is_struck
        Whether an interrupt waits for its next step.
    """

    __slots__ = (
        "credit",
        "ends_at",
        "error",
        "is_deaf",
        "is_over",
        "is_ready",
        "is_started",
        "is_struck",
        "key",
        "script",
        "started",
        "steps",
        "timeout",
        "until",
        "waits",
        "was_interrupted",
    )

    def __init__(
        self, key: int, script: Script, now: float, timeout: float | None, credit: int
    ) -> None:
        self.key = key
        self.script = script
        self.timeout = timeout
        self.started = now
        self.ends_at = _INFINITY if timeout is None else now + timeout
        self.credit = credit
        self.until = 0.0
        self.waits = 0
        self.is_ready: Callable[[], bool] | None = None
        self.is_started = False
        self.is_over = False
        self.is_struck = False
        self.is_deaf = False
        self.was_interrupted = False
        self.error: BaseException | None = None
        self.steps: Steps | None = None

    def is_enabled(self, now: float) -> bool:
        """Whether it has a step to make."""
        if self.is_struck and not self.is_deaf:
            return True
        return self.until <= now or (self.is_ready is not None and self.is_ready())


class SimulatedHost(SimulatedWorker):
    """Its main thread takes messages in; each call has a thread of its own."""

    def __init__(self, world: World, process: SimulatedProcess) -> None:
        super().__init__(world, process)
        self._threads: list[_Thread] = []
        self._at_call: dict[int, _Thread] = {}
        self._thread: _Thread | None = None
        self._attentive_until = 0.0  # the main thread looks again and again for what is held back
        self._held_until = 0.0
        self._is_paused = False

    # Steps.

    def is_enabled(self) -> bool:
        """Whether the main thread or another has a step to make."""
        if self.process.is_killed or self._is_main_enabled():
            return True
        now = self.world.now
        return any(thread.is_enabled(now) for thread in self._threads)

    def _is_main_enabled(self) -> bool:
        self.signals.clear()  # none of them is for a host
        if self.until <= self.world.now:
            return True
        return self.wants_message and (bool(self.unread) or not self.process.channel.is_open)

    def find_due(self) -> float:
        """When one of its threads goes on by itself."""
        return min([self.until, *(thread.until for thread in self._threads)])

    def _step(self) -> None:
        now = self.world.now
        enabled = [thread for thread in self._threads if thread.is_enabled(now)]
        if not enabled or (self._is_main_enabled() and self.world.toss(0.5)):
            self.wants_message = False
            self.until = 0.0
            next(self._main)
            return
        thread = enabled[self.world.pick(len(enabled))]
        self._go_on(thread)

    def _go_on(self, thread: _Thread) -> None:
        assert thread.steps is not None
        self._thread = thread
        here.key = thread.key
        thread.until = 0.0
        thread.is_ready = None
        try:
            if thread.is_struck and not thread.is_deaf:
                thread.is_struck = False
                self.world.tell(thread.script, "is interrupted in", self)
                thread.steps.throw(
                    CallInterrupted("the call was cancelled, or has run out of time")
                )
            else:
                next(thread.steps)
        except StopIteration:
            self._threads.remove(thread)
        finally:
            self._thread = None
            here.key = 0

    def sleep(self, until: float = _INFINITY, *, for_message: bool = False) -> None:
        """Before a ``yield``: what the thread whose turn it is waits for."""
        if self._thread is None:
            self.until = until
            self.wants_message = for_message
        else:
            self._thread.until = until

    def set_deaf(self, value: bool) -> None:
        """The thread whose turn it is begins, or ends, what lets no interrupt through."""
        if self._thread is not None:  # else it ends with its process
            self._thread.is_deaf = value

    def end(self) -> None:
        """The process is gone, with its threads."""
        for thread in self._threads:
            if thread is not self._thread and thread.steps is not None:
                thread.steps.close()
        super().end()

    # The main thread.

    def serve(self) -> Steps:
        """What the main thread does."""
        yield
        self.send((m.READY, None))
        while True:
            pause = self._check_times()
            if self._results and self.world.now >= self._held_until:
                self.flush()
            if self.unread:
                self._attentive_until = self.world.now + _ATTENTIVE_SECONDS
                yield from self.take(self.unread.popleft())
                yield
                continue
            if not self.process.channel.is_open:
                return
            self.sleep(min(pause, self._held_until) if self._results else pause, for_message=True)
            yield

    def take(self, message: tuple[Any, ...]) -> Steps:
        """Do what a message asks for."""
        kind = message[0]
        if kind == m.STOP:
            yield from self.stop(message[1])
        elif kind == m.GRANT and message[1] in self._at_call:
            self._at_call[message[1]].credit += message[2]
        else:
            yield from super().take(message)

    def flush(self) -> None:
        """Send the results that are held back."""
        results, self._results = self._results, []
        if results:
            keys, payloads, seconds, has_failed = map(list, zip(*results, strict=True))
            failed = [index for index, one in enumerate(has_failed) if one]
            self.send((m.RESULTS, keys, payloads, seconds, failed, sum(seconds), False, [], []))

    def run(
        self, keys: list[int], functions: list[int], payloads: list[bytes], extras: dict[int, Any]
    ) -> Steps:
        """Begin the calls of a message: in threads; coroutines on the loop, when all of it has been taken up."""
        yield
        for key, function, payload in zip(keys, functions, payloads, strict=True):
            if function not in self.functions:
                self.send((m.GIVE_BACK, [key], [function], []))
                continue
            fn = self.functions[function]
            timeout, environment, window = extras.get(key) or (None, None, 0)
            script = self.world.open_call(fn, payload)
            thread = _Thread(key, script, self.world.now, timeout, window)
            thread.steps = self._serve_thread(thread, fn, payload, environment)
            self._threads.append(thread)
            self._at_call[key] = thread
        self._tell_pause()

    def _serve_thread(self, thread: _Thread, fn: Any, payload: bytes, environment: Any) -> Steps:
        yield from self._run_call(thread, fn, payload, environment)
        yield
        self._rest_thread(thread)

    def _run_call(self, thread: _Thread, fn: Any, payload: bytes, environment: Any) -> Steps:
        script = thread.script
        is_coroutine = script.plan.task.is_async
        scene = Scene(self, script)
        value: Any = None
        error: BaseException | None = None
        yield
        try:
            # A coroutine begins all the same, and is cancelled where it first waits.
            if thread.was_interrupted and not is_coroutine:
                raise CallInterrupted("the call has run out of time")
            if thread.key in self.process.forbidden:
                raise CallInterrupted("the call was cancelled")
            thread.is_started = True
            thread.is_struck = thread.was_interrupted
            self.world.account.begin(self, thread.key, script, environment)
            value = yield from perform(scene, fn, payload)
            yield from self.drop_streams(scene)
            if type(value) is not str and not is_coroutine:
                value = yield from self._await_future(value)
        except AssertionError:
            raise
        except (Exception, CallInterrupted) as raised:
            error = raised
            scene.forget_streams()
        thread.is_struck = False
        thread.is_deaf = True  # from here on an interrupt comes too late
        thread.is_over = not is_coroutine
        yield
        del self._at_call[thread.key]
        self._tell_pause()
        error = thread.error or error
        self.world.account.end_run(self, script, value if error is None else error)
        if error is None and self.nested is not None and self.nested.join(thread.key, value):
            return
        result = value.encode() if error is None else pack_error(error)
        self._add(thread.key, result, fn, failed=error is not None)
        if error is not None:
            yield from self.end_badly(thread.key)

    def _await_future(self, future: Any) -> Steps:
        """A call in a thread has returned a future: the loop awaits it."""
        yield from self.wait(future.done, None)
        return future.result()

    def _add(self, key: int, result: bytes, fn: Any, *, failed: bool) -> None:
        """Send a result, now or with others."""
        now = self.world.now
        if not self._results:
            self._held_until = now + _HOLD_SECONDS
            self.until = min(self.until, self._held_until)
        super()._add(key, result, fn, failed=failed)
        if not self._at_call or now >= self._attentive_until:
            self.flush()

    def _rest_thread(self, thread: _Thread) -> None:
        """A thread is through with a call: it sends what is held back, unless another call waits for it."""
        waits = [one for one in self._at_call.values() if not one.is_started]
        if thread.script.plan.task.is_async or not waits:
            self.flush()

    def _check_times(self) -> float:
        now = self.world.now
        again = _INFINITY
        for thread in self._at_call.values():
            if thread.ends_at > now:
                again = min(again, thread.ends_at)
            elif thread.was_interrupted:
                thread.ends_at = _INFINITY
                if thread.is_started and not thread.is_over:
                    error = thread.error or CallInterrupted()
                    self.send((m.STUCK, thread.key, pack_error(error)))
            else:
                assert thread.timeout is not None
                ran = now - thread.started
                thread.error = make_timeout_error("f", thread.key, thread.timeout, ran, "")
                self.world.account.note_timeout(thread.key)
                self._strike(thread)
                again = min(again, thread.ends_at)
        return again

    def stop(self, key: int) -> Steps:
        """A call is not wanted any more."""
        thread = self._at_call.get(key)
        if thread is None:
            yield from super().stop(key)
            return
        thread.error = CallInterrupted("the call was cancelled")
        self._strike(thread)

    def _strike(self, thread: _Thread) -> None:
        if not thread.was_interrupted:
            thread.was_interrupted = True
            thread.ends_at = self.world.now + GRACE_SECONDS
            thread.is_struck = thread.is_started

    # What calls use.

    def emit(self, item: bytes) -> Steps:
        """Send one item of a stream, after a wait while there are enough."""
        thread = self._thread
        assert thread is not None
        if thread.credit <= 0:
            yield from self.wait(lambda: thread.credit > 0, None)
        thread.credit -= 1
        self.send((m.YIELD, thread.key, item, []))
        yield

    def _sleep_until(self, is_ready: Callable[[], bool], until: float = _INFINITY) -> None:
        assert self._thread is not None
        self._thread.until = until
        self._thread.is_ready = is_ready

    def wait(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> Steps:
        """Wait until `is_done`; False where time is over first."""
        deadline = _INFINITY if timeout is None else self.world.now + timeout
        thread = self._thread
        assert thread is not None
        self._count_wait(thread, 1)
        try:
            while not is_done():
                if self.world.now >= deadline:
                    return is_done()
                self._sleep_until(is_done, deadline)
                yield
        finally:
            self._count_wait(thread, -1)
        return True

    def _count_wait(self, thread: _Thread, change: int) -> None:
        thread.waits += change
        self._tell_pause()

    def _tell_pause(self) -> None:
        """Tell the parent where all calls that are under way wait, and where no longer all do."""
        if not self.settings["has_cpus"]:
            return
        is_paused = bool(self._at_call) and all(one.waits for one in self._at_call.values())
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            self.send((m.PAUSE, is_paused))

    def await_answer(self, is_there: Callable[[], bool], change: Any = None) -> Steps:
        """Wait for an answer of the parent."""
        while not is_there():
            if self._thread is not None:
                self._sleep_until(is_there)
                yield
                continue
            while not self.unread:
                self.sleep(for_message=True)
                yield
            yield from self.take_beside(self.unread.popleft())
