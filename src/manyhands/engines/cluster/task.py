"""What a cluster's worker is sent: how its session is set up, and one attempt at a call."""

from __future__ import annotations

from dataclasses import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from manyhands.engines.cluster.bundle import Bundle
    from manyhands.engines.cluster.packed import Packed


@dataclass(frozen=True, slots=True)
class Settings:
    """How a session's calls run, wherever they do.

    Attributes
    ----------
    session
        Names it, uniquely.
    workers
        How many calls run at a time.
    initializer
        What each process runs before its first call: a function and its arguments, packed; None for nothing.
    log_levels
        Of the program's loggers that have one; None where logging was not set up.
    bundle
        Modules and files that it ships; None for nothing.
    env
        Variables of the environment, set before anything of the session's runs.
    """

    session: str
    workers: int
    initializer: Packed | None = None
    log_levels: dict[str, int] | None = None
    bundle: Bundle | None = None
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at a call.

    Attributes
    ----------
    session
        Whose settings hold.
    id
        Unique among all attempts of all sessions.
    topic
        Where messages about it go: to the session that made it, which may be one inside another call.
    key
        The call's, in that session.
    name
        What errors call it.
    function
        The table and the number by which the function is known, and the function, packed.
    arguments
        Packed.
    timeout, window
        As of `manyhands.core.model.CallOptions`.
    is_async
        Whether it runs on an event loop, beside others.
    """

    session: str
    id: str
    topic: str
    key: int
    name: str
    function: tuple[str, int, Packed]
    arguments: Packed
    timeout: float | None = None
    window: int = 0
    is_async: bool = False
