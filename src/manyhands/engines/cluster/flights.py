"""Calls that a cluster has, and what they come back as."""

from __future__ import annotations

from manyhands.engines.cluster.packed import Packed, list_slots
from manyhands.errors import WorkerDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from manyhands.core.functions import Function
    from manyhands.core.model import Call
    from manyhands.core.parcels import Payload


class LostWorkerError(WorkerDiedError):
    """The worker that a call was given to has ended.

    Attributes
    ----------
    worker
        What the cluster called it.
    origin
        The id of the call; not of one that has it for an input.
    """

    def __init__(self, message: str, worker: str, origin: str) -> None:
        super().__init__(message)
        self.worker = worker
        self.origin = origin


class Result:
    """A result of a call that has ended, before anybody has read it.

    Attributes
    ----------
    native
        The cluster's handle.
    packed
        The value, where it is here; None where it is not.
    kept
        What its call was given: refs among that may come back, and have to be there until the result is read.
    """

    __slots__ = ("kept", "native", "packed")

    def __init__(self, native: Any, packed: Packed | None, kept: object = None) -> None:
        self.native = native
        self.packed = packed
        self.kept = kept


class Attempt:
    """A call as it was sent, in case that it is sent again."""

    __slots__ = ("arguments", "function", "inputs", "is_async", "key", "name", "options")

    def __init__(
        self, call: Call, function: Function, table: str, payload: Payload, *, name: str
    ) -> None:
        self.key = call.key
        self.name = name
        self.is_async = function.is_async
        self.function = (table, function.key, Packed.of(function.payload))
        self.arguments = Packed.of(payload)
        self.inputs = [slot.native for slot in list_slots(payload)]
        self.options = call.options

    @property
    def kept(self) -> object:
        """The handles of all refs in it."""
        return self.inputs, self.arguments.stubs, self.function[2].stubs


class Flight:
    """An attempt that the cluster has.

    Attributes
    ----------
    is_through
        Whether it has run, and gave a future, whose end is waited for.
    call
        Of one that was sent before its inputs had ended, the call with these; None until they have, and of others.
    losses
        How many workers have ended that it was given to and had not begun on.
    ended
        The handle of its result, where it has ended before its session knew of its inputs' end, or as it was withdrawn.
    is_withdrawing
        Whether the stations are being asked not to begin it.
    """

    __slots__ = (
        "attempt",
        "call",
        "ended",
        "id",
        "is_through",
        "is_withdrawing",
        "losses",
        "native",
        "packed",
    )

    def __init__(self, name: str, attempt: Attempt) -> None:
        self.call: Call | None = None
        self.ended: Any = None
        self.losses = 0
        self.id = name
        self.attempt = attempt
        self.native: Any = None
        self.packed: Packed | None = None
        self.is_through = False
        self.is_withdrawing = False
