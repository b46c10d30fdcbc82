"""What parts of the core ask of those who use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from manyhands.core.future import Future
    from manyhands.core.mapping import Paces, Part
    from manyhands.core.model import CallOptions
    from manyhands.core.parcels import Piece
    from manyhands.core.refs import Record, Ref


class Owner(Protocol):
    """What a future asks of the session that made it."""

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        """Wait, driving the engine where that is free, until `is_done`; False where time ran out first.

        `key` is that of the one call that is waited for, if it is one.
        """

    def cancel_call(self, future: Future[Any], *, running: bool) -> bool:
        """Withdraw the future's call where it has not started, and with `running` also where it has."""

    def cancel_calls(self, futures: Iterable[Future[Any]], *, running: bool = False) -> None:
        """The same of several, at once."""

    def is_call_running(self, future: Future[Any]) -> bool:
        """Whether a worker is at the future's call right now."""

    def look(self) -> None:
        """Somebody asks whether the future is done, and does not wait."""

    def attend(self) -> None:
        """Somebody waits by means of their own: see to it that results are taken in meanwhile."""


class StreamOwner(Protocol):
    """What a stream asks of the session that made it."""

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        """Wait until `is_done`; `key` is that of the stream's call."""

    def attend(self) -> None:
        """Somebody waits by means of their own."""

    def cancel_calls(self, futures: Iterable[Future[Any]], *, running: bool = False) -> None:
        """Withdraw calls; with `running` also those that run."""

    def grant(self, future: Future[Any], items: int) -> None:
        """So many items more were taken."""

    def load_item(self, item: Any) -> tuple[Any, BaseException | None]:
        """The item behind what came, or the error that keeps it from being one."""


class Submitter(Protocol):
    """What a map needs of a session."""

    @property
    def workers(self) -> int:
        """How many share the work."""

    @property
    def paces(self) -> Paces:
        """How quick functions were in earlier maps."""

    def start_call(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Future[Any]:
        """Submit one call."""

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `is_done`."""

    def cancel_calls(self, futures: Iterable[Future[Any]], *, running: bool = False) -> None:
        """Withdraw calls; with `running` also those that run."""

    def attend(self) -> None:
        """Somebody waits by means of their own: see to it that results are taken in meanwhile."""

    def rouse(self) -> None:
        """What somebody may wait for has come about without a call's end: have all that wait look again."""

    def discount_batch(self, *, failed: bool) -> None:
        """A call that ended was a batch, and no call of the user's."""

    def count_retry(self) -> None:
        """An item of a map is tried again."""

    def count_items(self, items: int, failed: int) -> None:
        """Items of a map have ended."""


class Input(Protocol):
    """Where the items of a map come from, from front to back."""

    def take(self, size: int) -> Part | None:
        """The next `size` items, or fewer where no more are there; None where none is."""

    def count_remaining(self) -> int | None:
        """Items left; None where nobody knows."""

    def stop(self) -> None:
        """Nothing more is wanted."""


class Watcher(Protocol):
    """What shows a map's progress."""

    def advance(self, items: int, failed: int) -> None:
        """So many items more have ended, so many of them failed."""

    def close(self) -> None:
        """The map has ended."""


class Shelf(Protocol):
    """Where pickling puts large buffers, so that they need not be copied again."""

    def keep(self, raw: memoryview) -> Piece:
        """The bytes of `raw`, contiguous, shared: a copy of them, or themselves where they are shared already."""

    def keep_chunks(self, chunks: list[bytes]) -> Piece:
        """A copy of the bytes of all chunks together."""


class Keeper(Protocol):
    """What a ref asks of whoever keeps its value."""

    def read(self, record: Record) -> Any:
        """The value."""

    def locate(self, record: Record) -> str:
        """Where it is."""

    def describe(self, record: Record) -> str:
        """Size and place in words."""

    def hand_out(self, record: Record) -> Ref[Any]:
        """A ref: always the same one as long as it lives."""


class Putter(Protocol):
    """Where values can be put."""

    def put(self, value: Any, *, writable: bool, copy: bool) -> Ref[Any]:
        """Store a value."""

    def allocate(self, size: int) -> Any:
        """A writable buffer of shared memory, not cleared; None where no memory is shared."""


class Post(Protocol):
    """The way from a call that runs to its session, before it has ended.

    Attributes
    ----------
    is_alone : bool
        Whether nothing else runs in the call's thread, not on an event loop either, so that it may wait.
    """

    is_alone: bool

    def emit(self, item: Any) -> None:
        """Send one item of a stream; waits while as many are there as nobody has taken."""

    def keep(self, actor: int, state: Any) -> None:
        """Send the state of an actor, of which it is made again if it dies."""


class Host(Submitter, Protocol):
    """What one who submits on behalf of others needs of a session."""

    def is_outstanding(self, key: int) -> bool:
        """Whether a call has been submitted and has not ended."""

    def cancel_keys(self, keys: Iterable[int], *, running: bool = False) -> None:
        """Withdraw calls; with `running` also those that run."""

    def close(self, grace: float = ...) -> None:
        """End the session."""
