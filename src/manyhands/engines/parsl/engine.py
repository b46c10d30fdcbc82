"""A session on the workers of a Parsl executor, seen from the program."""

from __future__ import annotations

from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.engines.parsl.cluster import ParslBase
from manyhands.engines.parsl.files import Vault
from manyhands.engines.parsl.handle import Door
from manyhands.engines.parsl.hub import Hub
from manyhands.engines.parsl.kernel import Kernel
from manyhands.engines.parsl.visits import Visits
from manyhands.engines.parsl.wire import Wire, make_socket
from manyhands.engines.parsl.worker import name_host
from manyhands.errors import WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from manyhands.engines.cluster.task import Settings
    from manyhands.engines.parsl.handle import Handle

START_SECONDS = 600.0
"""How long a session waits for its first worker, which batch systems may let wait."""

_LOCAL_SECONDS = 60.0
"""The same on this machine."""

IDLE_SECONDS = 1.0
"""After which a worker that others may use goes."""

_GOING_SECONDS = 5.0
"""How long workers have to go when the session ends."""

_PROBE = "probe"


class ParslCluster(ParslBase):
    """See `manyhands.engines.cluster.cluster.Cluster`.

    Parameters
    ----------
    address
        See `manyhands.engines.parsl.kernel.Kernel`.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self.is_near = address == "local"

    def connect(
        self, workers: int, settings: Settings, topic: str, take: Callable[..., None]
    ) -> int:
        self._settings = settings
        self._topic = topic
        self._kernel = Kernel(self._address, workers)
        try:
            self._open(settings, take)
        except BaseException:
            self._kernel.close()
            raise
        try:
            self._await_first()
            there = self._kernel.count_workers()
            limit = min(workers, there) if workers else there
            self._visits.set_limit(limit, may_grow=not workers and not self.is_near)
            self._visits.want(limit if self.is_near else 0)
            return limit
        except BaseException:
            self.close([])
            raise

    def _open(self, settings: Settings, take: Callable[..., None]) -> None:
        folder = Path(self._kernel.run_dir) / settings.session
        folder.mkdir(mode=0o700)
        (folder / _PROBE).touch()
        self._vault = Vault(
            settings.session,
            str(folder),
            is_near=True,
        )
        visits = self._visits = Visits(self._kernel)
        hub = Hub(settings, visits, take, float("inf") if self.is_near else IDLE_SECONDS)
        self._hub = self._program_hub = hub
        server, secret = zmq.curve_keypair()
        guest, guest_secret = zmq.curve_keypair()
        executor = self._kernel.executor
        context = self._context = zmq.Context[zmq.Socket[bytes]]()
        self._doorman = ThreadAuthenticator(context)
        self._doorman.start()
        self._doorman.configure_curve_callback("*", _OneKey(guest))
        router = make_socket(context, zmq.ROUTER)
        router.router_mandatory = 1
        router.curve_server = 1
        router.curve_publickey, router.curve_secretkey = server, secret
        # Where Parsl's own listens, and where its workers may come to.
        low, high = executor.worker_port_range or (49152, 65535)
        port = router.bind_to_random_port(f"tcp://{executor.address or '*'}", low, high)
        self._wire = Wire(
            router,
            hub.take_message,
            on_cut=hub.take_cut,
            on_failure=lambda error: hub.break_down(
                f"the connection to Parsl's workers has failed: {error!r}"
            ),
            on_unreachable=hub.take_unreachable,
            tick=hub.tick,
        )
        hub.open(self._wire)
        visits.open(
            hub,
            Door(
                settings.session,
                tuple(executor.all_addresses),
                port,
                server,
                guest,
                guest_secret,
                name_host(),
                str(folder),
                _PROBE,
            ),
        )
        self._wire.start()

    def _await_first(self) -> None:
        """Wait until the first worker has told what it sees."""
        hub = self._program_hub
        self._visits.want(1)
        seconds = _LOCAL_SECONDS if self.is_near else START_SECONDS
        if not hub.has_first.wait(seconds):
            raise WorkerStartError(
                f"no worker of 'parsl://{self._address}' has come in {seconds:g} s; what Parsl has tried is told in "
                f"{self._kernel.run_dir}"
            )
        if hub.trouble:
            raise WorkerStartError(hub.trouble)
        if not hub.sees_folder:
            self._vault.do_without()

    def report(self, *message: Any) -> None:
        """The program's session counts for itself."""

    def close(self, natives: list[Handle]) -> None:
        hub = self._program_hub
        self.drop(natives)
        hub.close()
        self._visits.close(_GOING_SECONDS)
        hub.end()
        self._doorman.stop()
        self._context.term()
        try:
            self._kernel.close()
        finally:
            self._vault.close()
            self._vault.clear()


class _OneKey:
    """Lets those in that have a key; see `zmq.auth.Authenticator.configure_curve_callback`."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:  # noqa: ARG002 - there is one
        """Whether that is it."""
        return key == self._public


def ParslEngine(address: str) -> ClusterEngine:  # noqa: N802 - to whoever makes one it is a class
    """An engine on the workers of a configuration of Parsl's."""
    return ClusterEngine(ParslCluster(address))
