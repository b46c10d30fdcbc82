"""joblib's `Parallel` over its default backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor


class JoblibContender:
    """One `Parallel`, kept open.

    joblib has no single submission: calls that travel one by one are `batch_size=1` with
    everything dispatched at once, and a map is its automatic batching.
    """

    def start(self, workers: int) -> None:
        self._workers = workers
        self._map = joblib.Parallel(n_jobs=workers)
        self._single = joblib.Parallel(n_jobs=workers, batch_size=1, pre_dispatch="all")
        # Both share joblib's one reusable set of worker processes.
        self._map.__enter__()
        self._single.__enter__()

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        results: list[object] = self._single([joblib.delayed(function)(argument)])
        return results[0]

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        call = joblib.delayed(function)
        results: list[Any] = self._single(call(argument) for argument in arguments)
        return results

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,  # noqa: ARG002  its default is measured
    ) -> list[Any]:
        call = joblib.delayed(function)
        results: list[Any] = self._map(call(argument) for argument in arguments)
        return results

    def prepare(self, value: Any) -> Any:
        return value

    def share(
        self, function: Callable[[Any, Any], Any], value: Any, arguments: Sequence[Any]
    ) -> list[Any]:
        # A `Parallel` of its own, as its users write it: it makes the memory-mapped file and
        # removes it. One that is kept open would not look at the array a second time.
        call = joblib.delayed(function)
        results: list[Any] = joblib.Parallel(n_jobs=self._workers)(
            call(value, argument) for argument in arguments
        )
        return results

    def close(self) -> None:
        self._single.__exit__(None, None, None)
        self._map.__exit__(None, None, None)
        get_reusable_executor().shutdown(wait=True)
