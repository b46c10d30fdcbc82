"""A session without workers."""

import itertools
import pickle
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from manyhands.core.future import Future
from manyhands.core.mapping import Paces
from manyhands.core.model import CallOptions
from manyhands.errors import SessionClosedError, WorkerDiedError


class FakeSession:
    """Runs batches when somebody waits: in random order, some in part, some to their workers' death.

    Parameters
    ----------
    rng
        Decides on the order, and on which batches leave a rest.
    workers
        How many there are said to be.
    deaths
        For each item that kills its worker, how often it does.
    leaves_rests
        Whether batches that have no fixed size may do a part of their items only, as over their budget.
    """

    def __init__(
        self,
        rng: Random | None = None,
        workers: int = 2,
        *,
        deaths: dict[Any, int] | None = None,
        leaves_rests: bool = False,
    ) -> None:
        self.rng = rng or Random(0)
        self.workers = workers
        self.deaths = dict(deaths or {})
        self.leaves_rests = leaves_rests
        self.outstanding: list[tuple[Future[Any], Any, tuple[Any, ...]]] = []
        self.options: list[CallOptions] = []
        self.keys = itertools.count(1)
        self.batch_sizes: list[int] = []
        self.most_outstanding = 0
        self.items = 0
        self.failed = 0
        self.retried = 0
        self.batches = 0
        self.withdrawn: list[tuple[int, bool]] = []
        self.is_closed = False
        self.paces = Paces()
        self.choose: Callable[[], int] = lambda: self.rng.randrange(len(self.outstanding))

    def start_call(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Future[Any]:
        if self.is_closed:
            raise SessionClosedError("it is closed")
        policy = options.policy
        assert not kwargs and not policy.retries, "a map sees to its items' tries itself"
        assert not policy.worker_retries, "and to those after a death too"
        self.options.append(options)
        future: Future[Any] = Future(self, next(self.keys), "batch")  # type: ignore[arg-type]
        self.outstanding.append((future, fn, args))
        self.most_outstanding = max(self.most_outstanding, len(self.outstanding))
        self.batch_sizes.append(min(map(len, args)))
        return future

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        assert timeout is None, "nothing is due later, so only what lands can help"
        while not is_done():
            assert self.outstanding, "it waits for nothing"
            self.step()
        return True

    def step(self) -> None:
        """End one of the batches."""
        future, batch, columns = self.outstanding.pop(self.choose())
        if not future.cancelled():
            self.end(future, batch, columns)

    def end(self, future: Future[Any], batch: Any, columns: tuple[Any, ...]) -> None:
        killer = next((item for item in columns[0] if self.deaths.get(item, 0) > 0), None)
        if killer is not None:
            self.deaths[killer] -= 1
            future.set_exception(WorkerDiedError(f"at {killer}"))
            return
        if self.leaves_rests and batch.budget is not None:
            size = self.rng.randint(1, min(map(len, columns)))
            columns = tuple(column[:size] for column in columns)
        values, failures, _ = batch(*columns)
        seconds = len(values) * self.rng.choice([1e-7, 1e-5, 1e-3])  # so that no clock has a say
        payload = pickle.dumps((values, failures, seconds))
        future.settle(payload, None, lambda payload: (pickle.loads(payload), None))

    def cancel_calls(self, futures: Iterable[Future[Any]], *, running: bool = False) -> None:
        for future in list(futures):
            self.withdrawn.append((future.key, running))
            future.withdraw()

    def discount_batch(self, *, failed: bool) -> None:
        self.batches += 1

    def count_items(self, items: int, failed: int) -> None:
        self.items += items
        self.failed += failed

    def count_retry(self) -> None:
        self.retried += 1

    def is_call_running(self, future: Future[Any]) -> bool:
        return False

    def look(self) -> None:
        """Batches run only while somebody waits."""

    def attend(self) -> None:
        """See `look`."""

    def rouse(self) -> None:
        """Nobody else waits."""

    def is_outstanding(self, key: int) -> bool:
        return any(future.key == key for future, _, _ in self.outstanding)
