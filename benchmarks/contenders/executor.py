"""`concurrent.futures.ProcessPoolExecutor` with forked workers, and ours in its place."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

import manyhands as mh


class ExecutorContender:
    """An executor with `submit` and a `map` without chunksize."""

    def start(self, workers: int) -> None:
        self._executor = self._open(workers)

    def _open(self, workers: int) -> Executor:
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        return self._executor.submit(function, argument).result()

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        submit = self._executor.submit
        futures = [submit(function, argument) for argument in arguments]
        return [future.result() for future in futures]

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,  # noqa: ARG002  its default is measured
    ) -> list[Any]:
        return list(self._executor.map(function, arguments))

    def close(self) -> None:
        self._executor.shutdown()


class DoorContender(ExecutorContender):
    """The same on our workers."""

    def _open(self, workers: int) -> Executor:
        return mh.Executor(workers)
