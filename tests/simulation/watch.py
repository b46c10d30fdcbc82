"""Stands between session and engine, and counts what goes in and what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.world import World


class Watched:
    """An engine as a session sees it, with somebody who counts what goes in."""

    def __init__(self, engine: Any, world: World) -> None:
        self._engine = engine
        self._world = world
        self._account = world.account
        self.get_running = engine.get_running
        self.rouse = engine.rouse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def start(self, config: Any, sink: Any) -> None:
        """Start it, with somebody who counts what comes out."""
        self._engine.start(config, WatchedSink(sink, self._world))

    def submit(self, call: Any) -> None:
        """A call goes in."""
        script = self._world.scripts[call.args[0]]
        self._world.note_key(script, call.key)
        self._account.note_entered(call.key)
        try:
            self._engine.submit(call)
        except BaseException:
            self._account.outstanding.discard(call.key)
            raise

    def resubmit(self, key: int, attempt: Any) -> None:
        """A call goes in again."""
        self._account.note_entered(key)
        self._engine.resubmit(key, attempt)

    def start_actor(self, actor: int, call: Any, where: Any) -> None:
        """An actor is started."""
        script = self._world.scripts[call.args[0]]
        self._world.note_key(script, call.key)
        self._world.note_actor(actor, script)
        self._engine.start_actor(actor, call, where)

    def cancel(self, keys: Any, *, running: bool = False) -> set[int]:
        """Calls are given back."""
        withdrawn: set[int] = self._engine.cancel(keys, running=running)
        for key in withdrawn:
            self._account.note_returned(key, "withdrawn")
        return withdrawn


class WatchedSink:
    """A session as its engine sees it."""

    def __init__(self, sink: Any, world: World) -> None:
        self._sink = sink
        self._account = world.account

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def take_results(self, results: Any) -> None:
        """Calls have ended well."""
        for key, _ in results:
            self._account.note_returned(key, "a result")
        before = self._account.settling  # a callback may have led to another delivery
        self._account.settling = [*before, *(key for key, _ in results)]
        self._sink.take_results(results)
        self._account.settling = before

    def take_actor_end(self, actor: int, error: BaseException) -> None:
        """The worker of an actor has ended."""
        self._account.note_actor_end(actor)
        self._sink.take_actor_end(actor, error)

    def take_failure(self, key: int, error: BaseException, attempt: Any) -> None:
        """An attempt has failed."""
        self._account.note_returned(key, type(error).__name__)
        self._account.note_failure(key, error)
        self._sink.take_failure(key, error, attempt)
