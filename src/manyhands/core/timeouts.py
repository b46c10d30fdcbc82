"""What a call gets that has run out of time."""

from __future__ import annotations

from manyhands.errors import CallTimeoutError

GRACE_SECONDS = 1.0
"""How long a call has to yield after it was interrupted, before it is ended by force or given up."""


def make_timeout_error(
    name: str, key: int, timeout: float, ran: float, stack: str = ""
) -> CallTimeoutError:
    """The error of a call that has run too long.

    Parameters
    ----------
    name, key
        The call's.
    timeout, ran
        Seconds that it was allowed, and that it took.
    stack
        Where it stood, the innermost frame last; empty where that is not known.
    """
    error = CallTimeoutError(
        f"call {key}, {name}, had run for {ran:.3g} s and was ended: its timeout is {timeout:g} s. Give it more "
        f"(timeout=…), or less to do"
    )
    error.call, error.seconds = name, ran
    add_stack(error, stack)
    return error


def add_stack(error: CallTimeoutError, stack: str) -> None:
    """Say where the call stood, if it is known."""
    if stack:
        error.stack = stack
        error.add_note(f"Where it stood:\n{stack}")
