"""The waist of the house: what an engine is, and what a session is to an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from manyhands.core.actors import ActorLife
    from manyhands.core.model import (
        ActorPlace,
        Call,
        Capabilities,
        EngineConfig,
        EngineStats,
        MemoryFacts,
    )
    from manyhands.core.refs import Ref


class Sink(Protocol):
    """Where an engine puts what becomes of calls; a session, seen from below.

    It may be used from any thread. It never blocks and never raises.
    """

    def take_results(self, results: Sequence[tuple[int, Any]]) -> None:
        """Calls ended well: pairs of a call's key and what `Engine.load` makes the result of."""

    def take_failure(self, key: int, error: BaseException, attempt: Any) -> None:
        """An attempt at a call failed: its own error, or what happened to its worker.

        `attempt` is what `Engine.resubmit` takes to try the call once more, with the call's `CallOptions` as its
        attribute ``options``; None where it cannot be tried again.
        """

    def take_item(self, key: int, item: Any) -> None:
        """A generator that is run as a stream has yielded; `item` is for `Engine.load`."""

    def take_actor_end(self, actor: int, error: BaseException) -> None:
        """The worker of an actor has ended; calls to it wait until `restart_actor` or `bury_actor` is called."""

    def take_actor_return(self, actor: int) -> None:
        """An actor was made again; an engine that gives the result of the call that made it need not say so."""

    def adopt(self, life: ActorLife) -> int:
        """An actor is started by a call that runs elsewhere; the key of the call that makes it.

        Raises
        ------
        InvalidArgumentError
            There is an actor of its name.
        """

    def answer(self, question: str, *args: Any) -> Any:
        """Answer what a call that runs elsewhere asks of its session."""

    def cancel_children(self, key: int) -> None:
        """A call came to nothing: so do the calls that it has made here."""

    def take_breakdown(self, error: BaseException) -> None:
        """The engine can run nothing any more; every call that it holds has failed with `error`."""


class Engine(Protocol):
    """What owns workers and runs calls on them.

    A third-party engine implements these members and registers a factory under the entry point group
    ``manyhands.engines``. Every call that was given to `submit` ends exactly once at the sink, unless `cancel`
    gave it back.
    """

    name: str
    capabilities: Capabilities
    first_key: int
    """The key of the session's first call; others follow."""

    def start(self, config: EngineConfig, sink: Sink) -> None:
        """Start workers, or begin to: no need to wait until they are up.

        Raises
        ------
        WorkerStartError
            It is known already that they cannot start.
        """

    def submit(self, call: Call) -> None:
        """Take one call whose arguments are there; return at once.

        What the caller may change later (arguments, globals of the function) counts as it is at this moment.

        Raises
        ------
        UnpicklableError
            The call cannot travel. The engine has not taken it.
        """

    def resubmit(self, key: int, attempt: Any) -> None:
        """Try a call once more, with the arguments that it was submitted with; return at once."""

    def explain_misfit(self, call: Call) -> str | None:
        """Why the call could never run here, for want of resources, in a sentence; None where it can."""

    def load(self, value: Any) -> tuple[Any, BaseException | None]:
        """The result behind a value given to `Sink.take_results`, or the error that keeps it from being one."""

    def forward(self, value: Any) -> Any:
        """What stands among the arguments of a call for a value given to `Sink.take_results`, or for a ref's record.

        An engine that keeps results where they were made gives a stand-in, and the caller's process never reads
        the value; another gives the result itself.
        """

    def put(self, value: Any, *, writable: bool, copy: bool) -> Ref[Any]:
        """Store a value where the workers can read it; see `manyhands.put`.

        Raises
        ------
        UnpicklableError, StoreFullError
        """

    def allocate(self, size: int) -> Any:
        """A writable buffer of `size` bytes, not cleared, that workers can reach without a copy.

        None where memory is not shared, or where all workers share all memory of the caller.
        """

    def describe_memory(self) -> MemoryFacts:
        """What is stored."""

    def cancel(self, keys: Iterable[int], *, running: bool = False) -> set[int]:
        """Give calls back that have not started.

        Parameters
        ----------
        keys
            Of calls; unknown ones are ignored.
        running
            Also those that run: they are interrupted, and end with their workers where they do not yield.

        Returns
        -------
        set of int
            The calls that will not come to the sink any more.
        """

    def is_running(self, key: int) -> bool:
        """Whether a worker is at this call right now."""

    def ask(self, question: str, *args: Any) -> Any:
        """Have the question answered by the session that owns the workers: `Sink.answer` of it."""

    def look(self) -> None:
        """Take in what has come, without waiting, where nothing else does that while a call runs."""

    def get_running(self) -> int:
        """The key of the call that the caller's thread is at; 0 for none."""

    def grant(self, key: int, items: int) -> None:
        """The consumer of a stream has taken so many items more, and so many more may come."""

    def start_actor(self, actor: int, call: Call, place: ActorPlace) -> None:
        """Have a worker for an actor: `call` makes it there, and ends like any call.

        Calls whose options name the actor run there, in the order of their submission, after it is made.
        """

    def restart_actor(self, actor: int) -> None:
        """After `Sink.take_actor_end`: make it again, of the state that was kept last where there is one."""

    def bury_actor(self, actor: int, error: BaseException) -> None:
        """Calls to the actor, those that wait and those to come, fail with `error`."""

    def stop_actor(self, actor: int, *, kill: bool) -> None:
        """End the actor after the calls that were given to it so far, or at once; there is no `take_actor_end`."""

    def restart_workers(self) -> None:
        """Have fresh workers for calls to come; those that run calls end after them."""

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        """Wait until `is_done`, lending the caller's thread to the engine where it can use it.

        A call that waits gives its cpus to others meanwhile.

        Parameters
        ----------
        is_done
        timeout
            Seconds, or None.
        key
            That of the only call whose end matters; 0 where any may.

        Returns
        -------
        bool
            False where `timeout` seconds passed first.
        """

    def rouse(self) -> None:
        """Something ended without this engine: have those in `wait_until` look again."""

    def attend(self) -> None:
        """Somebody waits without `wait_until`: deliver results without anybody's thread."""

    def stats(self) -> EngineStats:
        """What was measured so far."""

    def close(self, grace: float) -> None:
        """Stop all workers and leave nothing behind. Calls that have not ended are forgotten.

        Parameters
        ----------
        grace
            Seconds that a worker has to end what it is at, before it is killed.
        """


class Chain(Protocol):
    """What an engine does beside that whose capabilities say that it chains."""

    def foresee(self, key: int) -> Any:
        """What stands in the place of the result of a call that has not ended; None where nothing can."""

    def anticipate(self, call: Call) -> None:
        """Take a call whose inputs have not all ended; `Engine.submit` comes when they have, or `forsake`."""

    def forsake(self, key: int) -> None:
        """Such a call will not be submitted; of others there is nothing to do."""
