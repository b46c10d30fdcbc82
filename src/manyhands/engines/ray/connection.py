"""This process's connection to Ray, of which there can be one: sessions share it."""

from __future__ import annotations

import atexit
import os
import socket
import threading
from contextlib import suppress
from logging import getLogger
from time import monotonic

# Read when Ray is imported: else it takes this machine's outward address for its own, and all can reach it.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Else it prints the failure of each call whose value nobody reads; sessions tell of failures.
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
# Else what is asked of a cluster that was just left begins another one.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

import ray
from ray._private import worker as ray_worker
from ray._private.services import canonicalize_bootstrap_address

from manyhands.errors import WorkerDiedError, WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any

PULSE_SECONDS = 3.0
"""Between two questions whether the cluster is there."""

PATIENCE_SECONDS = 30.0
"""How long it has to answer."""

_AWAY = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray ends a program whose cluster has been away for so long, by default a minute; sessions say that it is gone."""

_KNOCK_SECONDS = 5.0
"""How long a head has to take a connection."""

_FAREWELL_SECONDS = 10.0
"""How long Ray has to let go of a cluster that is gone; it is left to itself then."""

_TURN_SECONDS = 0.5
"""How soon who waits for a value hears that the cluster is gone."""

_HOST = "127.0.0.1"
"""Where a cluster of this machine listens; nobody else reaches it."""


class Connection:
    """Opened by the first session that needs it, closed by the last one.

    One that the program has opened by itself is used as it is, and left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: Line | None = None
        self._users = 0

    @property
    def line(self) -> Line | None:
        """What is open."""
        return self._line

    def open(self, address: str, workers: int) -> Line:
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
            if self._line is not None and self._line.address != address:
                raise WorkerStartError(
                    f"this program uses the Ray cluster {self._line.address!r} already, and Ray allows one at a time; "
                    f"close the sessions on it before you open one on {address!r}"
                )
            if self._line is not None and self._line.is_lost:
                raise WorkerStartError(
                    f"{self._line.loss}; close the sessions on it before you open another one"
                )
            if self._line is None:
                self._line = Line(address, workers)
            self._users += 1
            return self._line

    def close(self) -> None:
        """A session needs it no more."""
        with self._lock:
            self._users -= 1
            line = self._line
            if not self._users and line is not None:
                self._line = None
                line.close()


class Line:
    """A connection that is open; says when the cluster is gone.

    Attributes
    ----------
    address
    is_ours
        Whether it was made for sessions, and not by the program.
    loss
        What has happened to the cluster; empty while it is there.

    Raises
    ------
    WorkerStartError
    """

    def __init__(self, address: str, workers: int) -> None:
        self.address = address
        self.is_ours = not ray.is_initialized()
        self.loss = ""
        self._losing = threading.Lock()
        self._listeners: list[Callable[[str], None]] = []
        self._is_open = threading.Event()
        self._is_over = threading.Event()
        self._trouble: Exception | None = None
        self._workers = workers
        self._answered_at = monotonic()
        # The processes of a cluster that is begun here end with the thread that has begun them.
        self._thread = threading.Thread(target=self._live, name="manyhands-ray", daemon=True)
        self._thread.start()
        try:
            self._is_open.wait()
        except BaseException:
            self._is_over.set()
            raise
        if self._trouble is not None:
            raise self._trouble
        threading.Thread(target=self._watch, name="manyhands-ray-watch", daemon=True).start()

    @property
    def is_lost(self) -> bool:
        """Whether the cluster is gone."""
        return bool(self.loss)

    def listen(self, hear: Callable[[str], None]) -> None:
        """Have `hear` called, in any thread, with what has happened to the cluster when it is gone."""
        with self._losing:
            self._listeners.append(hear)
        if self.loss:
            hear(self.loss)

    def check(self) -> None:
        """Raise `WorkerDiedError` where the cluster is gone."""
        if self.loss:
            raise WorkerDiedError(self.loss)

    def read(self, ref: Any) -> Any:
        """The value of a reference of Ray's; see `check`."""
        self.check()
        future: Future[Any] = ref.future()
        while True:
            try:
                return future.result(_TURN_SECONDS)
            except TimeoutError:
                if future.done():
                    raise
                self.check()

    def close(self) -> None:
        """Leave the cluster, and end it where it was begun here."""
        self._is_over.set()
        self._thread.join(_FAREWELL_SECONDS if self.loss else None)

    # In threads of its own.

    def _live(self) -> None:
        try:
            if self.is_ours:
                _connect(self.address, self._workers)
        except Exception as trouble:
            self._trouble = trouble
            return
        finally:
            self._is_open.set()
        self._is_over.wait()
        if self.is_ours:
            with suppress(Exception):  # of a cluster that is gone, there is nothing to leave
                ray.shutdown()

    def _watch(self) -> None:
        """See whether the cluster answers, in another thread: it may not come back from there."""
        threading.Thread(target=self._ask, name="manyhands-ray-pulse", daemon=True).start()
        while not self._is_over.wait(1.0):
            if monotonic() - self._answered_at > PATIENCE_SECONDS:
                self._lose(f"has not answered for {PATIENCE_SECONDS:g} s")

    def _ask(self) -> None:
        while not self._is_over.wait(PULSE_SECONDS):
            try:
                ray.cluster_resources()
            except Exception as trouble:
                if not self._is_over.is_set():
                    self._lose(f"is gone, {type(trouble).__name__}: {trouble}")
                return
            self._answered_at = monotonic()

    def _lose(self, what: str) -> None:
        with self._losing:
            if self.loss:
                return
            self.loss = (
                f"no connection to the Ray cluster at {self.address!r} any more: its head {what}. What calls were at "
                f"is lost; once it is back, open another session"
            )
            listeners = list(self._listeners)
        if self.is_ours:
            atexit.unregister(ray.shutdown)  # it is called now, and may not come back
        self._is_over.set()  # soon: where Ray has waited too long for a cluster, it ends the program
        for hear in listeners:
            hear(self.loss)


def _connect(address: str, workers: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    away = os.environ.get(_AWAY)
    try:
        if address != "local":  # whose processes are to end with the program, and read this too
            os.environ[_AWAY] = away or "1000000"
        if address == "local":
            ray.init(
                "local",
                num_cpus=workers or None,
                include_dashboard=False,
                _node_ip_address=_HOST,
                **quiet,
            )
        elif address == "auto":
            _knock()
            ray.init("auto", **quiet)
        else:
            ray.init(f"ray://{address}", **quiet)
    except Exception as cause:
        raise WorkerStartError(
            f"no Ray cluster answers at {address!r}: {type(cause).__name__}: {cause}. Start one with "
            f"`ray start --head`, or use 'ray://local'"
        ) from cause
    finally:
        if away is None:
            os.environ.pop(_AWAY, None)
    atexit.unregister(ray.shutdown)
    atexit.register(
        ray.shutdown, _exiting_interpreter=True
    )  # again, where a cluster was lost before
    if not isinstance(ray_worker.print_to_stdstream, _Reporter):
        ray_worker.print_to_stdstream = _Reporter(ray_worker.print_to_stdstream)


def _knock() -> None:
    """Raise OSError where the head is gone that was noted here; Ray would end the program after a minute."""
    head = canonicalize_bootstrap_address("auto")
    if head is not None:
        host, _, port = head.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()


class _Reporter:
    """What Ray prints in a program of its own accord, such as that a worker died, is logged as news of no weight.

    Whoever made a call hears of its end.
    """

    def __init__(self, show: Callable[..., None]) -> None:
        self._show = show

    def __call__(self, data: dict[str, Any], *args: Any, **options: Any) -> None:
        line = connection.line
        if line is not None and line.is_ours and data.get("pid") == "raylet":
            getLogger("manyhands.ray").info("%s", "\n".join(data["lines"]))
        else:
            self._show(data, *args, **options)


connection = Connection()
