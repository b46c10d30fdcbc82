"""Actors: their calls in their order, and what becomes of those that die."""

from __future__ import annotations

from collections import deque
from enum import Enum
from heapq import heappop, heappush

from manyhands.core.acting import remove_actor
from manyhands.core.afterlife import (
    make_absence_error,
    make_again,
    make_revival_error,
    make_stop_error,
    renew,
)
from manyhands.core.attempt import describe_call, has_exited
from manyhands.core.objects import Snapshot
from manyhands.engines.threads.runs import ThreadRun
from manyhands.engines.threads.schedule import Job
from manyhands.errors import WorkerDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from manyhands.core.model import ActorPlace, Call
    from manyhands.engines.threads.crew import Worker
    from manyhands.engines.threads.pool import Pool
    from manyhands.engines.threads.schedule import Seat


class _State(Enum):
    MAKING = "making"
    """It waits for a place, or is being made."""
    OPEN = "open"
    """It takes calls."""
    DOWN = "down"
    """It was not made, or has died: calls wait until it is made again or buried."""
    GONE = "gone"


class Life:
    """An actor from its making to its end; when it is made again it begins another.

    Attributes
    ----------
    stage
    seat
        What it holds.
    worker
        Its own thread; None where any thread may run its calls.
    active
        Calls that have begun and not ended.
    on_threads
        Those of them that are not on the event loop.
    is_closing
        Whether it ends with those.
    """

    __slots__ = ("active", "is_closing", "on_threads", "seat", "stage", "worker")

    def __init__(self, stage: Stage, seat: Seat, worker: Worker | None) -> None:
        self.stage = stage
        self.seat = seat
        self.worker = worker
        self.active = 1
        self.on_threads = 1
        self.is_closing = False

    def keep(self, state: Any) -> None:
        """Remember the actor's state, as it is now."""
        snapshot = Snapshot(state)
        if self.stage.life is self:
            self.stage.kept = snapshot


class Stage:
    """The calls of one actor.

    Attributes
    ----------
    number
    making
        What makes it from its arguments.
    place
    queue
        A heap of its calls that wait, the oldest first.
    state
    life
        As it lives now; None where it does not.
    kept
        Its last state that was kept.
    is_owed
        Whether the call that makes it has not ended, as far as the session knows.
    is_stopping
        Whether it ends when its calls have.
    """

    def __init__(self, number: int, call: Call, place: ActorPlace, depth: int, order: int) -> None:
        self.number = number
        self.place = place
        self.making = Job(call, depth, order, place.need, self, is_making=True)
        self.queue: list[tuple[int, Job]] = []
        self.state = _State.MAKING
        self.life: Life | None = None
        self.kept: Snapshot | None = None
        self.is_owed = True
        self.is_stopping = False

    @property
    def name(self) -> str:
        """For errors."""
        return describe_call(self.making.call)

    @property
    def has_own_worker(self) -> bool:
        """Whether all its calls run in one and the same thread, or begin there."""
        return not self.place.is_light and (self.place.concurrency == 1 or self.place.is_async)

    def make_again(self) -> Job:
        """What makes it once more."""
        job = self.making
        call = make_again(job.call, self.kept)
        return Job(call, job.depth, job.order, job.need, self, is_making=True)


class Stages:
    """The actors of an engine.

    Methods whose names begin with ``_``, and those that say so, are called with the engine's lock held.

    Parameters
    ----------
    pool
        Runs their calls.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._stages: dict[int, Stage] = {}
        self._waiting: dict[int, Job] = {}  # by key, of all of them
        self._graves: dict[int, BaseException] = {}
        self._removed: deque[int] = deque()

    # What the session asks for.

    def start(self, stage: Stage) -> None:
        """Have an actor made."""
        with self._pool.lock:
            self._pool.check()
            self._stages[stage.number] = stage
            self._push_making(stage, stage.making)

    def submit(self, job: Job) -> None:
        """Take a call to an actor."""
        number = job.options.actor if job.stage is None else job.stage.number
        with self._pool.lock:
            self._pool.check()
            stage = self._stages.get(number)
            if stage is None or stage.is_stopping:
                raise self._explain_absence(number, job)
            if job.is_making:
                stage.is_owed = True
                if stage.state is _State.DOWN:
                    self._push_making(stage, job)
                return
            job.stage = stage
            is_wanted = job.is_wanted()
            if is_wanted:
                self._waiting[job.call.key] = job
                heappush(stage.queue, (job.order, job))
                self._advance(stage)
        if not is_wanted:
            self._pool.refuse(job)

    def restart(self, number: int) -> None:
        """Make an actor again that has died."""
        with self._pool.lock:
            stage = self._stages.get(number)
            if stage is not None and stage.state is _State.DOWN:
                self._push_making(stage, stage.make_again())

    def bury(self, number: int, error: BaseException) -> None:
        """Calls to an actor, those that wait and those to come, fail."""
        with self._pool.lock:
            stage = self._stages.get(number)
            self._graves[number] = error
            jobs = [] if stage is None else self._remove(stage, error)
            self._pool.dispatch()
        self._refuse_all(jobs, error)

    def stop(self, number: int, *, kill: bool) -> None:
        """End an actor after its calls, or at once."""
        with self._pool.lock:
            stage = self._stages.get(number)
            if stage is None:
                return
            stage.is_stopping = True
            if not kill and not self._is_idle(stage):
                return
            error = make_stop_error(stage.making.call)
            runs = [] if stage.life is None else self._pool.list_runs(stage.life)
            # Before those end, or they would be followed by calls that wait.
            jobs = self._remove(stage, error)
            self._pool.dispatch()
        for run in runs:
            self._fail_run(run, renew(error), None)
        self._refuse_all(jobs, error)

    def _refuse_all(self, jobs: list[Job], error: BaseException) -> None:
        for job in jobs:
            self._pool.sink.take_failure(job.call.key, renew(error), None)
        self.sweep()

    # What the pool tells, with the lock held.

    def withdraw(self, key: int) -> Job | None:
        """A call does not wait any more; None where it did not."""
        job = self._waiting.pop(key, None)
        if job is not None and job.stage is not None:
            self._advance(job.stage)
        return job

    def give_up_making(self, stage: Stage) -> None:
        """The call that makes it was withdrawn."""
        stage.state = _State.DOWN
        stage.is_owed = False

    def clear(self) -> list[Job]:
        """All calls that wait; none does any more."""
        jobs = list(self._waiting.values())
        self._waiting.clear()
        return jobs

    def begin(self, stage: Stage, seat: Seat) -> Life:
        """There is a place for an actor, and it is made now.

        Raises
        ------
        RuntimeError
            The system gives no more threads.
        """
        worker = self._pool.crew.start(is_reserved=True) if stage.has_own_worker else None
        stage.life = Life(stage, seat, worker)
        return stage.life

    def leave_thread(self, life: Life) -> None:
        """A call goes on without a thread of its actor."""
        self._end_turn(life)
        self._advance(life.stage)

    def leave(
        self, run: ThreadRun, life: Life, error: BaseException | None
    ) -> BaseException | None:
        """A call has ended; what its actor died of, where that was its end too and the session is to know."""
        stage = life.stage
        life.active -= 1
        if run.loop is None:
            self._end_turn(life)
        if run.job.is_making:
            run.is_silent, stage.is_owed = not stage.is_owed, False
        death = _explain_death(run, stage, error)
        if life is not stage.life:
            death = None  # it had ended before
        elif run.job.is_making:
            if error is None and death is None:
                stage.state = _State.OPEN
            else:
                self._close(stage)
                if run.is_silent and death is None:
                    death = make_revival_error(stage.making.call, error)
        elif death is not None:
            self._close(stage)
        if life.is_closing and not life.active:
            self._end_life(life)
        self._advance(stage)
        return death

    # Without the lock.

    def lose(self, life: Life, error: BaseException) -> None:
        """An actor has died: its other calls fail, and the session is told."""
        stage = life.stage
        with self._pool.lock:
            runs = self._pool.list_runs(life)
        for run in runs:
            self._fail_run(run, renew(error), run.job)
        remove_actor(stage.number)
        if stage.is_stopping:
            self.bury(stage.number, make_stop_error(stage.making.call))
        else:
            self._pool.sink.take_actor_end(stage.number, error)

    def _fail_run(self, run: ThreadRun, error: BaseException, attempt: Job | None) -> None:
        if run.claim():
            run.lose_calls()
            self._pool.sink.take_failure(run.call.key, error, attempt)
        self._pool.overdue.stop(run)

    def sweep(self) -> None:
        """Let go of the objects of actors that are no more: users' code may run as they go."""
        while True:
            try:
                number = self._removed.popleft()
            except IndexError:  # another thread may have had the last one
                return
            remove_actor(number)

    def close(self) -> None:
        """The engine ends."""
        for number in self._stages:
            remove_actor(number)

    # The parts.

    def _push_making(self, stage: Stage, job: Job) -> None:
        stage.state = _State.MAKING
        self._pool.schedule.push(job)
        self._pool.dispatch()

    def _advance(self, stage: Stage) -> None:
        """Begin calls that may begin."""
        place, life = stage.place, stage.life
        if stage.state is not _State.OPEN or life is None:
            return
        threads = 1 if place.is_async else place.concurrency
        while life.active < place.concurrency and life.on_threads < threads:
            job = self._peek(stage)
            if job is None:
                break
            run = ThreadRun(self._pool, job, life.seat, life)
            run.is_seated = life.seat.has_cpus
            if not self._pool.launch(run):
                return
            heappop(stage.queue)
            del self._waiting[job.call.key]
            life.active += 1
            life.on_threads += 1
            life.seat.busy += run.is_seated
        if stage.is_stopping and self._is_idle(stage):
            self._remove(stage, make_stop_error(stage.making.call))

    def _peek(self, stage: Stage) -> Job | None:
        """Its first call that nobody has withdrawn."""
        while stage.queue:
            job = stage.queue[0][1]
            if self._waiting.get(job.call.key) is job and job.is_wanted():
                return job
            heappop(stage.queue)
        return None

    def _is_idle(self, stage: Stage) -> bool:
        """Whether it could end now, as it has nothing to do, and will have nothing."""
        if stage.state is _State.OPEN:
            return self._peek(stage) is None and stage.life is not None and not stage.life.active
        return stage.state is _State.DOWN

    def _remove(self, stage: Stage, error: BaseException) -> list[Job]:
        """An actor is no more; the calls that waited for it."""
        jobs = [job for _, job in sorted(stage.queue) if self._waiting.get(job.call.key) is job]
        for job in jobs:
            del self._waiting[job.call.key]
        making = self._pool.schedule.withdraw(stage.making.call.key)
        if making is not None and stage.is_owed:
            jobs.insert(0, making)
        self._close(stage)
        stage.state = _State.GONE
        del self._stages[stage.number]
        self._graves[stage.number] = error
        self._removed.append(stage.number)
        return jobs

    def _close(self, stage: Stage) -> None:
        life, stage.life = stage.life, None
        stage.state = _State.DOWN
        if life is not None:
            life.is_closing = True
            if not life.active:
                self._end_life(life)

    def _end_turn(self, life: Life) -> None:
        life.on_threads -= 1
        self._pool.schedule.end_turn(life.seat, life.on_threads)

    def _end_life(self, life: Life) -> None:
        self._pool.schedule.leave(life.seat)
        if life.worker is not None:
            self._pool.crew.dismiss(life.worker)

    def _explain_absence(self, number: int, job: Job) -> BaseException:
        error = self._graves.get(number)
        if error is not None:
            return renew(error)
        stage = self._stages.get(number)
        if stage is not None:
            return make_stop_error(stage.making.call)
        return make_absence_error(job.call)


def _explain_death(
    run: ThreadRun, stage: Stage, error: BaseException | None
) -> BaseException | None:
    """Why the actor does not live on after a call; None where it does, or was not made."""
    if run.is_given_up:
        death = WorkerDiedError(
            f"the actor {stage.name} did not yield when its call {describe_call(run.call)} was to end, and was given "
            f"up; its thread goes on"
        )
        death.call = describe_call(run.call)
        return death
    if error is None:
        return None
    # Sessions take a making's `WorkerDiedError` for the actor's end, whatever it comes from.
    has_died = has_exited(error) or (run.job.is_making and isinstance(error, WorkerDiedError))
    return error if has_died else None
