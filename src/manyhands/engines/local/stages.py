"""Actors, and the event loop of coroutines: calls that go to one worker and no other."""

from __future__ import annotations

from manyhands.core.acting import ActorMaker
from manyhands.core.afterlife import renew
from manyhands.core.model import ActorPlace, CallOptions
from manyhands.core.parcels import PlainInput
from manyhands.core.resources import make_need
from manyhands.engines.local.pool_parts import Entry, StageState
from manyhands.engines.local.pool_state import AHEAD_ON_STAGE
from manyhands.errors import ActorDiedError, InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from manyhands.core.functions import Function
    from manyhands.core.model import Call
    from manyhands.core.parcels import Payload
    from manyhands.engines.local.engine import LocalEngine

LOOP_STAGE = -1
"""The stage of coroutines: a worker with an event loop."""

_COROUTINES = 1000
"""Coroutines that run at a time."""


class Actor:
    """What is needed to make an actor, once more if need be.

    Attributes
    ----------
    making
        The call that makes it from its arguments.
    restorer
        The function that makes it of what was kept; None where nothing is kept.
    kept
        What was kept last.
    is_stopping
        Whether it ends when the calls that it has been given have.
    """

    __slots__ = ("is_stopping", "kept", "making", "restorer")

    def __init__(self, making: Entry, restorer: Function | None) -> None:
        self.making = making
        self.restorer = restorer
        self.kept: Payload | None = None
        self.is_stopping = False


class Stages:
    """The actors of an engine; used by the leading thread, but for `prepare`.

    Parameters
    ----------
    engine
        Has workers started and ended.
    """

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._actors: dict[int, Actor] = {}
        self._buried: dict[int, BaseException] = {}

    # Making.

    def prepare(self, actor: int, call: Call) -> Actor:
        """What makes an actor, pickled, in the caller's thread."""
        engine = self._engine
        function = engine.functions.register(call.fn)
        payload = engine.serializer.dump_arguments(call.args, call.kwargs)
        maker = call.fn
        assert isinstance(maker, ActorMaker)
        restorer = maker.make_restorer()
        return Actor(
            Entry(call.key, function, payload, CallOptions(actor=actor), stage=actor),
            None if restorer is None else engine.functions.register(restorer),
        )

    def start(self, number: int, actor: Actor, where: ActorPlace) -> None:
        """Have a place for an actor, and have it made there."""
        pool = self._engine.pool
        misfit = self._engine.explain_need(where.need)
        if misfit is not None:
            what = f"the actor {actor.making.function.name} cannot be made: {misfit}"
            self.refuse(number, ActorDiedError(what))
            self._engine.fail(actor.making, InvalidArgumentError(what))
            return
        is_host = where.is_light or where.concurrency > 1 or where.is_async
        limit = where.concurrency if is_host else AHEAD_ON_STAGE
        stage = StageState(number, where.need, limit, is_light=where.is_light, is_host=is_host)
        self._actors[number] = actor
        pool.add_stage(stage)
        pool.reopen_stage(stage, actor.making)
        self.give_places()

    def ensure_loop(self) -> None:
        """See that there is a worker for coroutines."""
        pool = self._engine.pool
        if LOOP_STAGE in pool.stages:
            return
        stage = StageState(LOOP_STAGE, make_need(cpus=0), _COROUTINES, is_light=False, is_host=True)
        pool.add_stage(stage)
        self.give_places()

    def refuse(self, number: int, error: BaseException) -> None:
        """An actor is not started: calls to it fail with `error`."""
        self._buried[number] = error

    def give_places(self) -> None:
        """Start workers for the actors whose turn has come."""
        engine = self._engine
        for stage in engine.pool.place_stages(engine.workers):
            engine.staff.hire(stage.number)

    def restart(self, number: int) -> None:
        """Make an actor again whose worker has ended."""
        stage = self._engine.pool.stages.get(number)
        actor = self._actors.get(number)
        if stage is None or actor is None:
            return
        making = actor.making
        if actor.kept is not None and actor.restorer is not None:
            making = self._make_restoring(actor, actor.restorer, actor.kept)
        self._engine.pool.reopen_stage(stage, making)
        self.give_places()

    def _make_restoring(self, actor: Actor, restorer: Function, kept: Payload) -> Entry:
        engine = self._engine
        value = PlainInput(kept) if isinstance(kept, bytes) else engine.store.forward(kept)
        payload = engine.serializer.dump_arguments((value,), {})
        making = actor.making
        return Entry(making.key, restorer, payload, making.options, stage=making.stage)

    # What happens to them.

    def note_result(self, entry: Entry) -> None:
        """A call to an actor has ended well: if it was the one that makes it, others may follow."""
        stage = self._engine.pool.stages.get(entry.stage)
        if stage is not None and stage.making is entry:
            stage.making = None

    def keep(self, number: int, payload: Payload) -> None:
        """An actor sends its state."""
        actor = self._actors.get(number)
        if actor is not None:
            actor.kept = payload

    def lose(self, numbers: Iterable[int], error: BaseException) -> None:
        """The worker of actors has ended."""
        for number in numbers:
            if number == LOOP_STAGE:
                self._reopen_loop()
                continue
            actor = self._actors.get(number)
            if actor is None:
                continue
            if actor.is_stopping:
                self.bury(number, self._describe_stop(actor))
            else:
                self._engine.note_actor_end(number, error)

    def _reopen_loop(self) -> None:
        stage = self._engine.pool.stages[LOOP_STAGE]
        stage.is_waiting = True
        self.give_places()

    def bury(self, number: int, error: BaseException) -> None:
        """An actor is no more: calls to it fail with `error`."""
        pool = self._engine.pool
        stage = pool.stages.get(number)
        worker = stage.worker if stage is not None else None
        self._actors.pop(number, None)
        self._buried[number] = error
        for entry in pool.remove_stage(number):
            self._engine.fail(entry, renew(error), can_repeat=False)
        if worker is not None:
            self._leave(number, worker.number)
        self.give_places()  # what it held is free

    def _leave(self, number: int, worker_number: int) -> None:
        """End a worker whose last actor is gone; others on it live on, and it lets go of this one."""
        worker = self._engine.pool.workers.get(worker_number)
        if worker is None:
            return
        if worker.stages:
            self._engine.staff.tell_actor_gone(worker_number, number)
        else:
            self._engine.staff.end_worker(worker_number)

    def stop(self, number: int, *, kill: bool) -> None:
        """End an actor: at once, or after the calls that it has been given."""
        actor = self._actors.get(number)
        stage = self._engine.pool.stages.get(number)
        if actor is None or stage is None:
            return
        actor.is_stopping = True
        error = self._buried.setdefault(number, self._describe_stop(actor))
        self._engine.pool.close_stage(stage)
        if not kill and (stage.inflight or self._engine.pool.has_waiting(stage)):
            return
        worker = stage.worker
        if worker is not None:
            for entry in [e for e in worker.inflight.values() if e.stage == number]:
                self._engine.limits.end_with(entry.key, error)
        self.bury(number, error)

    def check_stopping(self) -> None:
        """End actors that were to end after their calls."""
        for number, actor in list(self._actors.items()):
            if actor.is_stopping:
                self.stop(number, kill=False)

    def _describe_stop(self, actor: Actor) -> ActorDiedError:
        name = actor.making.function.name
        error = ActorDiedError(f"the actor {name} was stopped, and answers no more")
        error.actor = name
        return error

    def fail_orphans(self) -> None:
        """Calls to actors that there are no more get their answer."""
        for entry in self._engine.pool.take_orphans():
            error = self._buried.get(entry.stage)
            if error is None:
                error = ActorDiedError(
                    f"{entry.function.name}: this session has no such actor; it may be of another session"
                )
            self._engine.fail(entry, renew(error), can_repeat=False)
