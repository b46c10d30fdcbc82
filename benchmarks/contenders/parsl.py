"""Parsl's `HighThroughputExecutor` with one block on this machine, bound to loopback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import parsl
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider


class ParslContender:
    """Python apps of one data-flow kernel; it has no map, so each item is an app call."""

    def start(self, workers: int) -> None:
        executor = HighThroughputExecutor(
            address="127.0.0.1",
            max_workers_per_node=workers,
            provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
            encrypted=False,  # its default costs it time that no other contender spends
        )
        config = parsl.Config(executors=[executor], strategy="none", initialize_logging=False)
        self._kernel = parsl.load(config)
        self._apps: dict[Callable[[Any], Any], Any] = {}

    def _find_app(self, function: Callable[[Any], Any]) -> Any:
        if function not in self._apps:
            self._apps[function] = parsl.python_app(function, data_flow_kernel=self._kernel)
        return self._apps[function]

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        result: object = self._find_app(function)(argument).result()
        return result

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        app = self._find_app(function)
        futures = [app(argument) for argument in arguments]
        return [future.result() for future in futures]

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,  # noqa: ARG002  it has no chunks
    ) -> list[Any]:
        return self.submit_many(function, arguments)

    def close(self) -> None:
        self._kernel.cleanup()
