"""How a value of a Ray cluster is named, in the program, in its workers and on the way between them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ray import ObjectRef


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
    """

    __slots__ = ("call", "error", "status", "value")

    def __init__(self, value: ObjectRef, status: ObjectRef | None = None, call: str = "") -> None:
        self.call = call
        self.value = value
        self.status = status
        self.error: BaseException | None = None

    def __reduce__(self) -> tuple[type[Handle], tuple[ObjectRef, ObjectRef | None]]:
        return Handle, (self.value, self.status)
