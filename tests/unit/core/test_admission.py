"""What engines of this process have for calls, and what they say to those that need more."""

from typing import Any

import pytest

from manyhands.core import machine
from manyhands.core.admission import explain_misfit, make_capacity
from manyhands.core.machine import Memory
from manyhands.core.model import Call, CallOptions, EngineConfig
from manyhands.core.resources import make_need
from manyhands.errors import InvalidArgumentError


def make(**settings: Any) -> EngineConfig:
    config = EngineConfig(2)
    config.gpus = ()
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def explain(config: EngineConfig, what: str = "", **need: Any) -> str | None:
    made = Call(7, abs, (), {}, CallOptions())
    return explain_misfit(make_capacity(config), made, make_need(**need), what)


def test_a_call_that_fits() -> None:
    assert explain(make()) is None
    assert explain(make(memory=1000), memory=1000) is None
    assert explain(make(resources={"seat": 2}), resources={"seat": 2}) is None


def test_a_call_that_never_fits_is_named() -> None:
    misfit = explain(make(), cpus=3)
    assert misfit is not None
    assert misfit.startswith("call 7, abs: it needs 3 cpus, and the session has 2")
    misfit = explain(make(), "the actor Counter", gpus=1)
    assert misfit is not None
    assert misfit.startswith("the actor Counter: it needs 1 gpu")


def test_devices_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert make_capacity(make(gpus=None)).gpus == ("3", "5")
    assert make_capacity(make(gpus=("1",))).gpus == ("1",)


@pytest.mark.parametrize(
    ("group", "total", "fits"),
    [(3 << 30, 8 << 30, False), (None, 8 << 30, True), (None, None, True)],
)
def test_memory_is_looked_up_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, group: int | None, total: int | None, fits: bool
) -> None:
    monkeypatch.setattr(machine, "read_memory", lambda: Memory(total, None, group, None))
    misfit = explain(make(), memory=4 << 30)
    assert (misfit is None) is fits
    assert explain(make()) is None


def test_wrong_resources_are_told_at_once() -> None:
    with pytest.raises(InvalidArgumentError):
        make_capacity(make(resources={"seat": -1}))
