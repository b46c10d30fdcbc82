"""What has to hold, whatever happens: checked at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyhands.engines.local import messages as m
from manyhands.errors import ActorDiedError
from tests.simulation.ends import Ends
from tests.simulation.holdings import Holdings
from tests.simulation.violations import violate

if TYPE_CHECKING:
    from tests.simulation.scripts import Script, SimulatedActor
    from tests.simulation.worker import SimulatedWorker
    from tests.simulation.world import World


class Account(Ends):
    """Hears of all that happens in a world.

    Attributes
    ----------
    holdings
        What running calls hold.
    unsent_at : int
        The step at which there was no room for a message last.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.holdings = Holdings(world)
        self.unsent_at = 0

    # Between session and engine.

    def note_entered(self, key: int) -> None:
        """The engine has got a call, or has got it again."""
        if key in self.outstanding:
            violate(self._world.keys.get(key), "was given to the engine twice")
        self.outstanding.add(key)

    def note_returned(self, key: int, how: str) -> None:
        """The engine has brought an attempt to an end, or given it back."""
        script = self._world.keys.get(key)
        self._world.tell(script, "comes back from the engine:", how)
        if key not in self.outstanding:
            if script is not None and script.plan.kind == "making":
                return
            violate(script, f"came back from the engine, which has not got it: {how}")
        self.outstanding.discard(key)

    def note_failure(self, key: int, error: BaseException) -> None:
        """A session hears that an attempt has failed."""
        script = self._world.keys.get(key)
        if script is not None:
            script.tries.append(error)

    def check_order(self, worker: Any, entries: list[Any]) -> None:
        """A worker is given calls: none that is more urgent, and that it could run, is left behind."""
        pool, entry = self._world.pool, entries[0]
        is_idle = len(worker.inflight) == len(entries)
        if worker.number not in pool.crew or not is_idle or pool._resuming:
            return
        if self.unsent_at == self._world.steps:  # what came back had its turn
            return
        waiting = [
            lane
            for lane in (*pool._lanes.values(), pool._plain)
            if any(pool._queued.get(other.key) is other for other in lane.entries)
        ]
        first = max(((lane.priority, lane.depth) for lane in waiting), default=(0, 0))
        urgent = [lane for lane in waiting if (lane.priority, lane.depth) == first]
        if len(urgent) != 1 or first <= (entry.options.priority, entry.depth):
            return  # of several of one rank, one may wait for what another is short of
        if pool.capacity.fits(urgent[0].need) and pool._may_see(worker, urgent[0].need):
            script = self._world.keys.get(entry.key)
            violate(script, f"goes before a call of priority {first[0]} and depth {first[1]}")

    # Running.

    def begin(
        self, worker: SimulatedWorker, key: int, script: Script, environment: dict[str, str] | None
    ) -> None:
        """A run begins."""
        self._world.tell(script, "begins in", worker)
        if script.key != key:  # the key that the program's session gave it
            violate(script, f"was sent as the call {key:#x}")
        script.begun += 1
        is_making = script.plan.kind == "making"
        if not is_making and script.begun > script.plan.most_runs:
            violate(
                script, f"runs for the {script.begun}. time, and may {script.plan.most_runs} times"
            )
        if script.running is not None and not script.running.process.is_killed:
            violate(script, f"begins in {worker}, and runs in {script.running}")
        if (
            script.outcome
            and not worker.process.is_killed
            and not self._may_still_begin(worker, script)
        ):
            violate(script, f"begins, and has ended: {script.outcome}")
        script.running = worker
        script.started_at = self._world.now
        script.is_urgent = False
        worker.running[script.number] = script
        self._check_place(worker, script)
        if script.plan.actor is None and not script.plan.task.is_async:
            self.holdings.check_devices(worker, script, environment)
            if not worker.process.is_killed:
                self.holdings.hold(worker, script)

    def _may_still_begin(self, worker: SimulatedWorker, script: Script) -> bool:
        """Whether it was cancelled after its worker had read it, with so many others that the worker is not told."""
        is_full = len(worker.process.forbidden) == len(m.CANCELLED_KEYS)
        return script.outcome == "cancelled" and is_full and script.read_at <= script.ended_step

    def _check_place(self, worker: SimulatedWorker, script: Script) -> None:
        """The pool has to know that the call is here, and what it holds."""
        pool = self._world.pool
        state = pool.workers.get(worker.number)
        if worker.process.is_killed or self._world.is_closing or script.plan.kind == "making":
            return
        if state is None or script.key not in state.inflight:
            violate(script, f"begins in {worker}, where the pool does not have it")
            return
        if worker.process.is_orphan:
            return
        if script.plan.task.is_async:
            return
        actor = script.plan.actor
        if actor is None:
            if state.need is not script.plan.options.need:
                violate(script, f"begins in {worker}, which holds {state.need}")
            return
        stage = pool.stages.get(actor.number)
        if stage is None:
            if not actor.is_ending:
                violate(script, "begins, and its actor is gone")
        elif not stage.holds or stage.worker is not state:
            violate(script, "begins, and its actor has no place, or another one")

    def note_said(self, worker: SimulatedWorker, message: tuple[Any, ...]) -> None:
        """A worker has sent a message."""
        kind, script = message[0], worker.script
        if kind == m.BLOCKED:
            self._world.tell(script, "waits in", worker)
            assert script is not None
            self.holdings.give_cpus(script)
            script.is_urgent = False
        elif kind == m.WAKE:
            assert script is not None
            script.is_urgent = message[1]
        elif kind == m.SUBMIT:
            self._world.note_key(self._world.scripts[int(message[4].split()[0])], message[2])

    def note_going_on(self, worker: SimulatedWorker) -> None:
        """A call that waited goes on."""
        script = worker.script
        if script is None:
            return
        self._world.tell(script, "goes on in", worker)
        process = worker.process
        if script.holds and not (script.is_urgent or process.is_orphan or process.is_killed):
            self.holdings.take_cpus(script)

    def end_run(self, worker: SimulatedWorker, script: Script, result: Any) -> None:
        """A run has ended in its worker."""
        is_future = not isinstance(result, (str, BaseException))
        self._world.tell(
            script, "has run:", f"the call {result.key:#x}" if is_future else repr(result)
        )
        self._leave(worker, script)
        if isinstance(result, BaseException):
            script.failures += 1
        else:
            script.values.add(result if type(result) is str else f"={result.key}")

    def _leave(self, worker: SimulatedWorker, script: Script) -> None:
        if worker.running.pop(script.number, None) is None:
            return
        self.holdings.release(worker, script)
        if script.running is worker:
            script.running = None
        if script.plan.actor is not None:
            script.plan.actor.running.discard(script)

    def note_doomed(self, worker: SimulatedWorker) -> None:
        """A worker was killed: what it still does is of no account."""
        for script in worker.running.values():
            self.holdings.release(worker, script)

    def note_dead(self, worker: SimulatedWorker) -> None:
        """A worker has ended."""
        lost = {
            key: self._world.keys[key] for key in self._list_lost(worker) if key in self._world.keys
        }
        lost.update((script.key, script) for script in worker.running.values())
        for script in lost.values():
            self._world.tell(script, "dies with", worker)
            script.deaths += 1
            self._leave(worker, script)
        for actor in worker.stages.values():
            self.end_actor(actor, worker)
        worker.stages.clear()

    def _list_lost(self, worker: SimulatedWorker) -> set[int]:
        """Keys of calls that a dead worker had taken up: it was about to begin them, or to send their results."""
        lost = set(worker.list_unsent())
        if not worker.settings["is_host"]:
            return lost | {worker.current}
        state = self._world.pool.workers.get(worker.number)
        taken = set() if state is None else set(state.inflight)
        for message in worker.unread:
            if message[0] == m.CALLS:
                taken.difference_update(message[1])
        return lost | taken

    # Actors.

    def make_actor(self, worker: SimulatedWorker, script: Script, fn: Any, payload: bytes) -> None:
        """An actor is made."""
        actor = script.plan.actor
        assert actor is not None
        actor.births += 1
        if actor.births > 1 + actor.restarts:
            violate(script, f"makes its actor for the {actor.births}. time")
        if actor.worker is not None and not actor.worker.process.is_killed:
            violate(script, f"makes its actor in {worker}, and it lives in {actor.worker}")
        if payload.startswith(b"k") and int(payload[1:]) > actor.kept:
            violate(script, f"restores what its actor has not kept: {payload!r}")
        assert fn.number == actor.number
        actor.worker = worker
        actor.running.clear()
        worker.stages[actor.number] = actor

    def enter_actor(self, worker: SimulatedWorker, script: Script) -> bool:
        """A call of an actor's begins to run; whether the actor is here."""
        actor = script.plan.actor
        assert actor is not None
        if actor.number not in worker.stages:
            return False
        actor.running.add(script)
        if len(actor.running) > actor.limit:
            violate(script, f"runs beside others of its actor: {actor.running}")
        caller = script.outer.number if script.outer is not None else 0
        is_delayed = script.inputs or script.tries or script.deaths  # so others may go before it
        if actor.limit == 1 and not is_delayed:
            last = actor.last_begun.get(caller, 0)
            if script.sequence < last:
                violate(
                    script,
                    f"begins after a later call of the same caller: {script.sequence} < {last}",
                )
            actor.last_begun[caller] = script.sequence
        return True

    def make_absence_error(self, script: Script) -> ActorDiedError:
        """What a call gets in a worker that its actor is not in."""
        actor = script.plan.actor
        assert actor is not None
        if not actor.is_ending:
            violate(script, "was sent to a worker that has not got its actor")
        return ActorDiedError("the actor is not in this worker any more")

    def keep_actor(self, worker: SimulatedWorker, script: Script) -> None:
        """A call of an actor that is kept has ended."""
        actor = script.plan.actor
        assert actor is not None
        if actor.restarts:
            actor.kept += 1
            worker.send((m.KEEP, actor.number, b"k%d" % actor.kept, []))

    def note_actor_end(self, number: int) -> None:
        """The worker has ended that an actor lived in, or was to live in."""
        self._world.actors[number].ends += 1

    def end_actor(self, actor: SimulatedActor, worker: SimulatedWorker) -> None:
        """An actor is gone from its worker."""
        if actor.worker is worker:
            actor.worker = None
            actor.running.clear()
