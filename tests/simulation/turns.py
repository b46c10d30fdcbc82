"""A process that makes a step when it is its turn, and between two steps sees signals, or dies."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from manyhands.engines.local import messages as m
from manyhands.errors import CallInterrupted
from tests.simulation.outside import here
from tests.simulation.performance import DeathError

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.simulation.processes import SimulatedProcess
    from tests.simulation.scripts import Script
    from tests.simulation.worker import SimulatedWorker
    from tests.simulation.world import World

    Steps = Generator[None, None, Any]

INFINITY = float("inf")


class Guard:
    """Holds interrupts back, as `Waits` does in a ``with`` block."""

    def __init__(self, worker: Turns) -> None:
        self._worker = worker

    def __enter__(self) -> None:
        self._worker.guards += 1

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        worker = self._worker
        worker.guards -= 1
        if not worker.guards and worker.is_interrupted:
            worker.is_interrupted = False
            if error is None:
                raise CallInterrupted("the call was cancelled, or has run out of time")


class Turns:
    """What a worker's process is, whatever it does; `serve` says that.

    Attributes
    ----------
    current, started, interrupt_key, journal
        What its parent reads and writes in the region that both see.
    signals : set of str
        That have come, and have not been seen to.
    is_deaf : bool
        Whether native code runs that lets no signal be seen to.
    wants_message, until
        When there is a step to make: when a message is there, or at this time.
    lingering : int
        Steps that it still makes though it was killed.
    script : Script or None
        The call that it is at.
    streams : list of Stream
        That its calls have opened.
    """

    def __init__(self, world: World, process: SimulatedProcess) -> None:
        self.world = world
        self.process = process
        self.number = process.number
        self.settings = process.settings
        self.unread = process.channel.outgoing
        self.say = process.channel.incoming.append
        self.signals: set[str] = set()
        self.is_alive = True
        self.is_deaf = False
        self.lingering = 0
        self.wants_message = False
        self.until = 0.0
        self.current = 0
        self.started = 0.0
        self.interrupt_key = 0
        self.journal: list[tuple[int, bytes, float, bool]] = []
        self.guards = 0
        self.is_interrupted = False
        self.script: Script | None = None
        self.streams: list[Any] = []
        self._is_in_call = False
        self._is_journal_stale = False
        self._waiting: deque[tuple[int, int, bytes]] = deque()
        self._keeps_calls = bool(self.settings["is_stage"])
        self._main = self.serve()

    def __repr__(self) -> str:
        return f"worker {self.number}"

    # Steps.

    def is_enabled(self) -> bool:
        """Whether there is a step to make."""
        if self.until <= self.world.now or self.process.is_killed:
            return True
        if self.signals and not self.is_deaf:
            return True
        return self.wants_message and (bool(self.unread) or not self.process.channel.is_open)

    def step(self) -> None:
        """Make a step."""
        if self.process.is_killed:
            self.lingering -= 1
            if self.lingering < 0:
                self.end()
                return
        here.worker = self
        try:
            self._step()
        except StopIteration:
            self.process.status = 0
            self.end()
        except DeathError as death:
            self.process.status = death.status
            self.end()
        finally:
            here.worker = None

    def _step(self) -> None:
        if self._is_journal_stale:
            self._is_journal_stale = False
            self.journal.clear()
        if self.signals and not self.is_deaf:
            self._take_signal()
            return
        self.wants_message = False
        self.until = 0.0
        next(self._main)

    def end(self) -> None:
        """The process is gone."""
        self.is_alive = False
        for stream in self.streams:
            stream._is_over = True  # or it would have somebody cancel it when it is collected
        self._main.close()
        worker: SimulatedWorker = self  # type: ignore[assignment]
        self.world.bury(worker)

    def find_due(self) -> float:
        """When it goes on by itself."""
        return self.until

    def sleep(self, until: float = INFINITY, *, for_message: bool = False) -> None:
        """Before a ``yield``: what to wait for."""
        self.until = until
        self.wants_message = for_message

    def set_deaf(self, value: bool) -> None:
        """Native code begins, or ends, that lets no signal be seen to."""
        self.is_deaf = value

    # Signals.

    def _take_signal(self) -> None:
        name = min(self.signals)  # the order of their numbers
        self.signals.discard(name)
        if name == "back":
            self._give_back()
        elif name == "interrupt":
            key = self.interrupt_key
            if key and key == self.current and self._is_in_call:
                self.interrupt_key = 0
                self._interrupt()

    def _give_back(self) -> None:
        keys = self.give_up_waiting()
        if keys:
            self.send((m.GIVE_BACK, keys, [], []))
        if self._is_in_call:
            self.flush()

    def give_up_waiting(self) -> list[int]:
        """Keys of calls that have not begun, and will not here."""
        if self._keeps_calls:
            return []
        keys = [key for key, _, _ in self._waiting]
        self._waiting.clear()
        return keys

    def _interrupt(self) -> None:
        self.world.tell(self.script, "is interrupted in", self)
        if self.guards:
            self.is_interrupted = True
            self.until = 0.0  # out of its sleep
            return
        self.wants_message = False
        self.until = 0.0
        self._main.throw(CallInterrupted("the call was cancelled, or has run out of time"))

    # What it does.

    def send(self, message: tuple[Any, ...]) -> None:
        """Send a message to the parent."""
        raise NotImplementedError

    def serve(self) -> Steps:
        """All of it."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send what has ended."""
        raise NotImplementedError
