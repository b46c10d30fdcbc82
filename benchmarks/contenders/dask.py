"""Dask distributed: a `LocalCluster` of one-threaded worker processes on loopback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client, LocalCluster, wait

from benchmarks.contenders.contender import Scale, Step
from benchmarks.contenders.dask_cases import CASES


class DaskContender:
    """`Client.submit` and `Client.map`, with `pure=False` so that equal calls all run."""

    def start(self, workers: int) -> None:
        self._cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
        self._client = Client(self._cluster)
        self._client.wait_for_workers(workers)

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        result: object = self._client.submit(function, argument, pure=False).result()
        return result

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        submit = self._client.submit
        futures = [submit(function, argument, pure=False) for argument in arguments]
        results: list[Any] = self._client.gather(futures)
        return results

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,  # noqa: ARG002  its default is measured
    ) -> list[Any]:
        results: list[Any] = self._client.gather(self._client.map(function, arguments, pure=False))
        return results

    def prepare(self, value: Any) -> Any:
        return value

    def share(
        self, function: Callable[[Any, Any], Any], value: Any, arguments: Sequence[Any]
    ) -> list[Any]:
        # Neither through the scheduler nor with a digest to find equal values by.
        shared = self._client.scatter(value, broadcast=True, direct=True, hash=False)
        submit = self._client.submit
        futures = [submit(function, shared, argument, pure=False) for argument in arguments]
        results: list[Any] = self._client.gather(futures)
        return results

    def produce(self, function: Callable[[Any], Any], argument: object) -> Any:
        future = self._client.submit(function, argument, pure=False)
        wait(future)
        return future

    def chain(self, function: Callable[[Any], Any], handle: Any, length: int) -> Any:
        for _ in range(length):
            handle = self._client.submit(function, handle, pure=False)
        return self._client.gather(handle)

    def make_step(self, case: str, scale: Scale) -> Step:
        return CASES[case](self._client, scale)

    def close(self) -> None:
        self._client.close()
        self._cluster.close()
