"""Files that go with a session."""

from __future__ import annotations

from manyhands.core import place
from manyhands.core.luggage import find_among
from manyhands.session import get_session

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path


def find_file(name: str | os.PathLike[str]) -> Path:
    """Where a file of the session is, on the machine that this code runs on.

    Parameters
    ----------
    name
        As ``mh.Session(files=…)`` has it: the last part of the path that was given there, or the name that was chosen.
        What is in a folder of that name is found by a relative path, ``"folder/file"``.

    Returns
    -------
    Path
        In the program and in workers of the same machine that which was given; in workers of a cluster a copy, which is
        removed when the session ends.

    Raises
    ------
    FileNotFoundError
        The session has none of that name.

    Examples
    --------
    >>> import manyhands as mh
    >>> import pathlib
    >>> _ = pathlib.Path("numbers.txt").write_text("3 4")
    >>> def add(name):
    ...     return sum(map(int, mh.find_file(name).read_text().split()))
    >>> with mh.Session("threads", files=["numbers.txt"]) as session:
    ...     session.submit(add, "numbers.txt").result()
    7
    """
    return find_among(_list_files(), name)


def _list_files() -> Mapping[str, str]:
    if place.files is not None:
        return place.files
    here = place.here.get()
    # A worker of a cluster belongs to many sessions, and the call knows its own.
    of_call: Mapping[str, str] | None = getattr(here.post, "files", None) if here else None
    return of_call if of_call is not None else get_session().files
