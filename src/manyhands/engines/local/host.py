"""A worker that runs calls beside each other: of actors that share it, in threads, and of coroutines, on a loop.

Its main thread takes messages in and does nothing else, so it sees calls that have run too long.
"""

from __future__ import annotations

import os
import threading
import traceback
from contextvars import copy_context
from time import monotonic

from manyhands.core import place
from manyhands.core.exceptions import pack_exception
from manyhands.core.interruption import Interruptible
from manyhands.core.place import Place
from manyhands.core.stacks import see_stack
from manyhands.core.timeouts import GRACE_SECONDS, make_timeout_error
from manyhands.engines.local import messages as m
from manyhands.engines.local.worker import Worker, load_arguments
from manyhands.errors import CallInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable
    from typing import Any

    from manyhands.engines.local.worker import Extra

_IDLE_SECONDS = 5.0
"""How long a thread waits for another call before it ends."""


class _Running(Interruptible):
    """A call that is under way here; to the call it is the way to its session, see `manyhands.core.roles.Post`.

    Attributes
    ----------
    key, name, timeout
    started : float
        When, by `time.monotonic`.
    ends_at
        When its time is over, or when it has to have yielded.
    error
        What it ends with, whatever it raises.
    task
        A coroutine's.
    credit
        Items of its stream that may still come.
    """

    __slots__ = ("credit", "ends_at", "error", "host", "key", "name", "started", "task", "timeout")

    def __init__(self, host: Host, key: int, name: str, timeout: float | None, credit: int) -> None:
        super().__init__()
        self.host = host
        self.key = key
        self.name = name
        self.timeout = timeout
        self.started = monotonic()
        self.ends_at = None if timeout is None else self.started + timeout
        self.error: BaseException | None = None
        self.task: Task[Any] | None = None
        self.credit = credit

    def emit(self, item: Any) -> None:
        self.host.emit_of(self, item)

    def is_awaited(self) -> bool:
        """Whether `emit` does not wait."""
        return self.credit > 0 or self.is_interrupted

    def keep(self, actor: int, state: Any) -> None:
        self.host.keep(actor, state)


class Host(Worker):
    """See `manyhands.engines.local.worker.Worker`, which runs one call at a time."""

    def __init__(self, channel: Any, region: memoryview, settings: dict[str, Any]) -> None:
        super().__init__(channel, region, settings)
        self._running: dict[int, _Running] = {}
        self._guard = self.lock
        self._granted = threading.Condition(threading.Lock())
        self._jobs: list[tuple[Any, ...]] = []
        self._work = threading.Condition(threading.Lock())
        self._idle = 0
        self._loop: AbstractEventLoop | None = None

    # The main thread.

    def serve(self) -> None:
        while True:
            pause = self._check_times()
            if not self._channel.wait(3600 if pause is None else pause):
                continue
            try:
                received = self._channel.receive(wait=False)
            except EOFError:
                return
            except KeyboardInterrupt:
                continue
            if received is not None:
                with self._guard:
                    self.take(*received)

    def take(self, message: tuple[Any, ...], fds: tuple[int, ...]) -> None:
        kind = message[0]
        if kind == m.STOP:
            self._stop(message[1])
        elif kind == m.GRANT and message[1] in self._running:
            with self._granted:
                self._running[message[1]].credit += message[2]
                self._granted.notify_all()
        else:
            super().take(message, fds)

    def is_main_in_call(self) -> bool:
        return False

    def find_guard(self) -> Interruptible | None:
        here = place.here.get()
        running = here.post if here is not None else None
        if isinstance(running, _Running) and running.thread == threading.get_ident():
            return running
        return None

    def read_beside(self, seconds: float) -> bool:  # noqa: ARG002 - the main thread always reads
        return False

    def interrupt(self, _signal: int, _frame: object) -> None:
        """Calls are interrupted by messages here."""

    def give_back(self, _signal: int, _frame: object) -> None:
        """Every call that has come has begun."""

    def flush(self) -> None:
        """Results are sent at once here."""

    def _run(
        self,
        keys: list[int],
        function_keys: list[int],
        payloads: list[Any],
        uses: list[int],
        extras: dict[int, Extra] | None,
    ) -> None:
        for key, function_key, payload in zip(keys, function_keys, payloads, strict=True):
            timeout, environment, window = (extras or {}).get(key, (None, None, 0))
            if environment:
                os.environ.update(environment)
            opened = self._shelf.unbox(payload, uses) if uses else payload
            is_missing = function_key not in self._functions and function_key not in self._payloads
            if is_missing or not self._shelf.knows(opened):
                # The parent took the function or heap back, and we were quicker to take the call.
                lost = [function_key] if is_missing else []
                self._channel.send((m.GIVE_BACK, [key], lost, list(uses)))
                continue
            try:
                fn = self._functions.get(function_key) or self._load_function(function_key)
            except BaseException as error:
                self._send_end(key, self._pack_error(error), monotonic(), uses, failed=True)
                continue
            name = getattr(fn, "__qualname__", type(fn).__qualname__)
            running = self._running[key] = _Running(self, key, name, timeout, window)
            self._start(running, fn, opened, uses)

    def _start(
        self, running: _Running, fn: Callable[..., Any], payload: Any, uses: list[int]
    ) -> None:
        with self._work:
            self._jobs.append((running, fn, payload, uses))
            if len(self._jobs) <= self._idle:
                self._work.notify()
                return
        threading.Thread(target=self._serve_calls, daemon=True).start()

    # The threads.

    def _serve_calls(self) -> None:
        while True:
            with self._work:
                self._idle += 1
                self._work.wait_for(lambda: bool(self._jobs), _IDLE_SECONDS)
                self._idle -= 1
                if not self._jobs:
                    return
                job = self._jobs.pop(0)
            copy_context().run(self._run_call, *job)
            del job

    def _run_call(
        self, running: _Running, fn: Callable[..., Any], payload: Any, uses: list[int]
    ) -> None:
        place.here.set(Place(None, running.key, running))
        value: Any = None
        error: BaseException | None = None
        try:
            try:
                running.begin()
                self._check_cancelled(running.key)
                with running, self._guard:
                    args, kwargs = load_arguments(self._shelf, payload)
                value = fn(*args, **kwargs) if kwargs else fn(*args)
                del args, kwargs
            except BaseException as raised:
                error = raised
            finally:
                running.leave()
        except CallInterrupted as late:  # it came when the call itself was over
            running.leave()  # again, since it may not have got there; there is one interrupt and no more
            error = late
        if error is None and hasattr(value, "__await__"):
            self._await(running, value, uses)
            return
        self._end(running, value, error, uses)

    def _await(self, running: _Running, coroutine: Any, uses: list[int]) -> None:
        """Run a coroutine on the loop, in this context."""
        loop = self._get_loop()

        async def wait() -> None:
            value, error = None, None
            try:
                value = await coroutine
            except BaseException as raised:
                error = raised
            self._end(running, value, error, uses)

        def begin() -> None:
            task = running.task = loop.create_task(wait())
            if not running.set_stop(lambda: loop.call_soon_threadsafe(task.cancel)):
                loop.call_soon(task.cancel)  # once it has begun, or it would not end it

        loop.call_soon_threadsafe(begin, context=copy_context())

    def _get_loop(self) -> AbstractEventLoop:
        with self._guard:
            if self._loop is None:
                import asyncio

                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(_make_executor())
                threading.Thread(target=self._loop.run_forever, daemon=True).start()
            return self._loop

    # Ends.

    def _end(
        self, running: _Running, value: Any, error: BaseException | None, uses: list[int]
    ) -> None:
        if isinstance(error, SystemExit):
            self._exit(error)
        with self._guard:
            if self._running.pop(running.key, None) is None:
                return
            if running.error is not None:
                error = running.error
            if error is None and self.nested is not None and self.nested.join(running.key, value):
                return
            failed = error is not None
            try:
                result = self._shelf.dump(value) if error is None else self._pack_error(error)
            except BaseException as unpicklable:
                failed, result = True, self._pack_error(unpicklable)
            value = error = None
            self._send_end(running.key, result, running.started, uses, failed=failed)
            if failed and self.nested is not None:
                self.nested.end_badly(running.key)

    def _send_end(
        self, key: int, result: Any, started: float, uses: list[int], *, failed: bool
    ) -> None:
        outbox = self._outbox
        outbox.begin(alone=True)
        outbox.add(key, result, 0.0 if key not in self._running else monotonic() - started, failed)
        outbox.flush(self._shelf.end_message(uses))

    def emit_of(self, running: _Running, item: Any) -> None:
        """Send an item of a call's stream."""
        with self._granted:
            while running.credit <= 0:
                if running.is_interrupted:  # its coroutine has gone on without this thread
                    raise CallInterrupted("the stream was closed, or has run out of time")
                self._granted.wait(0.1)  # a thread that waits for long is not interrupted
            running.credit -= 1
        with self._guard:
            self._send_part(m.YIELD, running.key, item)

    # Time-outs and cancellation.

    def _check_times(self) -> float | None:
        """Interrupt calls whose time is over; seconds until the next one's is."""
        now = monotonic()
        pauses = []
        for running in list(self._running.values()):
            if running.ends_at is None:
                continue
            if running.ends_at > now:
                pauses.append(running.ends_at - now)
            elif running.is_interrupted:
                running.ends_at = None
                if running.thread or running.task is not None:
                    error = running.error or CallInterrupted()
                    self._channel.send((m.STUCK, running.key, pack_exception(error)))
            else:
                assert running.timeout is not None
                ran = now - running.started
                running.error = make_timeout_error(
                    running.name, running.key, running.timeout, ran, self._describe_stack(running)
                )
                self._interrupt(running)
                pauses.append(GRACE_SECONDS)
        return min(pauses, default=None)

    def _stop(self, key: int) -> None:
        running = self._running.get(key)
        if running is None:
            super()._stop(key)
            return
        running.error = CallInterrupted("the call was cancelled")
        self._interrupt(running)

    def _interrupt(self, running: _Running) -> None:
        if not running.is_interrupted:
            running.ends_at = monotonic() + GRACE_SECONDS
            running.interrupt()
            if self.nested is not None:
                self.nested.rouse()

    def _describe_stack(self, running: _Running) -> str:
        if running.thread:
            return see_stack(running.thread)
        return _format_awaits(running.task.get_coro()) if running.task is not None else ""


def _format_awaits(coroutine: Any) -> str:
    """Where a coroutine stands, and those that it waits for, the innermost last."""
    lines: list[str] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            lines += traceback.format_stack(frame, limit=1)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return "".join(lines)


def _make_executor() -> Any:
    """The pool of threads that an event loop has, but for what streams yield.

    That waits as long as nobody takes it, and a few such streams would fill the pool for good.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    class Executor(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            post = getattr(args[0], "__self__", None) if args else None
            if not isinstance(post, _Running):
                return super().submit(fn, *args, **kwargs)
            future: Future[Any] = Future()
            future.set_running_or_notify_cancel()

            def fulfil() -> None:
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

            if post.is_awaited():
                fulfil()
            else:
                threading.Thread(target=fulfil, daemon=True).start()
            return future

    return Executor()
