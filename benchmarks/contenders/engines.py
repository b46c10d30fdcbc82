"""The same calls on a cluster, by its own library and by ours: each on a cluster of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

import manyhands as mh
from benchmarks.clusters import open_dask


class Caller(Protocol):
    """What the rows of engines ask of a library."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Submit a call; its future, which may stand among the arguments of another one."""
        ...

    def gather(self, futures: list[Any]) -> list[Any]:
        """Wait for results."""
        ...

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Map the way the library's users do."""
        ...


class OnEngine:
    """Ours, on an engine of that name."""

    def __init__(self, session: mh.Session) -> None:
        self.submit = session.submit
        self._session = session

    def gather(self, futures: list[Any]) -> list[Any]:
        return mh.gather(futures)

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        return self._session.map(function, arguments)


class ByDask:
    """`distributed.Client`, with `pure=False` so that equal calls all run."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.submit(function, *args, pure=False)

    def gather(self, futures: list[Any]) -> list[Any]:
        results: list[Any] = self._client.gather(futures)
        return results

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        return self.gather(self._client.map(function, arguments, pure=False))


class ByRay:
    """`ray.remote`."""

    def __init__(self) -> None:
        self._tasks: dict[Callable[..., Any], Any] = {}

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        if function not in self._tasks:
            self._tasks[function] = import_module("ray").remote(function)
        return self._tasks[function].remote(*args)

    def gather(self, futures: list[Any]) -> list[Any]:
        results: list[Any] = import_module("ray").get(futures)
        return results

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        return self.gather([self.submit(function, argument) for argument in arguments])


class ByParsl:
    """`parsl.python_app`."""

    def __init__(self) -> None:
        self._apps: dict[Callable[..., Any], Any] = {}

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        if function not in self._apps:
            self._apps[function] = import_module("parsl").python_app(function)
        return self._apps[function](*args)

    def gather(self, futures: list[Any]) -> list[Any]:
        return [future.result() for future in futures]

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        return self.gather([self.submit(function, argument) for argument in arguments])


@contextmanager
def open_caller(contender: str, workers: int) -> Iterator[Caller]:
    """A caller on a cluster of its own: ``"on-dask"`` is ours on Dask, ``"dask"`` its own library."""
    engine = contender.removeprefix("on-")
    open_own, address = _OWN[engine]
    with open_own(workers) as (caller, found):
        if engine == contender:
            yield caller
        else:
            with mh.Session(f"{engine}://{address or found}") as session:
                yield OnEngine(session)


@contextmanager
def _open_dask(workers: int) -> Iterator[tuple[Caller, str]]:
    from distributed import Client

    with open_dask(workers) as address, Client(address, set_as_default=False) as client:
        yield ByDask(client), address.removeprefix("tcp://")


@contextmanager
def _open_ray(workers: int) -> Iterator[tuple[Caller, str]]:
    from benchmarks.contenders.ray import RayContender

    cluster = RayContender()
    cluster.start(workers)
    try:
        yield ByRay(), ""
    finally:
        cluster.close()


@contextmanager
def _open_parsl(workers: int) -> Iterator[tuple[Caller, str]]:
    from benchmarks.contenders.parsl import ParslContender

    cluster = ParslContender()
    cluster.start(workers)
    try:
        yield ByParsl(), ""
    finally:
        cluster.close()


_OWN: dict[str, tuple[Callable[[int], Any], str]] = {
    "dask": (_open_dask, ""),
    "ray": (_open_ray, "auto"),
    "parsl": (_open_parsl, "current"),
}
"""Per engine, what opens a cluster and its own library's caller, and what our engine calls that cluster; empty where
the former tells."""
