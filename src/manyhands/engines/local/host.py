"""A worker that runs calls beside each other: of actors that share it, in threads, and of coroutines, on a loop.

Its main thread takes messages in and does nothing else, so it sees calls that have run too long.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from contextvars import copy_context
from functools import partial
from time import monotonic, perf_counter

from manyhands.core import place
from manyhands.core.acting import is_coroutine_function
from manyhands.core.exceptions import pack_exception
from manyhands.core.place import Place
from manyhands.core.stacks import see_stack
from manyhands.core.timeouts import GRACE_SECONDS, make_timeout_error
from manyhands.engines.local import messages as m
from manyhands.engines.local.running import Batch, Running
from manyhands.engines.local.worker import Worker, load_arguments
from manyhands.errors import CallInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Awaitable, Callable
    from contextvars import Context
    from typing import Any

    from manyhands.core.interruption import Interruptible
    from manyhands.engines.local.worker import Extra

_IDLE_SECONDS = 5.0
"""How long a thread waits for another call before it ends."""

_HOLD_SECONDS = 0.001
"""How long a result may be held back so that it travels with others."""

_ATTENTIVE_ROUNDS = 5
"""Times that the main thread looks for results that are held back, after the last message; after that none is."""


class Host(Worker):
    """See `manyhands.engines.local.worker.Worker`, which runs one call at a time."""

    def __init__(self, channel: Any, region: memoryview, settings: dict[str, Any]) -> None:
        super().__init__(channel, region, settings)
        self._running: dict[int, Running] = {}
        self._timed: dict[int, Running] = {}  # those that have to end by some time
        self._guard = self.lock
        self._granted = threading.Condition(threading.Lock())
        self._jobs: deque[tuple[Running, Callable[..., Any], Any]] = deque()
        self._work = threading.Condition(threading.Lock())
        self._idle = 0
        self._loop: AbstractEventLoop | None = None
        self._dropped: list[int] = []  # what was used by calls whose results are held back
        self._is_attentive = False  # whether the main thread will send soon what is held back
        self._is_loop_flushing = False
        self._is_paused = False  # whether the parent was told that all calls wait

    # The main thread.

    def serve(self) -> None:
        rounds = 0
        while True:
            pause = self._check_times()
            if self._is_attentive:
                pause = _HOLD_SECONDS
            if not self._channel.wait(3600 if pause is None else pause):
                rounds += 1
                with self._guard:
                    self._is_attentive = rounds < _ATTENTIVE_ROUNDS
                    self.flush()
                continue
            try:
                received = self._channel.receive(wait=False)
            except EOFError:
                return
            except KeyboardInterrupt:
                continue
            if received is not None:
                rounds = 0
                with self._guard:
                    self._is_attentive = True
                    self.take(*received)
                    if perf_counter() - self._outbox.sent_at > _HOLD_SECONDS:
                        self.flush()  # messages may come and come

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
        if isinstance(running, Running) and running.thread == threading.get_ident():
            return running
        return None

    def note_wait(self, change: int) -> None:
        running = self.find_guard()
        if isinstance(running, Running):
            self._count_wait(running, change)

    def _count_wait(self, running: Running, change: int) -> None:
        with self._guard:
            running.waits += change
            self._tell_pause()

    def note_outstanding(self, key: int, change: int) -> None:
        with self._guard:
            running = self._running.get(key)
            if running is not None:
                running.outstanding += change
                self._tell_pause()

    def _tell_pause(self) -> None:
        """Tell the parent where all calls that are under way wait, and where no longer all do."""
        if not self.settings["has_cpus"]:
            return
        is_paused = bool(self._running) and all(
            running.is_waiting() for running in self._running.values()
        )
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            self._channel.send((m.PAUSE, is_paused))

    def read_beside(self, seconds: float) -> bool:  # noqa: ARG002 - the main thread always reads
        return False

    def interrupt(self, _signal: int, _frame: object) -> None:
        """Calls are interrupted by messages here."""

    def give_back(self, _signal: int, _frame: object) -> None:
        """Every call that has come has begun."""

    def flush(self) -> None:
        """Send the results that are held back."""
        with self._guard:
            dropped, self._dropped = self._dropped, []
            self._outbox.flush(dropped)

    def _run(
        self,
        keys: list[int],
        function_keys: list[int],
        payloads: list[Any],
        uses: list[int],
        extras: dict[int, Extra] | None,
    ) -> None:
        batch = Batch(uses, len(keys))
        coroutines = []
        for key, function_key, payload in zip(keys, function_keys, payloads, strict=True):
            timeout, environment, window = (extras or {}).get(key, (None, None, 0))
            if environment is not None:
                self.show(environment)
            opened = self._shelf.unbox(payload, batch.uses) if uses else payload
            is_missing = function_key not in self._functions and function_key not in self._payloads
            if is_missing or not self._shelf.knows(opened):
                # The parent took the function or heap back, and we were quicker to take the call.
                lost = [function_key] if is_missing else []
                batch.uses = self._return_call(key, payload, batch.uses, lost)
                self._count_ended(batch)
                continue
            try:
                fn = self._functions.get(function_key) or self._load_function(function_key)
            except BaseException as error:
                self._send_end(key, batch, self._pack_error(error), failed=True)
                continue
            name = getattr(fn, "__qualname__", type(fn).__qualname__)
            running = self._running[key] = Running(
                self, key, batch, name, timeout=timeout, credit=window
            )
            if timeout is not None:
                self._timed[key] = running
            if is_coroutine_function(fn):
                coroutines.append((running, fn, opened))
            else:
                self._start(running, fn, opened)
        self._tell_pause()
        if coroutines:
            self._get_loop().call_soon_threadsafe(self._begin_all, coroutines)

    def _start(self, running: Running, fn: Callable[..., Any], payload: Any) -> None:
        with self._work:
            self._jobs.append((running, fn, payload))
            if len(self._jobs) <= self._idle:
                self._work.notify()
                return
        threading.Thread(target=self._serve_calls, daemon=True).start()

    # The threads.

    def _serve_calls(self) -> None:
        while True:
            with self._work:
                if not self._jobs:
                    self._idle += 1
                    self._work.wait_for(lambda: bool(self._jobs), _IDLE_SECONDS)
                    self._idle -= 1
                    if not self._jobs:
                        return
                job = self._jobs.popleft()
            copy_context().run(self._run_call, *job)
            del job
            if not self._jobs:
                self.flush()

    def _run_call(self, running: Running, fn: Callable[..., Any], payload: Any) -> None:
        place.here.set(Place(None, running.key, running))
        value: Any = None
        error: BaseException | None = None
        try:
            try:
                running.begin()
                with running:
                    args, kwargs = self._load(running, payload)
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
            self._get_loop().call_soon_threadsafe(
                self._begin, running, lambda: value, copy_context()
            )
            return
        self._end(running, value, error)

    def _load(
        self, running: Running, payload: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
        """The arguments of a call that is about to begin."""
        self._check_cancelled(running.key)
        with self._guard:
            return load_arguments(self._shelf, payload)

    # The loop.

    def _begin_all(self, calls: list[tuple[Running, Callable[..., Any], Any]]) -> None:
        """Begin calls of coroutine functions, in order."""
        for running, fn, payload in calls:
            context = copy_context()
            context.run(place.here.set, Place(None, running.key, running))
            self._begin(running, partial(self._make_coroutine, running, fn, payload), context)

    def _make_coroutine(self, running: Running, fn: Callable[..., Any], payload: Any) -> Any:
        args, kwargs = self._load(running, payload)
        return fn(*args, **(kwargs or {}))

    def _begin(
        self, running: Running, make: Callable[[], Awaitable[Any]], context: Context
    ) -> None:
        """Run a coroutine on the loop, whose thread this is."""

        async def run() -> None:
            value, error = None, None
            try:
                value = await make()
            except BaseException as raised:
                error = raised
            self._end(running, value, error)
            if not self._is_loop_flushing:
                self._is_loop_flushing = True
                loop.call_soon(self._flush_of_loop)

        loop = self._get_loop()
        task = running.task = loop.create_task(run(), context=context)
        with self._guard:
            self._tell_pause()
        if not running.set_stop(lambda: loop.call_soon_threadsafe(task.cancel)):
            loop.call_soon(task.cancel)  # once it has begun, or it would not end it

    def _flush_of_loop(self) -> None:
        self._is_loop_flushing = False
        self.flush()

    def _get_loop(self) -> AbstractEventLoop:
        with self._guard:
            if self._loop is None:
                import asyncio

                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(_make_executor())
                threading.Thread(target=self._loop.run_forever, daemon=True).start()
            return self._loop

    # Ends.

    def _end(self, running: Running, value: Any, error: BaseException | None) -> None:
        if isinstance(error, SystemExit):
            self._exit(error)
        with self._guard:
            key = running.key
            if self._running.pop(key, None) is None:
                return
            self._timed.pop(key, None)
            self._tell_pause()
            if running.error is not None:
                error = running.error
            if error is None and self.nested is not None and self.nested.join(key, value):
                self._count_ended(running.batch)
                return
            failed = error is not None
            try:
                result = self._shelf.dump(value) if error is None else self._pack_error(error)
            except BaseException as unpicklable:
                failed, result = True, self._pack_error(unpicklable)
            value = error = None
            self._send_end(key, running.batch, result, failed=failed)
            if failed and self.nested is not None:
                self.nested.end_badly(key)

    def _send_end(self, key: int, batch: Batch, result: Any, *, failed: bool) -> None:
        """Send a result, now or with others."""
        outbox = self._outbox
        if not outbox.size:
            outbox.begin(alone=True)
        outbox.add(key, result, 0.0, failed)
        self._count_ended(batch)
        if not self._is_attentive or not self._running or outbox.size > m.FLUSH_BYTES:
            self.flush()

    def _count_ended(self, batch: Batch) -> None:
        batch.left -= 1
        if not batch.left:
            self._dropped += self._shelf.end_message(batch.uses)

    def emit_of(self, running: Running, item: Any) -> None:
        """Send an item of a call's stream."""
        if running.credit <= 0:
            self._await_credit(running)
        with self._granted:
            running.credit -= 1
        with self._guard:
            self._send_part(m.YIELD, running.key, item)

    def _await_credit(self, running: Running) -> None:
        self._count_wait(running, 1)
        try:
            with self._granted:
                while running.credit <= 0:
                    if running.is_interrupted:  # its coroutine has gone on without this thread
                        raise CallInterrupted("the stream was closed, or has run out of time")
                    self._granted.wait(0.1)  # a thread that waits for long is not interrupted
        finally:
            self._count_wait(running, -1)

    # Time-outs and cancellation.

    def _check_times(self) -> float | None:
        """Interrupt calls whose time is over; seconds until the next one's is."""
        now = monotonic()
        pauses = []
        for running in list(self._timed.values()):
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

    def _interrupt(self, running: Running) -> None:
        if not running.is_interrupted:
            running.ends_at = monotonic() + GRACE_SECONDS
            self._timed[running.key] = running
            running.interrupt()
            if self.nested is not None:
                self.nested.rouse()

    def _describe_stack(self, running: Running) -> str:
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
            if not isinstance(post, Running):
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
