"""Where this code runs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from manyhands.core.roles import Putter

in_worker = False
"""Whether this process is a worker; set by the worker itself, at its start."""

putter: Putter | None = None
"""In a worker that shares memory with its session: where its calls put values."""
