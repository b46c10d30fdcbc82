"""mpire's `WorkerPool`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpire


class MpireContender:
    """`apply_async` and `map` over workers that are kept alive."""

    def start(self, workers: int) -> None:
        self._pool = mpire.WorkerPool(n_jobs=workers, keep_alive=True)

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        result: object = self._pool.apply(function, (argument,))
        return result

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        submit = self._pool.apply_async
        handles = [submit(function, (argument,)) for argument in arguments]
        return [handle.get() for handle in handles]

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,  # noqa: ARG002  its default is measured
    ) -> list[Any]:
        results: list[Any] = self._pool.map(function, arguments)
        return results

    def close(self) -> None:
        self._pool.stop_and_join()
        self._pool.terminate()
