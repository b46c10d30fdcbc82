"""The engine that runs calls in their caller, as sessions see it."""

from __future__ import annotations

import threading
from contextvars import copy_context
from time import monotonic

from manyhands.core import place
from manyhands.core.admission import explain_misfit, make_capacity
from manyhands.core.attempt import describe_call, follow, is_awaitable
from manyhands.core.future import Future
from manyhands.core.model import Capabilities, EngineStats
from manyhands.core.objects import ObjectStore
from manyhands.core.run import get_own_run, guard
from manyhands.core.watchdog import Watchdog
from manyhands.engines.inline.actors import Actors
from manyhands.engines.inline.runs import InlineRun, drive, run_apart
from manyhands.engines.inline.streams import END, InlineStream
from manyhands.errors import CallInterrupted, InvalidArgumentError, WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.attempt import Outcome
    from manyhands.core.engine import Sink
    from manyhands.core.model import ActorPlace, Call, EngineConfig
    from manyhands.engines.inline.actors import Actor

_CLOSED_SECONDS = 0.01
"""How often those look who wait on an engine that has closed: nobody will tell them."""


class InlineEngine(ObjectStore):
    """Runs a call inside `submit`; see `manyhands.core.engine.Engine` for the members.

    A stream runs inside the waits of whoever takes its items. Of resources it is seen to that a call is refused which
    could never have what it needs; nothing is counted, since each caller has one call at a time.
    """

    name = "inline"
    capabilities = Capabilities(isolates=False, parallel=False, pickles=False, concurrent=False)
    first_key = 1

    def start(self, config: EngineConfig, sink: Sink) -> None:
        self.sink = sink
        self._stats = EngineStats()
        self._capacity = make_capacity(config)
        self._change = threading.Condition(threading.Lock())  # of what runs, and of what has ended
        self._runs: dict[int, InlineRun] = {}
        self._streams: dict[int, InlineStream] = {}
        self._actors = Actors(self)
        self._watchdog = Watchdog(self._take_due)
        self._is_closed = False
        if config.initializer is not None:
            try:
                config.initializer(*config.initargs)
            except Exception as cause:
                raise WorkerStartError(
                    f"the initializer failed: {type(cause).__name__}: {cause}"
                ) from cause

    # Calls.

    def submit(self, call: Call) -> None:
        if call.options.window:
            actor = self._actors.find(call) if call.options.actor else None
            stream = InlineStream(self, call, actor)
            with guard(), self._change:
                self._streams[call.key] = stream
        elif call.options.actor:
            self._actors.submit(call)
        else:
            self.execute(InlineRun(self, call))

    def resubmit(self, key: int, attempt: Call) -> None:  # noqa: ARG002 - the call knows it
        actor = self._actors.find_made_by(attempt)
        if actor is not None:
            self._actors.make(actor, attempt)
        else:
            self.submit(attempt)

    def execute(self, run: InlineRun) -> None:
        """Run a call here, to its end."""
        value, error = self.perform(run)
        if isinstance(value, Future):
            follow(value, lambda *outcome: self._end(run, *outcome))
        else:
            self._end(run, value, error)
            _pass_on(run, error)

    def perform(self, run: InlineRun, stream: InlineStream | None = None) -> Outcome:
        """Run a call here, or a stream as far as its next item; the value, or the error."""
        timeout = run.call.options.timeout
        with self._change:
            self._runs[run.call.key] = run
        begin = monotonic()
        run.began = begin - run.used
        if timeout is not None:
            self._watchdog.watch(run, timeout - run.used)
        if run.context is None:
            run.context = copy_context()
        try:
            value, error = run.perform(self.sink, run)
            if error is None and is_awaitable(value):
                value, error = _await(run, value, stream)
        finally:
            seconds = monotonic() - begin
            run.used += seconds
            self._stats.computing += seconds
            if timeout is not None:
                self._watchdog.unwatch(run)
        return value, error

    def _end(self, run: InlineRun, value: Any, error: BaseException | None) -> None:
        key = run.call.key
        run.let_go()
        failure = run.make_timeout_error(error) if run.is_over_time() else error
        is_first = run.claim()
        with self._change:
            if self._runs.get(key) is run:
                del self._runs[key]
        death = self._actors.note_end(run, error)
        if not is_first:
            pass
        elif failure is None:
            self.sink.take_results([(key, value)])
        else:
            is_callers = failure is error and _is_callers(run, error)
            self.sink.take_failure(key, failure, None if is_callers else run.attempt)
        if death is not None and run.actor is not None:
            self._actors.lose(run.actor, death)
        with self._change:
            self._change.notify_all()

    def explain_misfit(self, call: Call) -> str | None:
        with self._change:
            return explain_misfit(self._capacity, call, call.options.need)

    def is_running(self, key: int) -> bool:
        return key in self._runs

    def ask(self, question: str, *args: Any) -> Any:
        return self.sink.answer(question, *args)

    def look(self) -> None:
        """Nothing comes of this engine while nobody waits for it."""

    def get_running(self) -> int:
        here = place.here.get()
        return here.key if here is not None and here.session is self.sink else 0

    # Calls that are to end.

    def cancel(self, keys: Iterable[int], *, running: bool = False) -> set[int]:
        withdrawn = set()
        with guard():
            for key in keys:
                stream, run = self._streams.get(key), self._runs.get(key)
                if stream is not None:
                    is_withdrawn = (running or not stream.has_begun) and self._cancel_stream(stream)
                elif run is not None:
                    is_withdrawn = running and self._cancel_run(run)
                else:
                    is_withdrawn = self._actors.withdraw(key)
                if is_withdrawn:
                    withdrawn.add(key)
        return withdrawn

    def _cancel_run(self, run: InlineRun) -> bool:
        if not run.claim():
            return False
        self._forget(run)
        run.interrupt()
        return True

    def _cancel_stream(self, stream: InlineStream) -> bool:
        if not stream.run.claim():
            return False
        self._forget(stream.run)
        if not self._close_stream(stream):
            stream.run.interrupt()
        return True

    def _close_stream(self, stream: InlineStream) -> bool:
        """End one that is forgotten; not while it is asked for an item: whoever asks does it then."""
        if not stream.lock.acquire(blocking=False):
            return False
        try:
            stream.close()
            stream.run.let_go()
        finally:
            stream.lock.release()
        return True

    def _forget(self, run: InlineRun) -> None:
        with self._change:
            self._runs.pop(run.call.key, None)
            self._streams.pop(run.call.key, None)

    def _take_due(self, run: InlineRun) -> None:
        run.is_late = True
        run.interrupt()

    def end_runs(self, actor: Actor, error: BaseException) -> None:
        """Calls of an actor that run fail, and are interrupted."""
        with self._change:
            runs = [run for run in self._runs.values() if run.actor is actor]
        for run in runs:
            if run.claim():
                self.sink.take_failure(run.call.key, error, None)
            run.interrupt()

    # Streams.

    def send(self, run: InlineRun, item: Any) -> None:
        """An item has come."""
        self.sink.take_item(run.call.key, item)
        self.rouse()

    def _advance(self, key: int) -> bool:
        """Run a stream as far as its next item; False where there is none of that key, or it cannot run now."""
        stream = self._streams.get(key)
        if stream is None or stream.thread == threading.get_ident():
            return False
        if stream.run.actor is not None and not (stream.has_begun or stream.run.actor.is_open):
            return False
        try:
            with stream.lock:
                if self._streams.get(key) is stream:
                    self._run_stream(stream)
        finally:
            if self._streams.get(key) is not stream:
                self._close_stream(stream)  # it was cancelled meanwhile
        return True

    def _run_stream(self, stream: InlineStream) -> None:
        stream.thread = threading.get_ident()
        actor = stream.run.actor
        try:
            if actor is None:
                self._step(stream)
            else:
                with actor.lock:
                    self._step(stream)
        finally:
            stream.thread = 0

    def _step(self, stream: InlineStream) -> None:
        run = stream.run
        value, error = self.perform(run, stream)
        if error is None and value is not END and not (run.is_interrupted or run.is_over_time()):
            with self._change:
                self._runs.pop(run.call.key, None)
            stream.items += 1
            self.send(run, value)
            return
        stream.close()
        with self._change:
            self._streams.pop(run.call.key, None)
        self._end(run, stream.items, error)
        _pass_on(run, error)

    def drop_streams(self, actor: Actor) -> list[Call]:
        """Forget those of an actor that have not begun; the calls that they were."""
        with self._change:
            waiting = [s for s in self._streams.values() if s.run.actor is actor]
            dropped = [s for s in waiting if not s.has_begun and s.run.claim()]
            for stream in dropped:
                del self._streams[stream.run.call.key]
        return [stream.run.attempt for stream in dropped]

    def grant(self, key: int, items: int) -> None:
        """A stream runs when it is asked for an item, and no further."""

    # Actors.

    def start_actor(self, actor: int, call: Call, where: ActorPlace) -> None:
        with self._change:
            name = f"the actor {describe_call(call)}"
            misfit = explain_misfit(self._capacity, call, where.need, name)
        if misfit is None:
            self._actors.start(actor, call, where)
        else:
            self.sink.take_failure(call.key, InvalidArgumentError(misfit), None)

    def restart_actor(self, actor: int) -> None:
        self._actors.restart(actor)

    def bury_actor(self, actor: int, error: BaseException) -> None:
        self._actors.bury(actor, error)

    def stop_actor(self, actor: int, *, kill: bool) -> None:
        self._actors.stop(actor, kill=kill)

    # The rest.

    def restart_workers(self) -> None:
        """The worker is the caller."""

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        deadline = None if timeout is None else monotonic() + timeout
        while not is_done():
            advanced = self._advance(key)
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                break
            if not advanced:
                # Nothing more comes of this thread, but inputs of calls may come from others and other sessions.
                self._sleep(is_done, left)
        return is_done()

    def _sleep(self, is_done: Callable[[], bool], seconds: float | None) -> None:
        run = get_own_run()
        if run is None:
            self._nap(is_done, seconds)
            return
        with run:
            run.set_wake(self.rouse)
            try:
                self._nap(lambda: run.is_due or is_done(), seconds)
            finally:
                run.set_wake(None)

    def _nap(self, is_done: Callable[[], bool], seconds: float | None) -> None:
        with self._change:
            if self._is_closed:
                seconds = _CLOSED_SECONDS if seconds is None else min(seconds, _CLOSED_SECONDS)
            if not is_done():
                self._change.wait(seconds)

    def rouse(self) -> None:
        with guard(), self._change:
            self._change.notify_all()

    def attend(self) -> None:
        """Nothing comes of this engine while nobody waits for it."""

    def stats(self) -> EngineStats:
        return self._stats

    def close(self, grace: float) -> None:
        here = threading.get_ident()
        with self._change:
            self._is_closed = True
            runs, streams = list(self._runs.values()), list(self._streams.values())
            self._change.notify_all()
        self._watchdog.close()
        for stream in streams:
            self._cancel_stream(stream)
        others = [run for run in runs if run.thread != here]  # this thread's end when it goes on
        for run in others:
            run.claim()
            run.interrupt()
        self._actors.close()
        with self._change:
            self._change.wait_for(
                lambda: not any(self._runs.get(run.call.key) is run for run in others), grace
            )


def _await(run: InlineRun, awaitable: Any, stream: InlineStream | None) -> Outcome:
    """Run what a call gave to await to its end, or an asynchronous generator as far as its next item."""
    if stream is not None:
        return run_apart(lambda: stream.drive(awaitable))

    def drive_alone() -> Outcome:
        import asyncio

        with asyncio.Runner() as runner:
            return drive(run, awaitable, runner)

    return run_apart(drive_alone)


def _is_callers(run: InlineRun, error: BaseException | None) -> bool:
    """Whether an error is for more than the call: Ctrl-C, or the interrupt of a call that this one is inside of."""
    if isinstance(error, CallInterrupted):
        return not run.is_interrupted and get_own_run() is not None
    return isinstance(error, KeyboardInterrupt)


def _pass_on(run: InlineRun, error: BaseException | None) -> None:
    if error is not None and _is_callers(run, error):
        raise error
