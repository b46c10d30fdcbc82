"""The threads of the engine: those that run calls, and those that have nothing to do."""

from __future__ import annotations

import threading
from itertools import count

from manyhands.engines.threads.bell import Bell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from manyhands.engines.threads.runs import ThreadRun

IDLE_SECONDS = 5.0
"""How long a thread beyond the usual number stays with nothing to do."""


class Worker(Bell):
    """A thread that runs one call after the other.

    Attributes
    ----------
    thread
    run
        What it is at, or has been given; None where it has nothing to do.
    is_reserved
        Whether it runs the calls of one actor and no others.
    is_leaving
        Whether it ends as soon as it has nothing to do.
    """

    __slots__ = ("is_leaving", "is_reserved", "run", "thread")

    def __init__(self, *, is_reserved: bool) -> None:
        super().__init__()
        self.thread: threading.Thread | None = None
        self.run: ThreadRun | None = None
        self.is_reserved = is_reserved
        self.is_leaving = False

    def assign(self, run: ThreadRun) -> None:
        """Give it a call."""
        self.run = run
        run.worker = self
        self.ring()


class Crew:
    """All threads of an engine; used with its lock held.

    Parameters
    ----------
    size
        How many stay though they have nothing to do.
    serve
        What a thread does, until it ends.
    """

    _numbers = count(1)

    def __init__(self, size: int, serve: Callable[[Worker], None]) -> None:
        self._size = size
        self._serve = serve
        self._workers: set[Worker] = set()
        self._vacant: list[Worker] = []
        self._staying = 0  # neither reserved nor leaving

    def list_threads(self) -> list[threading.Thread]:
        """Of all workers."""
        return [worker.thread for worker in self._workers if worker.thread is not None]

    def fill(self) -> None:
        """Start as many as stay.

        Raises
        ------
        RuntimeError
            The system gives no more threads.
        """
        while self._staying < self._size:
            self._vacant.append(self.start())

    def find(self) -> Worker:
        """One that has nothing to do, if need be a new one.

        Raises
        ------
        RuntimeError
            As in `fill`.
        """
        return self._vacant.pop() if self._vacant else self.start()

    def start(self, *, is_reserved: bool = False) -> Worker:
        """A new one.

        Raises
        ------
        RuntimeError
            As in `fill`.
        """
        worker = Worker(is_reserved=is_reserved)
        name = f"manyhands-worker-{next(self._numbers)}"
        thread = threading.Thread(target=self._serve, args=(worker,), name=name, daemon=True)
        thread.start()
        worker.thread = thread
        self._workers.add(worker)
        self._staying += not is_reserved
        return worker

    def vacate(self, worker: Worker, run: ThreadRun) -> None:
        """It is not at a call any more."""
        if worker.run is run:  # that of an actor may have its next one
            worker.run = None
        if not (worker.is_reserved or worker.is_leaving):
            self._vacant.append(worker)

    def dismiss(self, worker: Worker) -> None:
        """Let it end: at once where it has nothing to do, else after its call."""
        if not worker.is_leaving:
            worker.is_leaving = True
            self._staying -= not worker.is_reserved
            if worker in self._vacant:
                self._vacant.remove(worker)
            worker.ring()

    def dismiss_all(self) -> None:
        """Let all end."""
        for worker in self._workers:
            self.dismiss(worker)

    def renew(self) -> None:
        """Have others in the places of all but those of actors."""
        for worker in self._workers:
            if not worker.is_reserved:
                self.dismiss(worker)
        self.fill()

    def remove(self, worker: Worker) -> None:
        """It has ended, or nobody waits for it any more."""
        self.dismiss(worker)
        self._workers.discard(worker)

    def get_patience(self) -> float | None:
        """How long a worker waits before it asks whether it is still needed; None where no more than that stay."""
        return IDLE_SECONDS if self._staying > self._size else None

    def is_spare(self, worker: Worker) -> bool:
        """Whether it may end, since it had nothing to do."""
        return worker in self._vacant and self._staying > self._size
