"""The same calls on a cluster, by its own library and by ours: each on a cluster of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def open_caller(contender: str, workers: int) -> Iterator[Caller]:
    """A caller on a cluster of its own: ``"manyhands-dask"`` is ours on Dask, ``"dask"`` its own library."""
    is_ours = contender.startswith("manyhands-")
    with open_dask(workers) as address:
        if is_ours:
            with mh.Session(f"dask://{address.removeprefix('tcp://')}") as session:
                yield OnEngine(session)
        else:
            from distributed import Client

            with Client(address) as client:
                yield ByDask(client)
