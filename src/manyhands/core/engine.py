"""The waist of the house: what an engine is, and what a session is to an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from manyhands.core.model import Call, Capabilities, EngineConfig, EngineStats, MemoryFacts
    from manyhands.core.refs import Ref


class Sink(Protocol):
    """Where an engine puts what becomes of calls; a session, seen from below.

    It may be used from any thread. It never blocks and never raises.
    """

    def take_results(self, results: Sequence[tuple[int, Any]]) -> None:
        """Calls ended well: pairs of a call's key and what `Engine.load` makes the result of."""

    def take_error(self, key: int, error: BaseException) -> None:
        """A call failed: its own error, or what happened to its worker."""

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

    def cancel(self, keys: Iterable[int], *, kill: bool = False) -> set[int]:
        """Give calls back that have not started.

        Parameters
        ----------
        keys
            Of calls; unknown ones are ignored.
        kill
            Also stop those that run, where the engine can, by the death of their workers.

        Returns
        -------
        set of int
            The calls that will not come to the sink any more.
        """

    def is_running(self, key: int) -> bool:
        """Whether a worker is at this call right now."""

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `is_done`, lending the caller's thread to the engine where it can use it.

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
