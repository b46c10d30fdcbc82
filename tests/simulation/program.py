"""The program of a history: it opens a session, and does with it whatever chance has it do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyhands.core.model import ActorPlace
from manyhands.core.resources import make_need
from tests.simulation.copies import get_family
from tests.simulation.plans import TASKS, Planner
from tests.simulation.scripts import Plan, Script, SimulatedActor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.simulation.world import World

_NO_NEED = make_need(cpus=0)
_ACTOR_NEEDS = (
    _NO_NEED,
    make_need(cpus=0, gpus=0.5),
    make_need(cpus=1),
    make_need(cpus=1, gpus=0.5),
)
_MEMORY = 2_000_000_000


class Program:
    """What users do.

    Attributes
    ----------
    left : int
        How much it still does.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        # Many short histories find more than a few long ones; some things take long, though.
        self.left = 3 + world.pick(8 if world.toss(0.95) else 60)
        self._made: list[Script] = []
        self._streams: list[tuple[Script, Any]] = []
        self._actors: list[SimulatedActor] = []
        self._planner = Planner(world.rng, self._actors)
        self._closes_early = world.toss(0.15)
        self._deeds = self._choose_deeds()
        self._session: Any = None

    def _choose_deeds(self) -> list[Callable[[], None]]:
        """What it does, the more often the more often it is in the list."""
        deeds = [self._submit] * 12 + [self._submit_many] * 2 + [self._cancel] * 3
        deeds += [self._world.strike] * 2 + [self._read]
        if self._world.toss(0.5):
            deeds += [self._start_actor] * 2 + [self._call_actor] * 6 + [self._end_actor]
        if self._world.toss(0.4):
            deeds += [self._start_stream] * 2 + [self._take_items] * 4 + [self._close_stream]
        if self._world.toss(0.2):
            deeds.append(self._restart_workers)
        return deeds

    def open_session(self) -> Any:
        """Open the session."""
        world = self._world
        workers = 1 + world.pick(3)
        devices = ("a", "b")[: world.pick(3)]
        licences = world.pick(3)
        world.account.holdings.set_limits(workers, devices, _MEMORY, {"licence": licences})
        session = (
            get_family()
            .load("manyhands.session")
            .Session(
                engine="local",
                workers=workers,
                gpus=devices,
                memory=_MEMORY,
                resources={"licence": licences},
                min_workers=world.pick(workers + 1) if world.toss(0.3) else None,
                max_calls_per_worker=1 + world.pick(6) if world.toss(0.15) else None,
            )
        )
        self._session = session
        return session

    def act(self) -> None:
        """Do something."""
        self.left -= 1
        self._deeds[int(self._random() * len(self._deeds))]()
        if not self.left and self._closes_early:
            self._close()

    # Calls.

    def _submit(self) -> None:
        inputs = []
        if self._made and self._world.toss(0.2):
            inputs = [self._pick(self._made) for _ in range(1 + self._world.pick(2))]
        script = self._start(self._planner.make_call(), inputs)
        if self._world.toss(0.05):
            script.future.notify(lambda _: self._come_back())

    def _submit_many(self) -> None:
        for _ in range(2 + self._world.pick(6)):
            self._start(self._planner.make_quick())

    def _start(self, plan: Plan, inputs: list[Script] | None = None) -> Script:
        script = self._world.stage(plan)
        script.inputs = inputs or []
        arguments = (script.number, *(source.future for source in script.inputs))
        future = self._session.start_call(plan.task, arguments, {}, plan.options)
        self._world.account.note_made(script, future)
        self._made.append(script)
        return script

    def _come_back(self) -> None:
        """A callback that uses the session while it delivers."""
        if not self._world.is_closing and self.left > 0:
            self._deeds[self._world.pick(15)]()

    def _pick(self, items: Sequence[Any]) -> Any:
        return items[int(self._random() * len(items))]

    def _cancel(self) -> None:
        pending = [script for script in self._made[-12:] if not script.outcome]
        if not pending:
            return
        script = self._pick(pending)
        running = self._world.toss(0.6)
        self._world.account.note_cancelled("the program", [script.future], running=running)
        if not script.future.cancel(running=running) and not script.outcome:
            script.ends.discard("cancelled")
            if running:
                self._world.account.check_refusal(script)

    def _read(self) -> None:
        ended = [script for script in self._made if script.outcome == "value"]
        if ended:
            script = self._pick(ended)
            self._world.account.check_value(script, script.future.result())

    def _restart_workers(self) -> None:
        self._world.tell(None, "the workers are restarted")
        self._session.restart_workers()

    # Actors.

    def _start_actor(self) -> None:
        if len(self._actors) >= 3:
            return
        world = self._world
        is_light = world.toss(0.4)
        concurrency = 3 if world.toss(0.2) else 1
        need = _NO_NEED if is_light else self._pick(_ACTOR_NEEDS)
        if need.gpu_shares and not world.engine.config.gpus:
            need = _NO_NEED
        restarts = world.pick(3)
        acts = self._pick([[("work", 0.0)]] * 6 + [[("raise",)], [("work", 0.1), ("die",)]])
        plan = Plan(TASKS[3], [acts, [("work", 0.0)]], kind="making")
        making = world.stage(plan)
        actor = SimulatedActor(making, need, restarts, concurrency, is_light=is_light)
        plan.actor = actor
        self._session.start_actor(
            actor,
            (making.number,),
            {},
            ActorPlace(need, is_light=is_light, concurrency=concurrency),
            methods={},
            restarts=restarts,
            every=1 if restarts and world.toss(0.5) else 0,
            name=None,
        )
        self._actors.append(actor)

    def _call_actor(self) -> None:
        if not self._actors:
            return
        actor = self._pick(self._actors)
        for _ in range(1 + self._world.pick(4)):
            self._start(self._planner.make_method(actor))

    def _end_actor(self) -> None:
        if self._actors:
            self._stop(self._pick(self._actors), kill=self._world.toss(0.5))

    def _stop(self, actor: SimulatedActor, *, kill: bool) -> None:
        actor.is_ending = True
        if kill and actor.killed_look is None:
            actor.killed_look = self._world.driver.looks
        self._world.tell(actor.making, "is stopped", "at once" if kill else "")
        self._session.stop_actor(actor.number, kill=kill)

    # Streams.

    def _start_stream(self) -> None:
        plan = self._planner.make_stream()
        script = self._world.stage(plan)
        stream = self._session.start_stream(plan.task, (script.number,), {}, plan.options)
        self._world.account.note_made(script, stream._future)
        self._streams.append((script, stream))

    def _take_items(self) -> None:
        for script, stream in self._streams[-3:]:
            self._take(script, stream)

    def _take_all(self) -> bool:
        """Take what has come of all streams; whether there was anything."""
        taken = [self._take(script, stream) for script, stream in self._streams]
        return any(taken)

    def _take(self, script: Script, stream: Any) -> bool:
        """Take what has come of a stream; whether there was anything."""
        if stream._is_over or not stream._is_ready():
            return False
        try:
            while stream._is_ready():
                self._world.account.check_item(script, next(stream))
        except StopIteration:
            pass
        except BaseException as error:
            if isinstance(error, AssertionError) or not script.outcome:
                raise
        return True

    def _close_stream(self) -> None:
        if self._streams:
            script, stream = self._pick(self._streams)
            if not script.outcome:
                self._world.account.note_cancelled("the program", [stream._future], running=True)
            stream.close()

    # The end.

    def finish(self) -> None:
        """All that it had to do is done: see that all has come to an end, and close."""
        world = self._world
        if not world.is_closing:
            while self._take_all():
                world.settle()
            for actor in self._actors:
                if not actor.is_ending:
                    self._stop(actor, kill=False)
                    world.settle()
            while self._take_all():
                world.settle()
            world.account.check_end()
            world.account.holdings.check_rest()
            self._close()
        world.settle()
        world.account.check_close()

    def _close(self) -> None:
        world = self._world
        world.is_closing = True
        self.left = 0
        world.tell(None, "the session is closed")
        self._session.close()
        self.let_go()

    def let_go(self) -> None:
        """Have no stream ask for its end when it is collected."""
        for script, stream in self._streams:
            stream._is_over = True
            script.ends.add("closed")
