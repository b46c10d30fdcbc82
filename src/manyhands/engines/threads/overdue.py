"""Calls that are to end: how they are told, and what happens to those that do not yield."""

from __future__ import annotations

import threading

from manyhands.core.attempt import describe_call
from manyhands.core.stacks import see_stack
from manyhands.core.timeouts import GRACE_SECONDS
from manyhands.core.watchdog import Watchdog
from manyhands.errors import CallInterrupted, WorkerDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from manyhands.engines.threads.loop import LoopThread
    from manyhands.engines.threads.pool import Loss, Pool
    from manyhands.engines.threads.runs import ThreadRun


_LOOKS = 10
"""How often an event loop is looked at that seems to hang, and seems to go on too, before it is given up."""


class Overdue:
    """Sees to it that calls end which have run out of time, or were cancelled.

    Parameters
    ----------
    pool
        Runs them.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._watchdog = Watchdog(self._take_due)

    def watch(self, run: ThreadRun, seconds: float) -> None:
        """A call has begun that may run so many seconds."""
        self._watchdog.watch(run, seconds)

    def unwatch(self, run: ThreadRun) -> None:
        """A call has ended."""
        if run.is_interrupted or run.call.options.timeout is not None:
            self._watchdog.unwatch(run)

    def stop(self, run: ThreadRun) -> None:
        """Interrupt a call, and give it up if it does not yield."""
        run.interrupt()
        self._watchdog.watch(run, GRACE_SECONDS)

    def close(self) -> None:
        """The engine ends."""
        self._watchdog.close()

    def _take_due(self, what: ThreadRun | _Suspicion) -> None:
        if isinstance(what, _Suspicion):
            self._check(what)
        elif not what.is_interrupted:
            what.is_late = True
            self.stop(what)
        elif what.loop is not None:
            if not what.is_released:
                what.is_given_up = True
                self._give_up(what, _make_late_error(what, see_stack(what.loop.ident)))
                self._suspect(_Suspicion(what, what.loop))
        elif what.give_up():
            self._give_up(what, _make_late_error(what, see_stack(what.thread)))

    def _give_up(self, run: ThreadRun, error: BaseException) -> None:
        """Let a call go on that does not yield, and have another thread in its place."""
        pool = self._pool
        is_first = run.claim()
        run.lose_calls()
        with pool.lock:
            pool.forget(run)
            loss = pool.release(run, None)
            if run.loop is None and run.worker is not None:
                pool.crew.remove(run.worker)
            pool.dispatch()
        do_aside(self._tell, run, error if is_first else None, loss)

    def _tell(self, run: ThreadRun, error: BaseException | None, loss: Loss) -> None:
        pool = self._pool
        if error is not None:
            pool.deliver(run, None, error)
        if loss is not None:
            pool.stages.lose(*loss)
        pool.stages.sweep()
        with pool.lock:
            pool.waits.announce(run.call.key, is_over=False)

    def _suspect(self, suspicion: _Suspicion) -> None:
        """A call on the event loop did not yield. See whether that hangs: it has not even heard of the call's end."""
        if not suspicion.run.is_heard:
            suspicion.task = suspicion.loop.get_task()
            self._watchdog.watch(suspicion, GRACE_SECONDS)

    def _check(self, suspicion: _Suspicion) -> None:
        suspicion.looks += 1
        is_same = suspicion.task is suspicion.loop.get_task()
        if is_same or suspicion.looks >= _LOOKS:
            if not suspicion.run.is_heard:
                self._give_up_loop(suspicion.loop)
        else:  # it goes on, slowly: the machine is busy
            self._suspect(suspicion)

    def _give_up_loop(self, loop: LoopThread) -> None:
        """All calls on an event loop fail, and those to come have another one."""
        pool = self._pool
        stack = see_stack(loop.ident)
        with pool.lock:
            if pool.loop is loop:
                pool.loop = None
            runs = [run for run in pool.runs.values() if run.loop is loop]
        loop.close(GRACE_SECONDS)
        for run in runs:
            run.is_given_up = True
            run.interrupt()
            self._give_up(run, _make_neighbour_error(run, stack))


class _Suspicion:
    """That an event loop hangs.

    Attributes
    ----------
    run
        A call that has not heard that it is to end.
    loop
    task
        What the loop was at.
    looks
        How often it was looked at since.
    """

    __slots__ = ("looks", "loop", "run", "task")

    def __init__(self, run: ThreadRun, loop: LoopThread) -> None:
        self.run = run
        self.loop = loop
        self.task: object = None
        self.looks = 0


def _make_late_error(run: ThreadRun, stack: str) -> BaseException:
    """Of a call that is given up; where it was cancelled nobody will see it."""
    if not run.is_late:
        return CallInterrupted()
    error = run.make_timeout_error(stack=stack)
    error.add_note("It did not yield, and goes on in a thread that nobody waits for.")
    return error


def _make_neighbour_error(run: ThreadRun, stack: str) -> WorkerDiedError:
    name = describe_call(run.call)
    error = WorkerDiedError(
        f"call {run.call.key}, {name}, was on an event loop that a call blocked: coroutines must not compute or wait "
        f"for long without 'await'. The loop stood here:\n{stack}"
    )
    error.call, error.key = name, run.call.key
    return error


def do_aside(fn: Callable[..., None], *args: Any) -> None:
    """Do what may run users' code in a thread of its own, so that nobody else has to wait for it."""
    try:
        threading.Thread(target=fn, args=args, name="manyhands-end", daemon=True).start()
    except RuntimeError:  # the system gives no more threads
        fn(*args)
