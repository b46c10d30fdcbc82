"""Where this code runs: in the program, in a worker's process, or in a call."""

from __future__ import annotations

from _contextvars import ContextVar
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from manyhands.core.roles import Post, Putter

in_worker = False
"""Whether this process is a worker; set by the worker itself, at its start."""

putter: Putter | None = None
"""In a worker that shares memory with its session: where its calls put values."""

link: Any = None
"""In a worker that can ask its session for more calls: what the engine of nested sessions talks through."""

files: dict[str, str] | None = None
"""In a worker of the program's machine: where the files of its session are, by their names."""


class Late:
    """Stands for a session that is opened once a call asks for it.

    Parameters
    ----------
    make_engine
        Gives the engine of that session.

    Attributes
    ----------
    session
        None before it is open.
    """

    __slots__ = ("_lock", "_make_engine", "session")

    def __init__(self, make_engine: Callable[[], Any]) -> None:
        self._make_engine = make_engine
        self._lock = allocate_lock()
        self.session: Any = None

    def open(self, make: Callable[[Any], Any]) -> Any:
        """The session, which `make` makes of an engine."""
        with self._lock:
            if self.session is None:
                self.session = make(self._make_engine())
            return self.session


class Place:
    """The call that this thread, or asyncio task, is at, in an engine whose calls run in the caller's process.

    Parameters
    ----------
    session
        The one that the call belongs to, and that calls inside it use; a `Late` where it is not open yet.

    Attributes
    ----------
    key : int
        The call's.
    post : Post or None
        What the call sends to its session while it runs.
    """

    __slots__ = ("_session", "key", "post")

    def __init__(self, session: Any, key: int, post: Post | None = None) -> None:
        self._session = session
        self.key = key
        self.post = post

    @property
    def session(self) -> Any:
        """The session that is open, or None."""
        found = self._session
        return found.session if type(found) is Late else found

    def open_session(self, make: Callable[[Any], Any]) -> Any:
        """The session, opened by `make` if need be."""
        found = self._session
        return found.open(make) if type(found) is Late else found


here: ContextVar[Place | None] = ContextVar("manyhands_place", default=None)

post: Post | None = None
"""In a worker's process: the way from its calls to their session, unless `here` has one."""


def get_post() -> Post:
    """What the call that runs here sends through to its session."""
    place = here.get()
    found = place.post if place is not None and place.post is not None else post
    assert found is not None, "streams and actors run inside calls"
    return found
