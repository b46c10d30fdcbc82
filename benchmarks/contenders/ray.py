"""Ray on this machine: a cluster of one node, bound to loopback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.util.multiprocessing import Pool

from benchmarks.contenders.contender import Scale, Step
from benchmarks.contenders.ray_cases import CASES

_STORE_BYTES = 2 * 2**30
"""Room for what the data rows have at one time; it is taken as it is written."""


class RayContender:
    """Remote tasks for single calls, Ray's own `multiprocessing.Pool` for maps.

    Mapping with one task per item would be about 200 times slower than its Pool.
    """

    def start(self, workers: int) -> None:
        self._workers = workers
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
        self._tasks: dict[Callable[..., Any], Any] = {}
        self._pool: Pool | None = None

    def _find_task(self, function: Callable[..., Any]) -> Any:
        self._close_pool()  # its actors hold the CPUs that tasks need
        if function not in self._tasks:
            self._tasks[function] = ray.remote(function)
        return self._tasks[function]

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        result: object = ray.get(self._find_task(function).remote(argument))
        return result

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        submit = self._find_task(function).remote
        results: list[Any] = ray.get([submit(argument) for argument in arguments])
        return results

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,  # noqa: ARG002  its default is measured
    ) -> list[Any]:
        if self._pool is None:
            self._pool = Pool(self._workers)
        results: list[Any] = self._pool.map(function, arguments)
        return results

    def prepare(self, value: Any) -> Any:
        return value

    def share(
        self, function: Callable[[Any, Any], Any], value: Any, arguments: Sequence[Any]
    ) -> list[Any]:
        ref = ray.put(value)
        submit = self._find_task(function).remote
        results: list[Any] = ray.get([submit(ref, argument) for argument in arguments])
        return results

    def produce(self, function: Callable[[Any], Any], argument: object) -> Any:
        ref = self._find_task(function).remote(argument)
        ray.wait([ref])
        return ref

    def chain(self, function: Callable[[Any], Any], handle: Any, length: int) -> Any:
        submit = self._find_task(function).remote
        for _ in range(length):
            handle = submit(handle)
        return ray.get(handle)

    def store_each(self, function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
        return self.submit_many(function, [ray.put(value) for value in values])

    def make_step(self, case: str, scale: Scale) -> Step:
        return CASES[case](scale)

    def _close_pool(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()
            self._pool = None

    def close(self) -> None:
        self._close_pool()
        ray.shutdown()
