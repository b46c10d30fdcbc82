"""Where this code runs."""

from __future__ import annotations

in_worker = False
"""Whether this process is a worker; set by the worker itself, at its start."""
