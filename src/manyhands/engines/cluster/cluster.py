"""What an engine asks of the library whose cluster it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from manyhands.core.engine import Engine
    from manyhands.core.model import CallOptions, Capabilities
    from manyhands.engines.cluster.packed import Packed
    from manyhands.engines.cluster.task import Settings, Task


class Cluster(Protocol):
    """What an engine's own library does for a session.

    Attributes
    ----------
    name
        Of the engine.
    capabilities
    is_near
        Whether the workers are of this machine, and find the modules that this process finds.
    waits
        Whether another call runs in the place of one that waits only where that waits by `wait_for_any`.
    """

    name: str
    capabilities: Capabilities
    is_near: bool
    waits: bool

    def connect(
        self, workers: int, settings: Settings, topic: str, take: Callable[..., None]
    ) -> int:
        """Reach the workers, have a `Station` on each, and have messages of `topic` given to `take`.

        Parameters
        ----------
        workers
            How many calls may run at a time; 0 for as many as the cluster allows.

        Returns
        -------
        int
            How many do.

        Raises
        ------
        WorkerStartError
        """

    def launch(
        self, task: Task, inputs: list[Any], options: CallOptions, on_end: Callable[[Any], None]
    ) -> Any:
        """Have a worker run a task, given handles of its inputs; the handle of its result.

        The inputs may be of tasks that have not ended.
        `on_end` is called with that from any thread, once, when the task has ended.
        """

    def explain_end(self, native: Any) -> BaseException | None:
        """What a task failed with that has ended; None where it has its result."""

    def fetch(self, native: Any) -> Packed:
        """The value behind a handle."""

    def hold(self, native: Any) -> Any:
        """A handle that keeps its value in the cluster, for one that has come in a message."""

    def store(self, packed: Packed) -> Any:
        """Put a value into the cluster; its handle."""

    def ask(self, method: str, *args: Any, **options: Any) -> list[Any]:
        """Call a method of the session's stations, wherever there are some; what they answer."""

    def follow(self, native: Any, on_end: Callable[[Any], None]) -> Any:
        """The handle of a result that another session of the cluster waits for; see `launch`."""

    def drop(self, natives: list[Any]) -> None:
        """Have tasks given up that have not begun."""

    def release(self, native: Any) -> None:
        """Have a task given up that has not begun and nobody wants; does not wait for that."""

    def wait_for_any(self, natives: list[Any], seconds: float) -> None:
        """In a call: wait until one of these has ended, for so many seconds at most."""

    def report(self, *message: Any) -> None:
        """In a worker: send a message to the program's session."""

    def close(self, natives: list[Any]) -> None:
        """Give up what has not ended, leave the cluster, and end it where it was begun for this session."""


class Link(Protocol):
    """What the engine's own library does for a process of its workers.

    Attributes
    ----------
    waits
        Whether another call runs in the place of one that waits only while that waits by `doze`.
    """

    waits: bool

    def send(self, topic: str, message: tuple[Any, ...]) -> None:
        """Send a message to a session."""

    def fetch(self, native: Any) -> Packed:
        """The value behind a handle of the cluster."""

    def hold(self, native: Any) -> Any:
        """A handle that keeps its value in the cluster."""

    def publish(self, native: Any) -> None:
        """See to it that the session can follow a call that this process has made."""

    def doze(self) -> None:
        """In a call: wait until its session has asked something of this process, but not for long."""

    def leave(self) -> None:
        """In a call that waits: let another call run in its place."""

    def enter(self) -> None:
        """In a call that has waited: wait for a place to go on."""

    def make_engine(self, settings: Settings) -> Engine:
        """What runs calls that calls of this process make."""

    def die(self) -> None:
        """End this process."""
