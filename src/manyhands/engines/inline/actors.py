"""Actors whose calls run in their callers."""

from __future__ import annotations

import threading
from contextlib import nullcontext

from manyhands.core.acting import remove_actor
from manyhands.core.afterlife import (
    make_absence_error,
    make_again,
    make_revival_error,
    make_stop_error,
    renew,
)
from manyhands.core.attempt import has_exited
from manyhands.core.objects import Snapshot
from manyhands.engines.inline.runs import InlineRun
from manyhands.errors import WorkerDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from manyhands.core.model import ActorPlace, Call
    from manyhands.engines.inline.engine import InlineEngine


class Actor:
    """An actor, and the calls that wait until it is made again.

    Attributes
    ----------
    number
    making
        The call that makes it from its arguments.
    lock
        Held by each of its calls that run one after the other. A call may make another one, which runs inside of it.
    is_open
        Whether it takes calls.
    is_making
        Whether it is being made.
    waiting
        Calls, in their order.
    kept
        Its last state that was kept.
    """

    def __init__(self, number: int, making: Call, place: ActorPlace) -> None:
        self.number = number
        self.making = making
        self.lock: AbstractContextManager[Any] = (
            threading.RLock() if place.concurrency == 1 else nullcontext()
        )
        self.is_open = False
        self.is_making = False
        self.waiting: list[Call] = []
        self.kept: Snapshot | None = None

    def keep(self, state: Any) -> None:
        """Remember the actor's state, as it is now."""
        self.kept = Snapshot(state)


class Actors:
    """The actors of an engine.

    Parameters
    ----------
    engine
        Runs their calls.
    """

    def __init__(self, engine: InlineEngine) -> None:
        self._engine = engine
        self._actors: dict[int, Actor] = {}
        self._graves: dict[int, BaseException] = {}
        self._lock = threading.Lock()

    def start(self, number: int, call: Call, place: ActorPlace) -> None:
        """Make an actor."""
        actor = self._actors[number] = Actor(number, call, place)
        self.make(actor, call)

    def make(self, actor: Actor, call: Call) -> None:
        """Have the call run that makes it, and then those that wait."""
        actor.is_making = True
        self._engine.execute(InlineRun(self._engine, call, actor=actor, is_making=True))
        self._catch_up(actor)

    def find_made_by(self, call: Call) -> Actor | None:
        """The actor that a call makes, if it does."""
        for actor in list(self._actors.values()):
            if actor.making is call:
                return actor
        return None

    def find(self, call: Call) -> Actor:
        """The actor that a call is for.

        Raises
        ------
        ActorDiedError
        """
        number = call.options.actor
        actor = self._actors.get(number)
        if actor is not None:
            return actor
        error = self._graves.get(number)
        raise renew(error) if error is not None else make_absence_error(call)

    def submit(self, call: Call) -> None:
        """Run a call of an actor here, or keep it until the actor is made again."""
        actor = self.find(call)
        with self._lock:
            if not actor.is_open:
                actor.waiting.append(call)
                return
        self._run(actor, call)

    def _run(self, actor: Actor, call: Call) -> None:
        with actor.lock:
            if actor.is_open:
                self._engine.execute(InlineRun(self._engine, call, actor=actor))
                return
        self._engine.submit(call)  # it died while the call waited for its turn

    def _catch_up(self, actor: Actor) -> None:
        while actor.is_open and actor.waiting:
            with self._lock:
                call = actor.waiting.pop(0) if actor.waiting else None
            if call is not None:
                self._run(actor, call)

    def withdraw(self, key: int) -> bool:
        """Take back a call that waits; False where none does."""
        with self._lock:
            for actor in self._actors.values():
                for call in actor.waiting:
                    if call.key == key:
                        actor.waiting.remove(call)
                        return True
        return False

    def note_end(self, run: InlineRun, error: BaseException | None) -> BaseException | None:
        """A call of an actor has ended; what that died of, if it did."""
        actor = run.actor
        if actor is None:
            return None
        # Sessions take a making's `WorkerDiedError` for the actor's end, whatever it comes from.
        has_died = error is not None and (
            has_exited(error) or (run.is_making and isinstance(error, WorkerDiedError))
        )
        if run.is_making:
            actor.is_making = False
            actor.is_open = error is None and self._actors.get(actor.number) is actor
        elif has_died:
            actor.is_open = False
        return error if has_died else None

    def lose(self, actor: Actor, error: BaseException) -> None:
        """An actor has died: the session is told."""
        remove_actor(actor.number)
        if actor.number in self._actors:
            self._engine.sink.take_actor_end(actor.number, error)

    def restart(self, number: int) -> None:
        """Make an actor again that has died."""
        actor = self._actors.get(number)
        if actor is None or actor.is_open or actor.is_making:
            return
        actor.is_making = True
        call = make_again(actor.making, actor.kept)
        run = InlineRun(self._engine, call, actor=actor, is_making=True)
        _, error = self._engine.perform(run)
        self.note_end(run, error)
        if error is None:
            self._engine.sink.take_actor_return(number)
            self._catch_up(actor)
            self._engine.rouse()  # those who wait for the items of a stream
        else:
            death = error if has_exited(error) else make_revival_error(actor.making, error)
            self.lose(actor, death)

    def bury(self, number: int, error: BaseException) -> None:
        """Calls to an actor, those that wait and those to come, fail."""
        self._graves[number] = error
        actor = self._actors.pop(number, None)
        if actor is None:
            return
        actor.is_open = False
        with self._lock:
            calls, actor.waiting = actor.waiting, []
        calls += self._engine.drop_streams(actor)
        for call in calls:
            self._engine.sink.take_failure(call.key, renew(error), None)
        remove_actor(number)
        self._engine.rouse()

    def stop(self, number: int, *, kill: bool) -> None:
        """End an actor; its calls have ended, but for those of other threads."""
        actor = self._actors.get(number)
        if actor is None:
            return
        error = make_stop_error(actor.making)
        if kill:
            self._engine.end_runs(actor, error)
            self.bury(number, error)
            return
        with actor.lock:
            self.bury(number, error)

    def close(self) -> None:
        """The engine ends."""
        for number in list(self._actors):
            remove_actor(number)
