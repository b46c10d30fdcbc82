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


class _Thread:
    """A thread, or a coroutine on the loop, that is at a call.

    Attributes
    ----------
    until, is_ready
        When it goes on: at a time, or when something holds.
    is_struck
        Whether an interrupt waits for its next step.
    """

    __slots__ = (
        "credit",
        "ends_at",
        "error",
        "is_deaf",
        "is_ready",
        "is_started",
        "is_struck",
        "key",
        "script",
        "started",
        "steps",
        "timeout",
        "until",
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
        self.is_ready: Callable[[], bool] | None = None
        self.is_started = False
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
            if not self.unread:
                if not self.process.channel.is_open:
                    return
                self.sleep(pause, for_message=True)
                yield
                continue
            yield from self.take(self.unread.popleft())
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
        """Send what has ended: each result by itself."""
        results, self._results = self._results, []
        for key, payload, seconds, failed in results:
            at = [0] if failed else []
            self.send((m.RESULTS, [key], [payload], [seconds], at, seconds, False, [], []))

    def run(
        self, keys: list[int], functions: list[int], payloads: list[bytes], extras: dict[int, Any]
    ) -> Steps:
        """Begin the calls of a message, each in a thread."""
        yield
        for key, function, payload in zip(keys, functions, payloads, strict=True):
            if function not in self.functions:
                self.send((m.GIVE_BACK, [key], [function], []))
                continue
            fn = self.functions[function]
            timeout, environment, window = extras.get(key) or (None, None, 0)
            script = self.world.open_call(fn, payload)
            thread = _Thread(key, script, self.world.now, timeout, window)
            thread.steps = self._run_call(thread, fn, payload, environment)
            self._threads.append(thread)
            self._at_call[key] = thread

    def _run_call(self, thread: _Thread, fn: Any, payload: bytes, environment: Any) -> Steps:
        script = thread.script
        scene = Scene(self, script)
        value: Any = None
        error: BaseException | None = None
        yield
        try:
            if thread.was_interrupted or thread.key in self.process.forbidden:
                raise CallInterrupted("the call was cancelled")
            thread.is_started = True
            self.world.account.begin(self, thread.key, script, environment)
            value = yield from perform(scene, fn, payload)
            yield from self.drop_streams(scene)
        except AssertionError:
            raise
        except (Exception, CallInterrupted) as raised:
            error = raised
            scene.forget_streams()
        thread.is_struck = False
        thread.is_deaf = True  # from here on an interrupt comes too late
        yield
        del self._at_call[thread.key]
        error = thread.error or error
        self.world.account.end_run(self, script, value if error is None else error)
        if error is None and self.nested is not None and self.nested.join(thread.key, value):
            return
        result = value.encode() if error is None else pack_error(error)
        self._add(thread.key, result, fn, failed=error is not None)
        self.flush()
        if error is not None:
            yield from self.end_badly(thread.key)

    def _check_times(self) -> float:
        now = self.world.now
        again = _INFINITY
        for thread in self._at_call.values():
            if thread.ends_at > now:
                again = min(again, thread.ends_at)
            elif thread.was_interrupted:
                thread.ends_at = _INFINITY
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
        thread.was_interrupted = True
        thread.ends_at = self.world.now + GRACE_SECONDS
        thread.is_struck = thread.is_started

    # What calls use.

    def emit(self, item: bytes) -> Steps:
        """Send one item of a stream, after a wait while there are enough."""
        thread = self._thread
        assert thread is not None
        while thread.credit <= 0:
            self._sleep_until(lambda: thread.credit > 0)
            yield
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
        while not is_done():
            if self.world.now >= deadline:
                return is_done()
            self._sleep_until(is_done, deadline)
            yield
        return True

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
