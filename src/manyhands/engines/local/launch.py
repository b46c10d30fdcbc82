"""Starting a fresh interpreter that serves this package, as quickly as the system can."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PARENT_FD = 3
"""The descriptor at which this process finds its channel to the parent."""


def start_interpreter(
    code: str, channel: int, interpreter: dict[str, Any], environment: dict[str, str]
) -> int:
    """Start a fresh interpreter that runs `code` with `channel` at `PARENT_FD`; its process id.

    Parameters
    ----------
    code
        Python statements that find this package at once.
    channel
        A descriptor of the caller's, which keeps it.
    interpreter
        ``executable``, ``flags`` and ``root`` (the folder that holds this package).
    environment
        Of the new process.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        actions: list[Any] = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, channel, PARENT_FD),
        ]
        boot = f"import sys; sys.path.insert(0, {interpreter['root']!r}); {code}"
        command = [interpreter["executable"], *interpreter["flags"], "-S", "-P", "-c", boot]
        # A process group of its own: a terminal's Ctrl-C is for the parent, which sees to the workers.
        return os.posix_spawn(
            interpreter["executable"], command, environment, file_actions=actions, setpgroup=0
        )
    finally:
        os.close(null)
