"""What runs calls: takes them from the schedule, gives them to threads, and says what became of them."""

from __future__ import annotations

import threading
from contextvars import copy_context
from functools import partial
from time import monotonic

from manyhands.core.attempt import follow, is_awaitable
from manyhands.core.future import Future
from manyhands.core.timeouts import GRACE_SECONDS
from manyhands.engines.threads.crew import Crew
from manyhands.engines.threads.items import Items
from manyhands.engines.threads.overdue import Overdue, do_aside
from manyhands.engines.threads.runs import ThreadRun
from manyhands.engines.threads.schedule import Schedule
from manyhands.engines.threads.stages import Stages
from manyhands.engines.threads.waits import Waits
from manyhands.errors import (
    CallInterrupted,
    SessionClosedError,
    WorkerStartError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from manyhands.core.attempt import Outcome
    from manyhands.core.engine import Sink
    from manyhands.core.model import EngineConfig, EngineStats
    from manyhands.core.resources import Capacity
    from manyhands.engines.threads.crew import Worker
    from manyhands.engines.threads.loop import LoopThread
    from manyhands.engines.threads.schedule import Job
    from manyhands.engines.threads.stages import Life

    Loss = tuple[Life, BaseException] | None


class Pool:
    """The calls of an engine that wait and that run.

    The sink, and whatever else runs users' code, is used without the lock.

    Parameters
    ----------
    config, capacity, sink, stats
        The engine's.

    Attributes
    ----------
    lock
        Of all that several threads use.
    runs
        The calls that have begun and not ended, by key.
    loop
        The event loop of coroutines; None before there is one, and where the last one hangs.
    """

    def __init__(
        self, config: EngineConfig, capacity: Capacity, sink: Sink, stats: EngineStats
    ) -> None:
        self.lock = threading.Lock()
        self.sink = sink
        self.capacity = capacity
        self.schedule = Schedule(capacity)
        self.waits = Waits(self.lock, self.schedule, self.dispatch)
        self.crew = Crew(config.workers, self._serve)
        self.stages = Stages(self)
        self.items = Items(self)
        self.overdue = Overdue(self)
        self._config = config
        self._stats = stats
        self._begin = monotonic()
        self.runs: dict[int, ThreadRun] = {}
        self.loop: LoopThread | None = None
        self._broken: WorkerStartError | None = None
        self._is_closed = False

    # Calls come and go.

    def check(self) -> None:
        """Raise unless calls can be taken (with the lock held)."""
        if self._broken is not None:
            raise self._broken
        if self._is_closed:
            raise SessionClosedError("the session was closed meanwhile")

    def submit(self, job: Job) -> None:
        """Take a call."""
        with self.lock:
            self.check()
            is_wanted = job.is_wanted()
            if is_wanted:
                self.schedule.push(job)
                self.dispatch()
        if not is_wanted:
            self.refuse(job)

    def refuse(self, job: Job) -> None:
        """End a call whose maker was told to end a moment ago, and is still at making it."""
        error = CallInterrupted("the call that made it was cancelled, or has run out of time")
        self.sink.take_failure(job.call.key, error, None)

    def cancel(self, keys: Iterable[int], *, running: bool) -> set[int]:
        """Withdraw calls that wait, and with `running` those that run; which they were."""
        withdrawn = set()
        runs = []
        with self.lock:
            for key in keys:
                run = self.runs.get(key)
                if self._withdraw(key):
                    withdrawn.add(key)
                elif running and run is not None and run.claim():
                    withdrawn.add(key)
                    runs.append(run)
                    run.lose_calls()
            self.dispatch()
        for run in runs:
            self.overdue.stop(run)
        with self.lock:
            # Not before it was told: a stream that is forgotten ends as it sends, and would be struck amid its end.
            for run in runs:
                self.forget(run)
        self.stages.sweep()
        return withdrawn

    def _withdraw(self, key: int) -> bool:
        job = self.schedule.withdraw(key) or self.stages.withdraw(key)
        if job is not None and job.is_making and job.stage is not None:
            self.stages.give_up_making(job.stage)
        return job is not None

    def is_running(self, key: int) -> bool:
        """Whether a call has begun, and not ended."""
        return key in self.runs

    def list_runs(self, life: Life) -> list[ThreadRun]:
        """Those of an actor (with the lock held)."""
        return [run for run in self.runs.values() if run.life is life]

    def dispatch(self) -> None:
        """Start what there is room for (with the lock held)."""
        self.schedule.let_return()
        if self._is_closed:
            return
        while (found := self.schedule.start_next()) is not None:
            job, seat = found
            try:
                life = self.stages.begin(job.stage, seat) if job.stage is not None else None
                is_launched = self.launch(ThreadRun(self, job, seat, life))
            except RuntimeError:
                is_launched = False
            if not is_launched:  # for want of threads; there will be one when a call has ended
                self.schedule.leave(seat)
                self.schedule.push(job)
                return

    def launch(self, run: ThreadRun) -> bool:
        """Give a call to a thread (with the lock held); False, or RuntimeError, where there are no more to be had."""
        if run.job.is_async:
            run.loop = self.get_loop()
            self.runs[run.call.key] = run
            run.loop.begin(self._execute_on_loop, run)
            return True
        worker = run.life.worker if run.life is not None else None
        if worker is None:
            try:
                worker = self.crew.find()
            except RuntimeError:
                return False
        self.runs[run.call.key] = run
        worker.assign(run)
        return True

    # Threads.

    def _serve(self, worker: Worker) -> None:
        if not self._initialize(worker):
            return
        while self._await_run(worker):
            if not self._execute(worker):
                break

    def _await_run(self, worker: Worker) -> bool:
        """Wait for a call; False where there will be none."""
        while worker.run is None:
            worker.sleep(self.crew.get_patience())
            with self.lock:
                worker.hush()
                if worker.run is None and (worker.is_leaving or self.crew.is_spare(worker)):
                    self.crew.remove(worker)
                    return False
        return True

    def _execute(self, worker: Worker) -> bool:
        """Run the worker's call; False where the thread was given up meanwhile, and another one has its place."""
        run = worker.run
        assert run is not None
        if not run.is_seated:
            self.waits.await_cpus(run)
        value, error = self._perform(run)
        if run.is_given_up:
            return False
        run.seconds = monotonic() - run.began - run.parked
        self._conclude(run, value, error, worker)
        return True

    def _execute_on_loop(self, run: ThreadRun) -> None:
        """Begin a coroutine, in the thread of the event loop."""
        value, error = self._perform(run)
        self._conclude(run, value, error, None)

    def _perform(self, run: ThreadRun) -> Outcome:
        run.began = monotonic()
        timeout = run.call.options.timeout
        if timeout is not None:
            self.overdue.watch(run, timeout)
        run.context = copy_context()
        return run.perform(self.sink, run)

    def _initialize(self, worker: Worker | None) -> bool:
        config = self._config
        try:
            if config.initializer is not None:
                config.initializer(*config.initargs)
        except BaseException as cause:
            error = WorkerStartError(
                f"the initializer failed in a worker: {type(cause).__name__}: {cause}"
            )
            error.__cause__ = cause
            self._break(worker, error)
            return False
        if not self._stats.starting:
            self._stats.starting = monotonic() - self._begin
        return True

    def _break(self, worker: Worker | None, error: WorkerStartError) -> None:
        """Nothing can run any more: the thread of a worker, or of the event loop, could not be initialized."""
        with self.lock:
            is_first = self._broken is None
            self._broken = self._broken or error
            jobs = self.schedule.clear() + self.stages.clear()
            if worker is not None:
                self.crew.remove(worker)
            runs = [run for run in self.runs.values() if run.worker is worker]
            for run in runs:
                self.forget(run)
        for run in runs:
            run.interrupt()
            if run.claim():
                jobs.append(run.job)
        for job in jobs:
            self.sink.take_failure(job.call.key, error, None)
        if is_first:
            self.sink.take_breakdown(error)
        with self.lock:
            self.waits.ring_all()

    # What becomes of a call.

    def _conclude(
        self, run: ThreadRun, value: Any, error: BaseException | None, worker: Worker | None
    ) -> None:
        """The function of a call has returned."""
        if error is not None:
            self._end(run, None, error, worker)
        elif isinstance(value, Future):
            self._follow(run, value, worker)
        elif is_awaitable(value):
            self._go_on_loop(run, value, worker)
        else:
            self._end(run, value, None, worker)

    def _follow(self, run: ThreadRun, future: Future[Any], worker: Worker | None) -> None:
        """A call gave a future: what that ends with it ends with, and takes no thread meanwhile."""
        with self.lock:
            self.release(run, None)
            run.life = None
            self._turn(run, worker)
        if run.set_stop(lambda: do_aside(self._end, run, None, CallInterrupted())):
            follow(future, partial(self._end, run))
        else:
            self._end(run, None, CallInterrupted())

    def _go_on_loop(self, run: ThreadRun, awaitable: Any, worker: Worker | None) -> None:
        self.load_loop()
        with self.lock:
            loop = run.loop = run.loop or self.get_loop()
            if run.life is None:
                self.schedule.park(run.seat)
            else:
                self.stages.leave_thread(run.life)
            self._turn(run, worker)
        loop.start(run, awaitable, self._leave_loop)

    def load_loop(self) -> None:
        """Load asyncio, which takes long, before the lock is held."""
        import manyhands.engines.threads.loop  # noqa: F401

    def get_loop(self) -> LoopThread:
        """The event loop (with the lock held); it runs nothing where the engine has closed meanwhile."""
        if self.loop is None:
            from manyhands.engines.threads.loop import LoopThread

            self.loop = LoopThread(lambda: self._initialize(None))
            if self._is_closed:
                self.loop.close(0.0)
        return self.loop

    def _leave_loop(self, run: ThreadRun, value: Any, error: BaseException | None) -> None:
        if isinstance(value, Future):
            self._follow(run, value, None)
        else:
            self._end(run, value, error)

    def _end(
        self,
        run: ThreadRun,
        value: Any,
        error: BaseException | None,
        worker: Worker | None = None,
    ) -> None:
        """An attempt has ended; all ends come by here, but those of threads that are given up."""
        self.overdue.unwatch(run)
        run.let_go()
        failure = run.make_timeout_error(error) if run.is_over_time() else error
        is_first = run.claim()
        if failure is not None:
            run.lose_calls()
        with self.lock:
            self.forget(run)
            loss = self.release(run, error)
        if is_first:
            self.deliver(run, value, failure)
        if loss is not None:
            self.stages.lose(*loss)
        self.stages.sweep()
        with self.lock:
            self.waits.announce(run.call.key, is_over=is_first and failure is None)
            self._turn(run, worker)

    def _turn(self, run: ThreadRun, worker: Worker | None) -> None:
        """A thread has left a call, and there may be room for others (with the lock held)."""
        if worker is not None:
            self.crew.vacate(worker, run)
        self.dispatch()
        if worker is not None and worker.run is not None:
            worker.hush()  # it need not be woken

    def deliver(self, run: ThreadRun, value: Any, error: BaseException | None) -> None:
        """Tell the session how a call ended; the caller has claimed that."""
        if run.is_silent:
            if error is None and run.job.stage is not None:
                self.sink.take_actor_return(run.job.stage.number)
            return
        if error is None:
            self.sink.take_results([(run.call.key, value)])
        else:
            self.sink.take_failure(run.call.key, error, run.job)

    def release(self, run: ThreadRun, error: BaseException | None) -> Loss:
        """Give back what a call held (with the lock held); which actor died by its end, and of what."""
        if run.is_released:
            return None
        run.is_released = True
        self._stats.computing += run.seconds
        if run.life is None:
            self.schedule.leave(run.seat)
            return None
        death = self.stages.leave(run, run.life, error)
        return None if death is None else (run.life, death)

    def forget(self, run: ThreadRun) -> None:
        """It runs no more, as far as others know (with the lock held)."""
        if self.runs.get(run.call.key) is run:  # it may have been tried again meanwhile
            del self.runs[run.call.key]

    # The end.

    def close(self, grace: float, own: ThreadRun | None) -> None:
        """Interrupt what runs, and wait up to `grace` seconds for it; `own` is the call that asks for this."""
        deadline = monotonic() + grace
        with self.lock:
            self._is_closed = True
            self.schedule.clear()
            self.stages.clear()
            runs = list(self.runs.values())
            threads = self.crew.list_threads()
            loop = self.loop
            self.crew.dismiss_all()
            self.waits.close()
        self.overdue.close()
        for run in runs:
            run.claim()
            if run is not own:
                run.interrupt()
        if loop is not None:
            loop.close(max(grace, GRACE_SECONDS))
            loop.join(max(0.0, deadline - monotonic()))
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))
        self.stages.close()
