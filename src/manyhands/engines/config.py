"""What a session tells its engine at the start, checked before anything is started."""

from __future__ import annotations

import os

from manyhands.core import place
from manyhands.core.functions import check_callable
from manyhands.core.model import EngineConfig, StoreConfig
from manyhands.core.resources import make_need
from manyhands.core.sizes import parse_size
from manyhands.errors import InvalidArgumentError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from manyhands.core.engine import Engine
    from manyhands.core.luggage import Luggage

_CLUSTERS = ("dask", "ray", "parsl")
"""Engines that use all workers that they find, where no number is given."""

_START_METHODS = ("fork", "spawn")


def make_config(
    engine: Engine,
    *,
    workers: int | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    start_method: str | None,
    store: tuple[str | int | None, str | int | None, str | os.PathLike[str] | None],
    min_workers: int | None,
    max_calls_per_worker: int | None,
    pin: bool,
    gpus: int | Iterable[str | int] | None,
    memory: str | int | None,
    resources: Mapping[str, float] | None,
    luggage: Luggage | None,
) -> EngineConfig:
    """The options of `manyhands.Session`.

    `store` has its ``store``, ``spill`` and ``spill_folder``, `luggage` its ``ship``, ``files`` and ``env``.

    Raises
    ------
    InvalidArgumentError, UnsupportedError
    """
    config = EngineConfig(_check_workers(workers, engine.name), initializer, initargs, start_method)
    config.min_workers = _check_count(min_workers, "min_workers", 0, config.workers or None)
    config.max_calls_per_worker = _check_count(max_calls_per_worker, "max_calls_per_worker", 1)
    config.pin = pin
    config.gpus = _check_gpus(gpus)
    config.resources = dict(make_need(0, resources=resources).named)
    config.luggage = luggage
    if luggage is not None and luggage.env and not engine.capabilities.isolates:
        raise UnsupportedError(
            f"env={luggage.env!r}: the calls of the engine {engine.name!r} run in this program's own process; set "
            f"os.environ, or use 'local' or a cluster"
        )
    config.memory = None if memory is None else parse_size(memory, "memory")
    if store != (None, None, None):
        config.store = _check_store(engine, *store)
    return config


def check_beginning(initializer: object, start_method: str | None) -> None:
    """Raise unless workers can begin like this; before there is an engine.

    Raises
    ------
    InvalidArgumentError, NotCallableError
    """
    if initializer is not None:
        check_callable(initializer)
    if start_method is not None and start_method not in _START_METHODS:
        raise InvalidArgumentError(
            f"start_method={start_method!r}: it is 'fork' or 'spawn', or left out"
        )


def _check_workers(workers: int | None, engine: str) -> int:
    from manyhands.engines.local.cpus import count_cpus

    if workers is None:
        if engine == "nested":
            return int(place.link.settings["workers"])
        if engine in _CLUSTERS:
            return 0
        return 1 if engine == "inline" else count_cpus()
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise InvalidArgumentError(
            f"workers={workers!r}: it is a number of workers, 1 or more; leave it out for one per core ({count_cpus()})"
        )
    return workers


def _check_count(number: int | None, name: str, least: int, most: int | None = None) -> int | None:
    if number is None:
        return None
    is_number = isinstance(number, int) and not isinstance(number, bool)
    if not is_number or number < least or (most is not None and number > most):
        limit = "" if most is None else f" and at most workers={most}"
        raise InvalidArgumentError(
            f"{name}={number!r}: it is a whole number, at least {least}{limit}, or left out"
        )
    return number


def _check_gpus(gpus: int | Iterable[str | int] | None) -> tuple[str, ...] | None:
    if gpus is None:
        return None
    if isinstance(gpus, (bool, str)) or (isinstance(gpus, int) and gpus < 0):
        raise InvalidArgumentError(
            f"gpus={gpus!r}: it is a number of devices, or a list of their names, or left out"
        )
    return tuple(map(str, range(gpus) if isinstance(gpus, int) else gpus))


def _check_store(
    engine: Engine,
    store: str | int | None,
    spill: str | int | None,
    folder: str | os.PathLike[str] | None,
) -> StoreConfig:
    if not engine.capabilities.stores:
        raise UnsupportedError(
            f"the engine {engine.name!r} has no store to limit, since it copies nothing; store=, spill= and "
            f"spill_folder= are for the engine 'local'"
        )
    if folder is not None and not os.path.isdir(folder):
        raise InvalidArgumentError(f"spill_folder={folder!r}: there is no such folder")
    return StoreConfig(
        None if store is None else max(1, parse_size(store, "store")),
        None if spill is None else parse_size(spill, "spill"),
        None if folder is None else os.path.abspath(folder),
    )
