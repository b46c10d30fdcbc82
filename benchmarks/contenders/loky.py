"""loky's executor, the one inside joblib."""

from __future__ import annotations

from concurrent.futures import Executor

import loky

from benchmarks.contenders.executor import ExecutorContender


class LokyContender(ExecutorContender):
    """The interface of `ProcessPoolExecutor` over loky's workers."""

    def _open(self, workers: int) -> Executor:
        executor: Executor = loky.ProcessPoolExecutor(workers)
        return executor
