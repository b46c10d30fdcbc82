"""How an invariant that does not hold is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tests.simulation.scripts import Script


class ViolationError(BaseException):
    """An invariant does not hold.

    No `Exception`, so that it comes through all that takes errors of callbacks and calls.

    Attributes
    ----------
    script : Script or None
        The call concerned.
    """

    script: Script | None = None


def violate(script: Script | None, what: str) -> NoReturn:
    """Say that something does not hold."""
    error = ViolationError(f"{script}: {what}" if script is not None else what)
    error.script = script
    raise error
