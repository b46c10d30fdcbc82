"""The items of streams, on their way out of the calls that yield them."""

from __future__ import annotations

from manyhands.errors import CallInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from manyhands.engines.threads.pool import Pool
    from manyhands.engines.threads.runs import ThreadRun


class Items:
    """Lets a generator run as far ahead of its consumer as it may.

    Parameters
    ----------
    pool
        Runs it.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def grant(self, key: int, items: int) -> None:
        """The consumer has taken so many."""
        with self._pool.lock:
            run = self._pool.runs.get(key)
            if run is None:
                return
            run.credit += items
        wake = run.wake
        if wake is not None:
            wake()

    def emit(self, run: ThreadRun, item: Any) -> None:
        """Send an item, and wait until another one is wanted."""
        if not run.thread:  # of an asynchronous generator, whose thread is the event loop's
            self._send(run, item)
            if run.credit <= 0:
                self._pool.waits.wait_for_credit(run)
                self._check_wanted(run)
            return
        with run:
            self._send(run, item)
            if run.credit <= 0:
                # Nobody else waits for the negative of a key.
                self._pool.waits.wait_in(run, lambda: run.credit > 0, None, -run.call.key)

    def _send(self, run: ThreadRun, item: Any) -> None:
        self._check_wanted(run)
        key = run.call.key
        self._pool.sink.take_item(key, item)
        with self._pool.lock:
            run.credit -= 1
            self._pool.waits.ring(key)
            self._pool.waits.ring(0)

    def _check_wanted(self, run: ThreadRun) -> None:
        if self._pool.runs.get(run.call.key) is not run:
            raise CallInterrupted("the stream was closed")
