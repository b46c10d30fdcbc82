"""The engine of threads, as sessions see it."""

from __future__ import annotations

import sys
from functools import partial
from itertools import count

from manyhands.core import place
from manyhands.core.admission import explain_misfit, make_capacity
from manyhands.core.functions import is_coroutine_function
from manyhands.core.loops import get_running_loop, lend_idle_time
from manyhands.core.model import Capabilities, EngineStats
from manyhands.core.objects import ObjectStore
from manyhands.core.resources import ONE_CPU, make_need
from manyhands.core.run import get_own_run, guard
from manyhands.engines.threads.pool import Pool
from manyhands.engines.threads.runs import ThreadRun
from manyhands.engines.threads.schedule import Job
from manyhands.engines.threads.stages import Stage
from manyhands.errors import InvalidArgumentError, WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.engine import Sink
    from manyhands.core.model import ActorPlace, Call, EngineConfig
    from manyhands.core.resources import Need

_NO_CPU = make_need(cpus=0)


class ThreadsEngine(ObjectStore):
    """Workers that are threads of this process; see `manyhands.core.engine.Engine` for the members.

    `capabilities.interrupts` is false: a call in native code that does not return goes on in the background, where its
    thread ends with it, and another thread has its place.
    """

    name = "threads"
    capabilities = Capabilities(
        isolates=False,
        parallel=not getattr(sys, "_is_gil_enabled", lambda: True)(),
        pickles=False,
    )
    first_key = 1

    def start(self, config: EngineConfig, sink: Sink) -> None:
        self._sink = sink
        self._stats = EngineStats()
        self._orders = count()
        self._capacity = make_capacity(config)
        self._pool = Pool(config, self._capacity, sink, self._stats)
        try:
            with self._pool.lock:
                self._pool.crew.fill()
        except RuntimeError as cause:
            raise WorkerStartError(
                f"the system gives no more threads, and {config.workers} are needed: {cause}"
            ) from cause

    def submit(self, call: Call) -> None:
        job = self._make_job(call)
        with guard():
            if call.options.actor:
                self._pool.stages.submit(job)
            else:
                self._pool.submit(job)

    def resubmit(self, key: int, attempt: Job) -> None:  # noqa: ARG002 - the job knows it
        with guard():
            if attempt.stage is not None:
                self._pool.stages.submit(attempt)
            else:
                self._pool.submit(attempt)

    def explain_misfit(self, call: Call) -> str | None:
        with guard(), self._pool.lock:
            return explain_misfit(self._capacity, call, call.options.need)

    def cancel(self, keys: Iterable[int], *, running: bool = False) -> set[int]:
        with guard():
            return self._pool.cancel(keys, running=running)

    def is_running(self, key: int) -> bool:
        return self._pool.is_running(key)

    def ask(self, question: str, *args: Any) -> Any:
        return self._sink.answer(question, *args)

    def look(self) -> None:
        """Threads deliver by themselves."""

    def get_running(self) -> int:
        here = place.here.get()
        return here.key if here is not None and here.session is self._sink else 0

    def grant(self, key: int, items: int) -> None:
        with guard():
            self._pool.items.grant(key, items)

    def start_actor(self, actor: int, call: Call, where: ActorPlace) -> None:
        parent = self._find_parent()
        depth = 0 if parent is None else parent.job.depth + 1
        stage = Stage(actor, call, where, depth, next(self._orders))
        with guard(), self._pool.lock:
            name = f"the actor {stage.name}"
            misfit = explain_misfit(self._capacity, call, where.need, name)
        if misfit is not None:
            self._sink.take_failure(call.key, InvalidArgumentError(misfit), None)
            return
        with guard():
            self._pool.stages.start(stage)

    def restart_actor(self, actor: int) -> None:
        with guard():
            self._pool.stages.restart(actor)

    def bury_actor(self, actor: int, error: BaseException) -> None:
        with guard():
            self._pool.stages.bury(actor, error)

    def stop_actor(self, actor: int, *, kill: bool) -> None:
        with guard():
            self._pool.stages.stop(actor, kill=kill)

    def restart_workers(self) -> None:
        with guard(), self._pool.lock:
            self._pool.crew.renew()

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        if is_done():
            return True
        run = get_own_run()
        if isinstance(run, ThreadRun) and run.pool is self._pool:
            return self._pool.waits.wait_in(run, is_done, timeout, key)
        return self._pool.waits.wait(is_done, timeout, key)

    def rouse(self) -> None:
        with guard(), self._pool.lock:
            self._pool.waits.ring_all()

    def attend(self) -> None:
        """Threads deliver by themselves; one that runs an event loop gives its cpus up while that has nothing to do."""
        run = get_own_run()
        loop = get_running_loop()
        if loop is not None and isinstance(run, ThreadRun) and run.pool is self._pool:
            wake = partial(loop.call_soon_threadsafe, int)
            lend_idle_time(loop, partial(self._pool.waits.lend, run, wake))

    def stats(self) -> EngineStats:
        return self._stats

    def close(self, grace: float) -> None:
        run = get_own_run()
        self._pool.close(grace, run if isinstance(run, ThreadRun) else None)

    def _make_job(self, call: Call) -> Job:
        need, order = call.options.need, next(self._orders)
        parent = self._find_parent()
        depth, fate = (0, None) if parent is None else (parent.job.depth + 1, parent.get_fate())
        if call.options.actor or not is_coroutine_function(call.fn):
            return Job(call, depth, order, need, fate=fate)
        self._pool.load_loop()
        return Job(call, depth, order, _waive_cpus(need), is_async=True, fate=fate)

    def _find_parent(self) -> ThreadRun | None:
        """The call of this engine that makes a call now; also where it does so in a thread or task of its own."""
        here = place.here.get()
        run = here.post if here is not None else None
        return run if isinstance(run, ThreadRun) and run.pool is self._pool else None


def _waive_cpus(need: Need) -> Need:
    """What a coroutine holds, which waits on the event loop most of the time."""
    if need is ONE_CPU:
        return _NO_CPU
    return make_need(0, need.gpus, need.memory, dict(need.named))
