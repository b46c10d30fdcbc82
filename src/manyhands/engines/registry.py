"""Names of engines to engines, and how to get those that are missing."""

from __future__ import annotations

import sys
from importlib import import_module

from manyhands.errors import EngineNotInstalledError, InvalidArgumentError, UnknownEngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from manyhands.core.engine import Engine

ENTRY_POINTS = "manyhands.engines"
"""The entry point group in which other packages register a factory of their engine under its name."""


class EngineInfo:
    """What is known of an engine without starting it.

    Attributes
    ----------
    name
        What `Session` takes.
    summary
        What it is, in a line.
    available
        Whether it can be used here.
    install_hint
        The command that makes it available; empty where it is.
    """

    __slots__ = ("available", "install_hint", "name", "summary")

    def __init__(
        self, name: str, summary: str, *, available: bool = True, install_hint: str = ""
    ) -> None:
        self.name = name
        self.summary = summary
        self.available = available
        self.install_hint = install_hint


_BUILT_IN = {
    "local": ("manyhands.engines.local.engine:LocalEngine", "processes of this machine"),
    "threads": ("manyhands.engines.threads:ThreadsEngine", "threads of this process"),
    "inline": (
        "manyhands.engines.inline:InlineEngine",
        "the caller itself, one call after the other",
    ),
    "dask": ("manyhands.engines.dask:DaskEngine", "a Dask cluster: dask://HOST:PORT, dask://local"),
    "ray": ("manyhands.engines.ray:RayEngine", "a Ray cluster: ray://HOST:PORT, ray://local"),
    "parsl": (
        "manyhands.engines.parsl.engine:ParslEngine",
        "workers that Parsl has: parsl://MODULE, parsl://current, parsl://local",
    ),
}


_CLUSTERS = {
    "dask": ("distributed", "manyhands[dask]"),
    "ray": ("ray", "manyhands[ray]"),
    "parsl": ("parsl", "manyhands[parsl]"),
}
"""Engines that need an address, the module that each needs, and what brings that."""

_NESTED = "manyhands.engines.local.nested:NestedEngine"
"""In a worker; nobody asks for it by name."""


def choose_engine() -> str:
    """What "auto" means here: threads where Python runs on several cores at once, else processes."""
    is_locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    return "local" if is_locked else "threads"


def list_engines() -> list[EngineInfo]:
    """Every engine that is known here, those of other packages included."""
    infos = [_describe(name, summary) for name, (_, summary) in _BUILT_IN.items()]
    infos += [
        EngineInfo(name, f"of the entry point {target}")
        for name, target in _find_entry_points().items()
    ]
    return infos


def create_engine(name: str) -> Engine:
    """A new engine, not started.

    Parameters
    ----------
    name
        As in `EngineInfo`; that of a cluster with its address, such as ``"dask://host:8786"``.

    Raises
    ------
    UnknownEngineError, EngineNotInstalledError
    InvalidArgumentError
        An address is missing, or one is given to an engine that has none.
    """
    if name == "auto":
        name = choose_engine()
    whole = name
    name, scheme, address = name.partition("://")
    if name == "nested":
        target: str | None = _NESTED
    else:
        target = _BUILT_IN[name][0] if name in _BUILT_IN else _find_entry_points().get(name)
    if target is None:
        known = ", ".join(repr(info.name) for info in list_engines())
        raise UnknownEngineError(f"no engine is named {name!r}; there are {known}")
    _check_address(name, address, whole)
    module, _, attribute = target.partition(":")
    factory: Callable[..., Engine] = getattr(import_module(module), attribute)
    return factory(address) if scheme else factory()


def _check_address(name: str, address: str, whole: str) -> None:
    if name not in _CLUSTERS:
        if address and name in _BUILT_IN:
            raise InvalidArgumentError(f"engine={whole!r}: {name!r} has no address")
        return
    if not address:
        raise InvalidArgumentError(
            f"engine={whole!r}: it is {name}://{'PROFILE' if name == 'parsl' else 'HOST:PORT'}, or {name}://local for "
            f"a cluster of this machine"
        )
    info = _describe(name, "")
    if not info.available:
        raise EngineNotInstalledError(
            f"the engine {name!r} needs the module {_CLUSTERS[name][0]}, which is not installed: {info.install_hint}"
        )


def _describe(name: str, summary: str) -> EngineInfo:
    if name not in _CLUSTERS:
        return EngineInfo(name, summary)
    from importlib.util import find_spec

    module, extra = _CLUSTERS[name]
    hint = "" if find_spec(module) else f'pip install "{extra}"'
    return EngineInfo(name, summary, available=not hint, install_hint=hint)


def _find_entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
