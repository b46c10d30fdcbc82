"""Parsl, with its own executors and with ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import parsl
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.providers import LocalProvider

import manyhands as mh


class ParslContender:
    """Python apps of one data-flow kernel; it has no map, so each item is an app call.

    They run on Parsl's `HighThroughputExecutor` with one block on this machine, bound to loopback.
    """

    def make_executor(self, workers: int) -> ParslExecutor:
        return HighThroughputExecutor(
            address="127.0.0.1",
            max_workers_per_node=workers,
            provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),  # type: ignore[no-untyped-call]
            encrypted=False,  # its default costs it time that no other contender spends
        )

    def start(self, workers: int) -> None:
        executor = self.make_executor(workers)
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


class DoorContender(ParslContender):
    """The same apps on our workers."""

    def make_executor(self, workers: int) -> ParslExecutor:
        return mh.ParslExecutor(workers=workers)


class ThreadsContender(ParslContender):
    """The same apps in threads of the program: what is left of the time is the kernel's own."""

    def make_executor(self, workers: int) -> ParslExecutor:
        return ThreadPoolExecutor(max_threads=workers)
