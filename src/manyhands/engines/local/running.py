"""What is kept of calls that run beside each other in one worker."""

from __future__ import annotations

from time import monotonic

from manyhands.core.interruption import Interruptible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task
    from typing import Any

    from manyhands.engines.local.host import Host


class Batch:
    """The calls that came with one message.

    Attributes
    ----------
    uses
        Ids of what was sent with it.
    left
        How many of them have not ended.
    """

    __slots__ = ("left", "uses")

    def __init__(self, uses: list[int], left: int) -> None:
        self.uses = uses
        self.left = left


class Running(Interruptible):
    """A call that is under way here; to the call it is the way to its session, see `manyhands.core.roles.Post`.

    Attributes
    ----------
    key, name, timeout, batch
    started : float
        When, by `time.monotonic`.
    ends_at
        When its time is over, or when it has to have yielded.
    error
        What it ends with, whatever it raises.
    task
        A coroutine's.
    credit
        Items of its stream that may still come.
    waits
        How many threads wait in it, for calls or for room in its stream.
    outstanding
        How many calls that it has made have not ended.
    """

    is_alone = False

    __slots__ = (
        "batch",
        "credit",
        "ends_at",
        "error",
        "host",
        "key",
        "name",
        "outstanding",
        "started",
        "task",
        "timeout",
        "waits",
    )

    def __init__(
        self, host: Host, key: int, batch: Batch, name: str, *, timeout: float | None, credit: int
    ) -> None:
        super().__init__()
        self.host = host
        self.key = key
        self.batch = batch
        self.name = name
        self.timeout = timeout
        self.started = monotonic()
        self.ends_at = None if timeout is None else self.started + timeout
        self.error: BaseException | None = None
        self.task: Task[Any] | None = None
        self.credit = credit
        self.waits = 0
        self.outstanding = 0

    def is_waiting(self) -> bool:
        """Whether it does not compute: a coroutine is thought to wait for the calls that it has made."""
        return self.waits > 0 or (self.task is not None and self.outstanding > 0)

    def emit(self, item: Any) -> None:
        self.host.emit_of(self, item)

    def is_awaited(self) -> bool:
        """Whether `emit` does not wait."""
        return self.credit > 0 or self.is_interrupted

    def keep(self, actor: int, state: Any) -> None:
        self.host.keep(actor, state)
