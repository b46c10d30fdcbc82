"""`multiprocessing.Pool` with forked workers, its fastest way, and ours in its place."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

import manyhands as mh


class PoolContender:
    """`apply_async` for single calls, `map` with a chunksize where a row searches for one."""

    def start(self, workers: int) -> None:
        self._pool: Any = self._open(workers)

    def _open(self, workers: int) -> Any:
        return multiprocessing.get_context("fork").Pool(workers)

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        return self._pool.apply(function, (argument,))

    def submit_each(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        submit = self._pool.apply_async
        return [submit(function, (argument,)) for argument in arguments]

    def gather(self, handles: list[Any]) -> list[Any]:
        return [handle.get() for handle in handles]

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        return self.gather(self.submit_each(function, arguments))

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,
    ) -> list[Any]:
        results: list[Any] = self._pool.map(function, arguments, chunksize)
        return results

    def store_each(self, function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
        return self.submit_many(function, values)  # it has no store: they are pickled

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()


class DoorContender(PoolContender):
    """The same on our workers."""

    def _open(self, workers: int) -> Any:
        return mh.Pool(workers)
