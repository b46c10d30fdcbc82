"""Two forked processes and nothing else: what this machine can do at best."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Sequence
from typing import Any


class BareContender:
    """A reference for `work.spin`: calls dealt out beforehand, no results moved.

    Knowing the cost of each call, it gives the longest first to the process with the
    least to do. What it loses to the ideal is lost by the machine (a shared memory bus,
    a slower clock with two busy cores, other programs), not by a library.
    """

    def start(self, workers: int) -> None:
        self._workers = workers

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        return self.map(function, [argument])[0]

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        return self.map(function, arguments)

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,  # noqa: ARG002  dealt out beforehand
    ) -> list[Any]:
        children = [_fork(function, share) for share in deal(arguments, self._workers)]
        failed = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
        if failed:
            raise RuntimeError(f"bare processes {failed} failed")
        return [None] * len(arguments)

    def close(self) -> None:
        pass


def deal(costs: Sequence[float], workers: int) -> list[list[float]]:
    """Share `costs` among workers: the largest first, each to the least loaded."""
    shares: list[list[float]] = [[] for _ in range(workers)]
    loads = [(0.0, worker) for worker in range(workers)]
    for cost in sorted(costs, reverse=True):
        load, worker = heapq.heappop(loads)
        shares[worker].append(cost)
        heapq.heappush(loads, (load + cost, worker))
    return shares


def _fork(function: Callable[[Any], Any], arguments: Sequence[Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        for argument in arguments:
            function(argument)
    except BaseException:  # a forked child must never return into its parent's code
        os._exit(1)
    os._exit(0)
