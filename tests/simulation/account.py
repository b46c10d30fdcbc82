"""What has to hold, whatever happens: checked at every step."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from manyhands.core.resources import SHARES
from manyhands.engines.local import messages as m
from manyhands.errors import (
    ActorDiedError,
    CallTimeoutError,
    DependencyError,
    InvalidArgumentError,
    OutOfMemoryError,
    WorkerDiedError,
)
from tests.simulation.scripts import PlannedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.scripts import Script, SimulatedActor
    from tests.simulation.worker import SimulatedWorker
    from tests.simulation.world import World


class ViolationError(BaseException):
    """An invariant does not hold.

    No `Exception`, so that it comes through all that takes errors of callbacks and calls.

    Attributes
    ----------
    script : Script or None
        The call concerned.
    """

    script: Script | None = None


def violate(script: Script | None, what: str) -> None:
    """Say that something does not hold."""
    error = ViolationError(f"{script}: {what}" if script is not None else what)
    error.script = script
    raise error


class Account:
    """Hears of all that happens in a world.

    Attributes
    ----------
    unsent_at : int
        The step at which there was no room for a message last.
    outstanding : set of int
        Keys of the program's calls that the engine has, and has to bring to an end.
    used
        What running calls hold, in shares and bytes, by name; "cpus" are those that compute.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.outstanding: set[int] = set()
        self.used: dict[str, int] = {}
        self.unsent_at = 0
        self._limits: dict[str, int] = {}

    def set_limits(
        self, cpus: int, devices: tuple[str, ...], memory: int, named: dict[str, int]
    ) -> None:
        """What there is."""
        self._limits = {"cpus": cpus * SHARES, "memory": memory}
        self._limits.update((f"device {device}", SHARES) for device in devices)
        self._limits.update((name, amount * SHARES) for name, amount in named.items())
        self.used = dict.fromkeys(self._limits, 0)

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
            for lane in pool._lanes.values()
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
            self._check_devices(worker, script, environment)
            if not worker.process.is_killed:
                self._hold(worker, script)

    def _may_still_begin(self, worker: SimulatedWorker, script: Script) -> bool:
        """Whether it was cancelled, and the news of that is on its way to the worker."""
        if script.outcome != "cancelled":
            return False
        if worker.settings[
            "is_host"
        ]:  # what it has read it begins, and reads of the cancellation after that
            return script.read_at <= script.ended_step
        if len(worker.process.forbidden) == len(m.CANCELLED_KEYS):  # there was no room for one more
            return script.read_at <= script.ended_step
        if script.maker is not None and script.tries:
            # It had failed, and its maker had it tried again while it asked for its end.
            return True
        return "back" in worker.signals or script.taken_at <= script.ended_step

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

    def _check_devices(
        self, worker: SimulatedWorker, script: Script, environment: dict[str, str] | None
    ) -> None:
        shares = script.plan.options.need.gpu_shares
        if not shares:
            return
        visible = (environment or {}).get("CUDA_VISIBLE_DEVICES", "")
        if visible.count(",") + bool(visible) != -(-shares // SHARES):
            violate(script, f"needs {shares} shares of devices, and sees {visible!r}")
        if worker.visible not in (None, visible):
            violate(script, f"sees {visible}, and its process has seen {worker.visible}")
        worker.visible = visible

    def _hold(self, worker: SimulatedWorker, script: Script) -> None:
        """A run takes what it needs."""
        script.holds = True
        for name, amount in self._list_held(script, worker):
            self.used[name] += amount
            if self.used[name] > self._limits[name]:
                violate(script, f"{name} overdrawn: {self.used[name]} of {self._limits[name]}")
        if not worker.process.is_orphan:
            self._take_cpus(script)

    def _release(self, worker: SimulatedWorker, script: Script) -> None:
        """A run gives back what it has taken."""
        self._give_cpus(script)
        if script.holds:
            script.holds = False
            for name, amount in self._list_held(script, worker):
                self.used[name] -= amount

    def _take_cpus(self, script: Script) -> None:
        script.has_cpus = True
        self.used["cpus"] += script.plan.options.need.cpu_shares
        if self.used["cpus"] > self._limits["cpus"]:
            others = [s for w in self._world.workers for s in w.running.values() if s.has_cpus]
            violate(script, f"computes, and the cpus are overdrawn: {others}")

    def _give_cpus(self, script: Script) -> None:
        if script.has_cpus:
            script.has_cpus = False
            self.used["cpus"] -= script.plan.options.need.cpu_shares

    @staticmethod
    def _list_held(script: Script, worker: SimulatedWorker) -> list[tuple[str, int]]:
        """What a call holds beside cpus."""
        need = script.plan.options.need
        if need.is_plain:
            return []
        held = [("memory", need.memory), *need.named_shares]
        if need.gpu_shares:
            devices = (worker.visible or "").split(",")
            held += [(f"device {device}", min(need.gpu_shares, SHARES)) for device in devices]
        return held

    def note_said(self, worker: SimulatedWorker, message: tuple[Any, ...]) -> None:
        """A worker has sent a message."""
        kind, script = message[0], worker.script
        if kind == m.BLOCKED:
            self._world.tell(script, "waits in", worker)
            assert script is not None
            self._give_cpus(script)
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
            self._take_cpus(script)

    def note_orphan(self, worker: SimulatedWorker) -> None:
        """A worker's template has ended: others have its cpus."""
        for script in worker.running.values():
            self._give_cpus(script)

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
        self._release(worker, script)
        if script.running is worker:
            script.running = None
        if script.plan.actor is not None:
            script.plan.actor.running.discard(script)

    def note_doomed(self, worker: SimulatedWorker) -> None:
        """A worker was killed: what it still does is of no account."""
        for script in worker.running.values():
            self._release(worker, script)

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
        if worker.stages.get(actor.number) is not actor:
            return False
        actor.running.add(script)
        if len(actor.running) > actor.limit:
            violate(script, f"runs beside others of its actor: {actor.running}")
        caller = script.outer.number if script.outer is not None else 0
        if actor.limit == 1 and script.begun == 1:
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

    # Ends.

    def note_made(self, script: Script, future: Any, maker: SimulatedWorker | None = None) -> None:
        """A call was made."""
        script.future = future
        script.maker = maker
        self._world.note_key(script, future.key)
        future.notify(lambda ended: self._note_end(script, ended))

    def _note_end(self, script: Script, future: Any) -> None:
        if script.outcome:
            violate(script, f"ends twice: {script.outcome}")
        error = None if future.cancelled() else future.peek_error()
        script.outcome = (
            "cancelled"
            if future.cancelled()
            else "value"
            if error is None
            else type(error).__name__
        )
        script.ended_at = self._world.now
        script.ended_step = self._world.steps
        self._world.tell(script, "ends:", script.outcome)
        if script.outcome == "cancelled":
            self._check_cancelled(script)
        elif error is not None:
            self._check_error(script, error)
        elif not script.values:
            violate(script, "ends with a value, and no run of it has returned one")
        elif self._world.toss(0.5):
            self.check_value(script, future.result())

    def _check_cancelled(self, script: Script) -> None:
        if script.ends & {"cancelled", "closed"} or self._world.is_closing:
            return
        if any(source.outcome == "cancelled" for source in script.inputs):
            return
        violate(script, "ends as cancelled, and nobody cancelled it")

    def check_value(self, script: Script, value: object) -> None:
        """A result was read."""
        known = script
        while any(one.startswith("=") for one in known.values):
            known = self._world.keys[
                int(next(one for one in known.values if one.startswith("="))[1:])
            ]
        if value not in known.values:
            violate(script, f"has the result {value!r}, and has returned {known.values}")

    def check_item(self, script: Script, item: object) -> None:
        """An item of a stream was taken."""
        if item != f"{script.number}.{script.items}":
            violate(script, f"gives {item!r} as its item {script.items}")
        script.items += 1

    def _check_error(self, script: Script, error: BaseException) -> None:
        plan = script.plan
        makes_calls = any(act[0] == "spawn" for acts in plan.runs for act in acts)
        if isinstance(error, DependencyError):
            is_right = any(source.outcome not in ("", "value") for source in script.inputs)
        elif isinstance(error, InvalidArgumentError):
            is_right = self._world.pool.capacity.explain_misfit(plan.options.need) is not None
        elif isinstance(error, ActorDiedError):
            is_right = plan.actor is not None and self._may_be_dead(plan.actor)
        else:
            is_right = self._is_last_try(script, error)
        if not is_right and makes_calls:
            is_right = isinstance(error, _OF_CALLS)
        if not is_right:
            violate(script, f"ends with what it cannot end with: {error!r}, after {script.tries}")

    def _is_last_try(self, script: Script, error: BaseException) -> bool:
        """Whether an error is one that an attempt may end with, and no further attempt was due."""
        policy, options = script.plan.options.policy, script.plan.options
        if isinstance(error, WorkerDiedError):
            is_right, allowed = script.deaths > 0, policy.worker_retries
        else:
            allowed = policy.retries
            is_right = isinstance(error, PlannedError) and error.args[0] == script.number
        if isinstance(error, CallTimeoutError):
            timeout = options.timeout
            is_over = self._world.now - script.started_at >= (timeout or 0)
            is_right = timeout is not None and (is_over or "timeout" in script.ends)
        elif isinstance(error, OutOfMemoryError):
            is_right = "memory" in script.ends
        is_death = isinstance(error, WorkerDiedError)
        alike = sum(isinstance(other, WorkerDiedError) == is_death for other in script.tries)
        return is_right and (alike == allowed + 1 or script.plan.kind == "stream")

    @staticmethod
    def _may_be_dead(actor: SimulatedActor) -> bool:
        """Whether an actor has reason not to answer any more."""
        return actor.is_ending or actor.ends > actor.restarts or actor.making.failures > 0

    def note_cancelled(self, worker: object, futures: Iterable[Any], *, running: bool) -> None:
        """Somebody is about to cancel calls."""
        for future in futures:
            script = self._world.keys.get(future.key)
            if script is not None and not script.outcome:
                self._world.tell(script, "is cancelled by", worker, "running" if running else "")
                script.ends.add("cancelled")

    def check_hang(self, script: Script) -> None:
        """A call returns that has run on and on: it must not be one that was to be ended."""
        now, actor = self._world.now, script.plan.actor
        if script.running is None or script.running.process.is_killed:
            return
        if script.outcome and now - script.ended_at > _PATIENCE:
            violate(script, f"has run on after its end: {script.outcome}")
        if actor is not None and actor.killed_at is not None and now - actor.killed_at > _PATIENCE:
            violate(script, "has run on after its actor was killed")

    def check_end(self) -> None:
        """Nothing happens any more, and the session is open: all has come to an end, and nothing is held."""
        world = self._world
        for script in world.scripts.values():
            if script.future is None or script.outcome:
                continue
            if script.maker is None or (script.maker.is_alive and "cancelled" not in script.ends):
                violate(script, "never ends")
        for what, rest in self._list_rest():
            if rest:
                violate(None, f"{what} is left at the end: {rest}")
        for name, amount in self.used.items():
            if amount:
                violate(None, f"{amount} of {name} are held at the end")

    def _list_rest(self) -> list[tuple[str, object]]:
        """What is to be empty where there is nothing to do."""
        world, pool = self._world, self._world.pool
        ledger, limits = world.session._ledger, world.engine.limits
        return [
            ("of what the engine has", self.outstanding),
            ("of the queue", pool._queued),
            (
                "of what is in flight",
                [w.inflight or w.joined for w in pool.workers.values() if w.inflight or w.joined],
            ),
            ("of workers that wait to go on", pool._resuming),
            ("of the life cycle", bool(ledger._life)),
            ("of the ledger", ledger._kept or ledger._delayed or ledger._inputs),
            ("of the session's futures", world.session._futures),
            ("of endings", limits.endings),
            ("of running calls", [w.running for w in world.workers if w.running]),
            ("of the capacity", _measure_taken(pool)),
        ]

    def check_close(self) -> None:
        """The session is closed, and nothing happens any more."""
        world = self._world
        for script in world.scripts.values():
            if script.future is not None and script.maker is None and not script.outcome:
                violate(script, "has not ended with its session")
        if world.workers:
            violate(None, f"workers live after the session: {world.workers}")

    def check_refusal(self, script: Script) -> None:
        """A call could not be cancelled, whether it ran or not: then it has ended, as will be heard."""
        engine = self._world.engine
        coming = [key for key, _ in engine.results] + [key for key, _, _ in engine.errors]
        if not script.outcome and script.key not in coming:
            violate(script, "was cancelled, also if it runs, and goes on")

    def note_timeout(self, key: int) -> None:
        """A host has seen that a call has run too long."""
        script = self._world.keys.get(key)
        self._world.tell(script, "has run too long")
        if script is not None:
            script.ends.add("timeout")

    def note_greed(self, key: int) -> None:
        """A call takes too much memory."""
        self._world.keys[key].ends.add("memory")


def _measure_taken(pool: Any) -> int:
    """Shares of cpus that are taken, and that no actor holds."""
    held = sum(stage.need.cpu_shares for stage in pool.stages.values() if stage.holds)
    capacity = pool.capacity
    taken: int = capacity._cpu_shares - capacity._free_cpus - held
    return taken


_PATIENCE = 10.0
"""Seconds after which a call has ended that was to be ended."""

_OF_CALLS = (
    PlannedError,
    WorkerDiedError,
    CallTimeoutError,
    CancelledError,
    DependencyError,
    ActorDiedError,
    OutOfMemoryError,
    InvalidArgumentError,
)
