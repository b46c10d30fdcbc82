"""This process's connection to Ray, of which there can be one: sessions share it."""

from __future__ import annotations

import os
import threading

# Read when Ray is imported: else it takes this machine's outward address for its own, and all can reach it.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Else it prints the failure of each call whose value nobody reads; sessions tell of failures.
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

import ray

from manyhands.errors import WorkerStartError

_HOST = "127.0.0.1"
"""Where a cluster of this machine listens; nobody else reaches it."""


class Connection:
    """Opened by the first session that needs it, closed by the last one.

    One that the program has opened by itself is used as it is, and left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._address = ""
        self._is_ours = False
        self._users = 0

    def open(self, address: str, workers: int) -> None:
        """Reach the cluster of an address.

        Parameters
        ----------
        address
            ``"local"`` for one of this machine, begun here; ``"auto"`` for the one that this machine is of; else host
            and port of Ray's client server.
        workers
            How many cpus one that is begun has; 0 for as many as there are.

        Raises
        ------
        WorkerStartError
        """
        with self._lock:
            if self._users and self._address != address:
                raise WorkerStartError(
                    f"this program uses the Ray cluster {self._address!r} already, and Ray allows one at a time; close "
                    f"the sessions on it before you open one on {address!r}"
                )
            if not self._users:
                self._is_ours = not ray.is_initialized()
                if self._is_ours:
                    _connect(address, workers)
                self._address = address
            self._users += 1

    def close(self) -> None:
        """A session needs it no more."""
        with self._lock:
            self._users -= 1
            if not self._users and self._is_ours:
                ray.shutdown()


def _connect(address: str, workers: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == "local":
            ray.init(
                "local",
                num_cpus=workers or None,
                include_dashboard=False,
                _node_ip_address=_HOST,
                **quiet,
            )
        elif address == "auto":
            ray.init("auto", **quiet)
        else:
            ray.init(f"ray://{address}", **quiet)
    except Exception as cause:
        raise WorkerStartError(
            f"no Ray cluster answers at {address!r}: {type(cause).__name__}: {cause}. Start one with "
            f"`ray start --head`, or use 'ray://local'"
        ) from cause


connection = Connection()
