"""What the engine knows of a call that runs, and what the call sends to its session meanwhile."""

from __future__ import annotations

from manyhands.core.run import Run
from manyhands.engines.threads.schedule import Fate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from manyhands.engines.threads.crew import Worker
    from manyhands.engines.threads.loop import LoopThread
    from manyhands.engines.threads.pool import Pool
    from manyhands.engines.threads.schedule import Job, Seat
    from manyhands.engines.threads.stages import Life


class ThreadRun(Run):
    """A call that runs; to the call it is the way to its session, see `manyhands.core.roles.Post`.

    Attributes
    ----------
    pool
    job
    seat
        What it holds; that of the actor for an actor's call.
    life
        The actor that it is a call of, as it lives now.
    worker
        The thread that is at it, or is going to be.
    loop
        The event loop that it is on; None where it is on none.
    is_seated
        Whether it counts among those that are busy on its seat.
    is_heard
        Whether the event loop has heard that it is to end.
    is_released
        Whether it has given back what it held.
    is_silent
        Whether its end is not for the session: an actor was made again.
    credit
        Of a stream, how many items are wanted.
    parked : float
        Seconds that it has waited for other calls.
    seconds : float
        That it took of a thread.
    """

    is_alone = False

    __slots__ = (
        "_fate",
        "credit",
        "is_heard",
        "is_released",
        "is_seated",
        "is_silent",
        "job",
        "life",
        "loop",
        "parked",
        "pool",
        "seat",
        "seconds",
        "worker",
    )

    def __init__(self, pool: Pool, job: Job, seat: Seat, life: Life | None = None) -> None:
        super().__init__(job.call)
        self.job = job
        self.seat = seat
        self.life = life
        self.worker: Worker | None = None
        self.loop: LoopThread | None = None
        self.is_seated = True
        self.is_heard = False
        self.is_released = False
        self.is_silent = False
        self.credit = job.call.options.window
        self.parked = 0.0
        self.seconds = 0.0
        self._fate: Fate | None = None
        self.pool = pool

    def get_fate(self) -> Fate:
        """Of the calls that it makes."""
        if self._fate is None:
            self._fate = Fate(self.job.fate)
        return self._fate

    def lose_calls(self) -> None:
        """It has come to nothing, and so those of its calls that have not started do not start."""
        self.get_fate().is_lost = True

    def emit(self, item: Any) -> None:
        self.pool.items.emit(self, item)

    def keep(self, actor: int, state: Any) -> None:  # noqa: ARG002 - a call keeps the state of its own actor
        if self.life is not None:
            self.life.keep(state)
