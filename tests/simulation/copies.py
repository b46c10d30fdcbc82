"""The program's side of the package, loaded once more for the simulated world."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.simulation.family import Family
from tests.simulation.outside import here, make_outside
from tests.simulation.processes import (
    SimulatedDriver,
    SimulatedProcess,
    SimulatedTemplate,
    has_ended,
)
from tests.simulation.watch import Watched

_family: Family | None = None


def get_family() -> Family:
    """The program's side of the package, in a world of its own; loaded once."""
    global _family
    if _family is None:
        outside = make_outside()
        outside["manyhands.engines.registry"] = SimpleNamespace(create_engine=_create_engine)
        outside["manyhands.engines.local.driver"] = SimpleNamespace(Driver=SimulatedDriver)
        outside["manyhands.engines.local.process"] = SimpleNamespace(
            TemplateProcess=SimulatedTemplate, WorkerProcess=SimulatedProcess, has_ended=has_ended
        )
        _family = Family(
            {
                "manyhands.session",
                "manyhands.core.ledger",
                "manyhands.core.stream",
                "manyhands.engines.local.",
            },
            {
                "manyhands.engines.local.pool_parts",
                "manyhands.engines.local.pool_state",
                "manyhands.engines.local.messages",
            },
            outside,
        )
    return _family


def _create_engine(name: str) -> Any:
    if name == "nested":
        nested = get_family().load("manyhands.engines.local.nested").NestedEngine()
        nested.is_running = lambda _: False  # asked for the words of errors alone, and waited for
        return nested
    engine = get_family().load("manyhands.engines.local.engine").LocalEngine()
    return Watched(engine, here.world)
