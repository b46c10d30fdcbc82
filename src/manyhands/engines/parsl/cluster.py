"""What is the same for a session on Parsl's workers in the program and for one in a worker."""

from __future__ import annotations

from dataclasses import replace

from manyhands.core.model import Capabilities
from manyhands.engines.cluster.flights import LostWorkerError
from manyhands.engines.cluster.station import CallFailedError, CallJoinedError
from manyhands.engines.parsl.handle import Handle
from manyhands.errors import WorkerDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from manyhands.core.model import CallOptions
    from manyhands.engines.cluster.packed import Packed
    from manyhands.engines.cluster.task import Settings, Task
    from manyhands.engines.parsl.files import Token, Vault
    from manyhands.engines.parsl.handle import Ending
    from manyhands.engines.parsl.hub import Hub
    from manyhands.engines.parsl.worker import ParslLink


class ParslBase:
    """See `manyhands.engines.cluster.cluster.Cluster`."""

    name = "parsl"
    capabilities = Capabilities(
        isolates=True,
        parallel=True,
        pickles=True,
        actors=False,
        chains=False,
        orders=True,
        resources=False,
        shares=False,
        staffs=False,
        witnesses=False,
    )
    waits = False

    _hub: Hub | ParslLink
    _vault: Vault
    _settings: Settings
    _topic: str

    def launch(
        self, task: Task, inputs: list[Any], options: CallOptions, on_end: Callable[[Any], None]
    ) -> Handle:
        table, number, function = task.function
        thin = replace(
            task,
            function=(table, number, self.store(function)),
            arguments=self.store(task.arguments),
        )
        values = [native.get_value() if isinstance(native, Handle) else native for native in inputs]
        handle = Handle(task.id)
        self._hub.launch(thin, values, options.priority, _make_follower(handle, on_end))
        return handle

    def follow(self, native: str, on_end: Callable[[Any], None]) -> Handle:
        handle = Handle(native)
        self._hub.follow(native, _make_follower(handle, on_end))
        return handle

    def explain_end(self, native: Handle) -> BaseException | None:
        ending = native.ending
        assert ending is not None
        if ending.joined is not None:
            return CallJoinedError(ending.joined, native.id)
        if ending.failure is not None:
            return CallFailedError(ending.failure, native.id)
        if ending.loss is not None:
            return LostWorkerError(
                f"the Parsl worker that had it has ended: {ending.loss}", ending.worker, native.id
            )
        return WorkerDiedError(ending.trouble) if ending.trouble is not None else None

    def fetch(self, native: Handle | Token) -> Packed:
        return self._vault.read(native.get_value() if isinstance(native, Handle) else native)

    def hold(self, native: Any) -> Any:
        return native

    def store(self, packed: Packed) -> Any:
        return self._vault.keep(packed)

    def ask(self, method: str, *args: Any, **options: Any) -> list[Any]:
        return self._hub.ask(method, args, options)

    def drop(self, natives: list[Handle]) -> None:
        self._hub.drop([native.id for native in natives])

    def release(self, native: Handle) -> None:
        self.drop([native])

    def wait_for_any(self, natives: list[Handle], seconds: float) -> None:
        """Calls leave their places to others however they wait."""


def _make_follower(handle: Handle, on_end: Callable[[Any], None]) -> Callable[[Ending], None]:
    def end(ending: Ending) -> None:
        handle.ending = ending
        on_end(handle)

    return end
