"""A worker that runs calls beside each other: of actors that share it, in threads, and of coroutines, on a loop.

Its main thread takes messages in and does nothing else, so it sees calls that have run too long.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import traceback
from contextvars import copy_context
from time import monotonic

from manyhands.core import place
from manyhands.core.exceptions import pack_exception
from manyhands.core.place import Place
from manyhands.core.timeouts import GRACE_SECONDS, make_timeout_error
from manyhands.engines.local import messages as m
from manyhands.engines.local.worker import Worker, load_arguments
from manyhands.errors import CallInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from manyhands.engines.local.worker import Extra

_IDLE_SECONDS = 5.0
"""How long a thread waits for another call before it ends."""


class _Running:
    """A call that is under way here.

    Attributes
    ----------
    thread
        The thread that it is in; None for a coroutine.
    task
        A coroutine's.
    ends_at
        When its time is over, or when it has to have yielded.
    was_interrupted
    credit
        Items of its stream that may still come.
    """

    __slots__ = (
        "credit",
        "ends_at",
        "error",
        "key",
        "lock",
        "name",
        "started",
        "task",
        "thread",
        "timeout",
        "was_interrupted",
    )

    def __init__(self, key: int, name: str, timeout: float | None, credit: int) -> None:
        self.key = key
        self.name = name
        self.timeout = timeout
        self.started = monotonic()
        self.ends_at = None if timeout is None else self.started + timeout
        self.thread: int | None = None
        self.task: Task[Any] | None = None
        self.was_interrupted = False
        self.error: BaseException | None = None
        self.credit = credit
        self.lock = threading.Lock()  # while it is held, the call does not end


class _Post:
    """See `manyhands.core.roles.Post`."""

    def __init__(self, host: Host, running: _Running) -> None:
        self._host = host
        self._running = running

    def emit(self, item: Any) -> None:
        self._host.emit_of(self._running, item)

    def is_awaited(self) -> bool:
        """Whether `emit` does not wait."""
        return self._running.credit > 0 or self._running.was_interrupted

    def keep(self, actor: int, state: Any) -> None:
        self._host.keep(actor, state)


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
            running = self._running[key] = _Running(key, name, timeout, window)
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
        place.here.set(Place(None, running.key, _Post(self, running)))
        with running.lock:
            if not (running.was_interrupted or self._is_cancelled(running.key)):
                running.thread = threading.get_ident()
        if running.thread is None:  # it was cancelled before it had begun
            self._end(running, None, CallInterrupted(), uses)
            return
        value: Any = None
        error: BaseException | None = None
        try:
            with self._guard:
                args, kwargs = load_arguments(self._shelf, payload)
            value = fn(*args, **kwargs) if kwargs else fn(*args)
            del args, kwargs
        except BaseException as raised:
            error = raised
        with running.lock:  # from here on an interrupt comes too late
            running.thread = None
        _forget_interrupt()
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
            with running.lock:
                running.task = loop.create_task(wait())
                is_late = running.was_interrupted
            if is_late:
                loop.call_soon(running.task.cancel)  # once it has begun, or it would not end it

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
                if running.was_interrupted:  # its coroutine has gone on without this thread
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
            elif running.was_interrupted:
                running.ends_at = None
                if running.thread is not None or running.task is not None:
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
        with running.lock:
            running.was_interrupted = True
            running.ends_at = monotonic() + GRACE_SECONDS
            if running.task is not None:
                assert self._loop is not None
                self._loop.call_soon_threadsafe(running.task.cancel)
            elif running.thread is not None:
                _interrupt_thread(running.thread, CallInterrupted)

    def _describe_stack(self, running: _Running) -> str:
        frame: FrameType | None = None
        if running.thread is not None:
            frame = sys._current_frames().get(running.thread)
        elif running.task is not None:
            return _format_awaits(running.task.get_coro())
        return "".join(traceback.format_stack(frame)) if frame is not None else ""


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
            if not isinstance(post, _Post):
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


def _interrupt_thread(thread: int, kind: type[BaseException] | None) -> None:
    """Raise `kind` in a thread at its next step in Python; with None, take back what was not raised yet."""
    argument = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), argument)


def _forget_interrupt() -> None:
    """The call is over: an interrupt that has not struck yet must not strike the next one."""
    _interrupt_thread(threading.get_ident(), None)
