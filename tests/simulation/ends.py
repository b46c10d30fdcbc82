"""How calls end, and what is left when nothing happens any more."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from manyhands.core.timeouts import GRACE_SECONDS
from manyhands.errors import (
    ActorDiedError,
    CallTimeoutError,
    DependencyError,
    InvalidArgumentError,
    OutOfMemoryError,
    WorkerDiedError,
)
from tests.simulation.scripts import PlannedError
from tests.simulation.violations import violate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.scripts import Script, SimulatedActor
    from tests.simulation.worker import SimulatedWorker
    from tests.simulation.world import World


class Ends:
    """Sees to it that each call ends once, and as it may end.

    Attributes
    ----------
    outstanding : set of int
        Keys of the program's calls that the engine has, and has to bring to an end.
    settling : list of int
        Keys of the calls whose results the session is being told.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.outstanding: set[int] = set()
        self.settling: list[int] = []

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
        script.ended_look = self._world.driver.looks
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
        if value not in self._list_values(script):
            violate(script, f"has the result {value!r}, and has returned {script.values}")

    def _list_values(self, script: Script) -> set[str]:
        """What its runs have returned; where that is a call, what that one's have."""
        values = set()
        for one in script.values:
            inner = self._world.keys[int(one[1:])] if one.startswith("=") else None
            values |= {one} if inner is None else self._list_values(inner)
        return values

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
            now = self._world.now
            is_over = timeout is not None and (
                now - script.started_at >= timeout
                # A host that does not come to it is given up in the end.
                or now - script.sent_at >= timeout + 2 * GRACE_SECONDS
            )
            is_right = is_over or "timeout" in script.ends
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
        looks, actor = self._world.driver.looks, script.plan.actor
        if script.running is None or script.running.process.is_killed:
            return
        if script.outcome and looks - script.ended_look > _PATIENCE:
            violate(script, f"has run on after its end: {script.outcome}")
        killed_look = None if actor is None else actor.killed_look
        if killed_look is not None and looks - killed_look > _PATIENCE:
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
            (
                "of workers without a purpose",
                [w for w in pool.workers.values() if w.number not in pool.crew and not w.stages],
            ),
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
        key = script.key
        is_ending = key in self.settling or (
            key in self.outstanding and not self._world.pool.knows(key)
        )
        has_failed = any(source.outcome not in ("", "value") for source in script.inputs)
        if not (script.outcome or is_ending or has_failed):
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
    held = sum(
        stage.need.cpu_shares
        for stage in pool.stages.values()
        if stage.holds and not stage.is_paused
    )
    capacity = pool.capacity
    taken: int = capacity._cpu_shares - capacity._free_cpus - held
    return taken


_PATIENCE = 4
"""Looks of the engine at its clock after which a call has ended that was to be ended: see `SimulatedDriver.looks`."""

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
