"""The event loop on which calls run that are coroutines, many at once, in one thread."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from manyhands.core.attempt import attempt_rest
from manyhands.engines.threads.runs import ThreadRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    End = Callable[[ThreadRun, Any, BaseException | None], object]


class _Executor(ThreadPoolExecutor):
    """The pool of threads that every event loop has, but for the waits of streams.

    They last as long as nobody takes their items, and a few dozen of them would fill the pool.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not (args and getattr(args[0], "__func__", None) is ThreadRun.emit):
            return super().submit(fn, *args, **kwargs)
        future: Future[Any] = Future()

        def fulfil() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        if args[0].__self__.credit > 1:  # nobody has to wait
            fulfil()
        else:
            threading.Thread(target=fulfil, name="manyhands-stream", daemon=True).start()
        return future


class LoopThread:
    """An event loop and its thread.

    Parameters
    ----------
    initialize
        Is called in the thread first.
    """

    def __init__(self, initialize: Callable[[], object]) -> None:
        self._initialize = initialize
        self._is_closing = False
        self._executor = _Executor(thread_name_prefix="manyhands-executor")
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(self._executor)
        self._thread = threading.Thread(target=self._serve, name="manyhands-loop", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system gives no more threads
            self._loop.close()
            raise

    @property
    def ident(self) -> int:
        """The thread's."""
        return self._thread.ident or 0

    def begin(self, execute: Callable[[ThreadRun], object], run: ThreadRun) -> None:
        """Have a call executed in this loop's thread."""
        self._loop.call_soon_threadsafe(execute, run)

    def start(self, run: ThreadRun, awaitable: Any, end: End) -> None:
        """Go on with a call that gave something to await; in the end, in this loop's thread, call `end`."""
        try:
            self._loop.call_soon_threadsafe(self._begin, run, awaitable, end)
        except RuntimeError as closed:  # with the engine, a moment ago
            _discard(awaitable)
            end(run, None, closed)

    def _begin(self, run: ThreadRun, awaitable: Any, end: End) -> None:
        # A task that is cancelled before its first step would never await it.
        if run.is_interrupted or self._is_closing:
            _discard(awaitable)
            end(run, None, asyncio.CancelledError())
            return
        task = self._loop.create_task(attempt_rest(run.call, awaitable), context=run.context)
        task.add_done_callback(partial(_finish, run, end))
        if not run.set_stop(partial(self._stop, run, task)):
            self._stop(run, task)

    def _stop(self, run: ThreadRun, task: asyncio.Task[Any]) -> None:
        def cancel() -> None:
            run.is_heard = True
            task.cancel()

        try:
            self._loop.call_soon_threadsafe(cancel)
        except RuntimeError:
            pass  # it has closed, and the task has ended

    def get_task(self) -> object:
        """What the loop is at; None where that is no task."""
        return asyncio.current_task(self._loop) if not self._loop.is_closed() else None

    def close(self, grace: float) -> None:
        """Cancel what runs, and end when that has; after so many seconds in any case. Again does nothing."""
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon_threadsafe(self._begin_end, grace)
            self._executor.shutdown(wait=False)

    def _begin_end(self, grace: float) -> None:
        # Kept here, since a loop forgets tasks that nobody else has.
        self._end = self._loop.create_task(self._drain(grace))

    def join(self, seconds: float) -> None:
        """Wait for the thread's end, after `close`."""
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)

    async def _drain(self, grace: float) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=grace)
        self._loop.stop()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._initialize()
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


def _finish(run: ThreadRun, end: End, task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        end(run, None, asyncio.CancelledError())
    else:
        end(run, *task.result())


def _discard(awaitable: Any) -> None:
    """Let go of a coroutine that is never begun, without a warning that it was not."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
