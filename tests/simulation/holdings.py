"""What running calls hold, counted beside the pool's own count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manyhands.core.resources import SHARES
from tests.simulation.violations import violate

if TYPE_CHECKING:
    from tests.simulation.scripts import Script
    from tests.simulation.worker import SimulatedWorker
    from tests.simulation.world import World


class Holdings:
    """Sees to it that nothing is overdrawn.

    Attributes
    ----------
    used : dict of str to int
        What running calls hold, in shares and bytes, by name; "cpus" are those that compute.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.used: dict[str, int] = {}
        self._limits: dict[str, int] = {}

    def set_limits(
        self, cpus: int, devices: tuple[str, ...], memory: int, named: dict[str, int]
    ) -> None:
        """What there is."""
        self._limits = {"cpus": cpus * SHARES, "memory": memory}
        self._limits.update((f"device {device}", SHARES) for device in devices)
        self._limits.update((name, amount * SHARES) for name, amount in named.items())
        self.used = dict.fromkeys(self._limits, 0)

    def check_devices(
        self, worker: SimulatedWorker, script: Script, environment: dict[str, str] | None
    ) -> None:
        """A call that needs devices sees so many, and its process never sees others."""
        shares = script.plan.options.need.gpu_shares
        if not shares:
            return
        visible = (environment or {}).get("CUDA_VISIBLE_DEVICES", "")
        if visible.count(",") + bool(visible) != -(-shares // SHARES):
            violate(script, f"needs {shares} shares of devices, and sees {visible!r}")
        if worker.visible not in (None, visible):
            violate(script, f"sees {visible}, and its process has seen {worker.visible}")
        worker.visible = visible

    def hold(self, worker: SimulatedWorker, script: Script) -> None:
        """A run takes what it needs."""
        script.holds = True
        for name, amount in self._list_held(script, worker):
            self.used[name] += amount
            if self.used[name] > self._limits[name]:
                violate(script, f"{name} overdrawn: {self.used[name]} of {self._limits[name]}")
        if not worker.process.is_orphan:
            self.take_cpus(script)

    def release(self, worker: SimulatedWorker, script: Script) -> None:
        """A run gives back what it has taken."""
        self.give_cpus(script)
        if script.holds:
            script.holds = False
            for name, amount in self._list_held(script, worker):
                self.used[name] -= amount

    def take_cpus(self, script: Script) -> None:
        """A run computes, or computes again."""
        script.has_cpus = True
        self.used["cpus"] += script.plan.options.need.cpu_shares
        if self.used["cpus"] > self._limits["cpus"]:
            others = [s for w in self._world.workers for s in w.running.values() if s.has_cpus]
            violate(script, f"computes, and the cpus are overdrawn: {others}")

    def give_cpus(self, script: Script) -> None:
        """A run waits, or has ended."""
        if script.has_cpus:
            script.has_cpus = False
            self.used["cpus"] -= script.plan.options.need.cpu_shares

    @staticmethod
    def _list_held(script: Script, worker: SimulatedWorker) -> list[tuple[str, int]]:
        """What a call holds beside cpus."""
        need = script.plan.options.need
        if need.is_plain:
            return []
        held = [("memory", need.memory), *need.named_shares]
        if need.gpu_shares:
            devices = (worker.visible or "").split(",")
            held += [(f"device {device}", min(need.gpu_shares, SHARES)) for device in devices]
        return held

    def note_orphan(self, worker: SimulatedWorker) -> None:
        """A worker's template has ended: others have its cpus."""
        for script in worker.running.values():
            self.give_cpus(script)

    def check_rest(self) -> None:
        """Nothing runs any more, so nothing is held."""
        for name, amount in self.used.items():
            if amount:
                violate(None, f"{amount} of {name} are held at the end")
