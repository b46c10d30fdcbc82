"""What is told of calls between a session's program and its workers."""

from __future__ import annotations

from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from manyhands.engines.cluster.packed import Packed
    from manyhands.engines.parsl.files import Token


@dataclass(frozen=True, slots=True)
class Door:
    """How a worker finds the program.

    Attributes
    ----------
    session
    addresses
        Where the program may be reached, as seen from the workers.
    port
    server
        The public key of the program.
    public, secret
        The keys of the session's workers.
    host
        Names the program's machine.
    folder
        Where values are shared, and a file in it that tells whether it is the same one.
    probe
    """

    session: str
    addresses: tuple[str, ...]
    port: int
    server: bytes
    public: bytes
    secret: bytes
    host: str
    folder: str | None
    probe: str


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker says of itself when it comes.

    Attributes
    ----------
    name
        Unique among all workers of the session.
    versions
        See `manyhands.engines.cluster.versions.tell_versions`.
    sees_folder
        Whether it sees the folder of values.
    """

    name: str
    versions: dict[str, str]
    sees_folder: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of a call.

    Attributes
    ----------
    value
        Its result.
    stubs
        Of the refs in that; they keep the values behind them.
    message
        What the station told of its end: seconds, and the result where that is small.
    failure
        Its packed error.
    joined
        The id of the call that it goes on as.
    worker, loss
        The name of the worker that was lost with it, and how.
    trouble
        Why no worker can run it.
    """

    value: Packed | Token | None = None
    stubs: tuple[Any, ...] = ()
    message: tuple[Any, ...] | None = None
    failure: bytes | None = None
    joined: str | None = None
    worker: str = ""
    loss: str | None = None
    trouble: str | None = None


class Handle:
    """A call that was launched.

    Attributes
    ----------
    id
    ending
        None until it has ended.
    """

    def __init__(self, name: str) -> None:
        self.id = name
        self.ending: Ending | None = None

    def get_value(self) -> Any:
        """The result of a call that has ended well."""
        assert self.ending is not None
        return self.ending.value
