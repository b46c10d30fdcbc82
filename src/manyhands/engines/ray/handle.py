"""How a value of a Ray cluster is named, in the program, in its workers and on the way between them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ray import ObjectRef


class Recipe:
    """A call that may have to run again, because the node has gone that kept its result.

    Attributes
    ----------
    task
        A `Task`, or a reference of Ray's to one that is large.
    inputs
        Values, and handles of such.
    is_async
        Whether it runs on an event loop.
    losses
        How often it was begun again for want of values that were lost.
    """

    __slots__ = ("inputs", "is_async", "losses", "task")

    def __init__(self, task: Any, inputs: list[Any], is_async: bool) -> None:
        self.task = task
        self.inputs = inputs
        self.is_async = is_async
        self.losses = 0


class Handle:
    """References of Ray's; where it goes, the value stays.

    Attributes
    ----------
    value
        Of the value.
    status
        Of what is told of the call that gave it, which is small; None for what no call gave.
    call
        The id of the call; empty for what no call of this process gave.
    error
        What came in the place of the status, once that is known.
    recipe
        How the value is made again if the cluster loses it; None where that is not known here, or not needed.
    """

    __slots__ = ("call", "error", "recipe", "status", "value")

    def __init__(
        self, value: ObjectRef | None, status: ObjectRef | None = None, call: str = ""
    ) -> None:
        self.call = call
        self.value = value
        self.status = status
        self.error: BaseException | None = None
        self.recipe: Recipe | None = None

    def __reduce__(self) -> tuple[type[Handle], tuple[ObjectRef | None, ObjectRef | None]]:
        return Handle, (self.value, self.status)
