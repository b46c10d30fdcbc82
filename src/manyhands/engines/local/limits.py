"""Calls that run out of time or memory, or were cancelled while they ran: interrupted first, then ended."""

from __future__ import annotations

from time import monotonic

from manyhands.core.exceptions import unpack_exception
from manyhands.core.timeouts import GRACE_SECONDS, add_stack, make_timeout_error
from manyhands.engines.local import messages as m
from manyhands.errors import CallTimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from manyhands.engines.local.courier import Courier
    from manyhands.engines.local.memory_watch import MemoryWatch
    from manyhands.engines.local.pool_parts import Entry, WorkerState
    from manyhands.engines.local.pool_state import PoolState
    from manyhands.engines.local.process import WorkerProcess

_STACK_SECONDS = 0.02
"""How long a worker has to write where it stands, before it is ended."""


_LOOK_SECONDS = GRACE_SECONDS / 4
"""How often to look whether a worker has heard that its call is to end."""


_AGAIN_SECONDS = 0.005
"""How soon to tell a worker again that had no room in its socket."""


_SOON_SECONDS = 0.05
"""How soon to look at the memory of a call that has a limit."""


class Ending:
    """Why a call is to end before its time.

    Attributes
    ----------
    error
        What it ends with; None for a call that was cancelled, which nobody waits for.
    is_told
        Whether its worker was told to interrupt it; not so where there was no room in its socket.
    is_asked
        Whether its worker was asked where it stands.
    since
        When it was interrupted, or asked.
    """

    __slots__ = ("error", "is_asked", "is_killed", "is_told", "since")

    def __init__(self, error: BaseException | None, since: float) -> None:
        self.error = error
        self.since = since
        self.is_told = True
        self.is_asked = False
        self.is_killed = False


class Limits:
    """Sees to it that calls end when they have to.

    Parameters
    ----------
    pool, processes, courier
        The engine's.

    Attributes
    ----------
    endings
        By key, the calls that are about to end.
    """

    def __init__(
        self, pool: PoolState, processes: dict[int, WorkerProcess], courier: Courier
    ) -> None:
        self.endings: dict[int, Ending] = {}
        self._pool = pool
        self._processes = processes
        self._courier = courier
        # Calls with a time-out, their workers, and when they were sent: what has begun before is another call.
        self._timed: dict[int, tuple[int, float]] = {}
        self._watch: MemoryWatch | None = None
        self._looked_at = monotonic()
        self._pause = 1.0  # the first look is late: most sessions are over by then

    def note_sending(self, worker: WorkerState, entries: Iterable[Entry]) -> None:
        """Calls are about to be sent to a worker."""
        for entry in entries:
            if entry.options.timeout is not None:
                self._timed[entry.key] = worker.number, monotonic()
            if self._find_memory_limit(entry) and not worker.is_host:
                self._note_memory_limit(worker.number, entry.key)

    def _find_memory_limit(self, entry: Entry) -> int:
        """Bytes that a call, or the actor that it is a call of, may take; 0 for no limit."""
        stage = self._pool.stages.get(entry.stage) if entry.stage else None
        return entry.options.need.memory or (stage.need.memory if stage is not None else 0)

    def _note_memory_limit(self, number: int, key: int) -> None:
        """A call with a memory limit is about to begin: look soon, and know what there was before."""
        process = self._processes[number]
        if process.pid is not None:
            self._get_watch().begin(number, process.pid, key)
        self._pause = min(self._pause, _SOON_SECONDS)

    def _get_watch(self) -> MemoryWatch:
        if self._watch is None:
            from manyhands.engines.local.memory_watch import MemoryWatch

            self._watch = MemoryWatch()
        return self._watch

    def cancel(self, key: int, number: int) -> None:
        """A call that may be running is not wanted any more."""
        ending = self.endings.get(key)
        if ending is not None and ending.error is None:
            return
        self._processes[number].forbid(key)
        if (
            ending is not None
        ):  # it is about to end as it is, and nobody is to hear of that any more
            ending.error = None
            return
        self.endings[key] = ending = Ending(None, monotonic())
        ending.is_told = self._interrupt(key, number)

    def drop_cancelled(self) -> None:
        """Calls that were cancelled in a worker's hands, and came back from it, are not sent again."""
        for key, ending in list(self.endings.items()):
            if ending.error is None and self._pool.withdraw(key):
                del self.endings[key]
                self._allow(key)

    def _allow(self, key: int) -> None:
        for process in self._processes.values():
            process.allow(key)

    def end_with(self, key: int, error: BaseException | None) -> None:
        """A call's worker is about to be ended, and the call with it, by `error`; None for a call that nobody wants.

        One that was cancelled before stays a call that nobody wants.
        """
        before = self.endings.get(key)
        is_wanted = before is None or before.error is not None
        ending = self.endings[key] = Ending(error if is_wanted else None, monotonic())
        ending.is_killed = True

    def _interrupt(self, key: int, number: int) -> bool:
        """Have a worker interrupt a call; False where there is no room in its socket."""
        process = self._processes[number]
        if self._pool.workers[number].is_host:
            return self._courier.send(process, (m.STOP, key))
        process.interrupt(key)
        return True

    def check(self) -> float | None:
        """Interrupt what has run too long, end what does not yield; seconds until the next look, or None."""
        now = monotonic()
        if not self._timed and not self.endings:
            return self._check_memory(now)
        pauses = []
        for key, (number, sent_at) in list(self._timed.items()):
            left = self._check_time(key, number, sent_at, now)
            if left is not None:
                pauses.append(left)
        for key, ending in list(self.endings.items()):
            left = self._check_ending(key, ending, now)
            if left is not None:
                pauses.append(left)
        left = self._check_memory(now)
        if left is not None:
            pauses.append(left)
        return min(pauses, default=None)

    def _check_time(self, key: int, number: int, sent_at: float, now: float) -> float | None:
        worker, process = self._pool.workers.get(number), self._processes.get(number)
        entry = worker.inflight.get(key) if worker is not None else None
        if worker is None or entry is None or process is None or key in self.endings:
            del self._timed[key]
            return None
        timeout = entry.options.timeout
        assert timeout is not None
        if worker.is_host:
            return self._check_host(entry, timeout, process, now - sent_at)
        started = process.get_started()
        if process.get_current() != key or started < sent_at:
            return timeout
        ran = now - started
        if ran < timeout:
            return timeout - ran
        self.endings[key] = Ending(make_timeout_error(entry.function.name, key, timeout, ran), now)
        self._interrupt(key, number)
        del self._timed[key]
        return None

    def _check_host(
        self, entry: Entry, timeout: float, process: WorkerProcess, ran: float
    ) -> float | None:
        """A host sees to its calls' time itself, unless native code keeps it from running at all."""
        left = timeout + 2 * GRACE_SECONDS - ran
        if left > 0:
            return left
        error = make_timeout_error(entry.function.name, entry.key, timeout, ran)
        self.endings[entry.key] = ending = Ending(error, monotonic())
        ending.is_asked = True
        process.ask_stack()
        del self._timed[entry.key]
        return None

    def _check_ending(self, key: int, ending: Ending, now: float) -> float | None:
        worker = self._pool.find(key)
        process = self._processes.get(worker.number) if worker is not None else None
        if worker is None or process is None:
            if ending.error is None and self._pool.knows(key):
                return (
                    _AGAIN_SECONDS  # it has come back from its worker, and is about to be dropped
                )
            del self.endings[key]
            return None
        if ending.is_killed:
            return None
        if not worker.is_host:
            process.interrupt_again(key)
        if worker.is_blocked:  # it has not the cpus to end
            ending.since = now
            return _LOOK_SECONDS
        if not worker.is_host and process.get_current() != key and not ending.is_asked:
            ending.since = now  # it has not begun, or has just ended
            return _LOOK_SECONDS
        if not ending.is_told and self._interrupt(key, worker.number):
            ending.is_told, ending.since = True, now
        left = ending.since + (_STACK_SECONDS if ending.is_asked else GRACE_SECONDS) - now
        if left > 0:
            return min(left, _LOOK_SECONDS if ending.is_told else _AGAIN_SECONDS)
        if not ending.is_asked:
            ending.is_asked, ending.since = True, now
            process.ask_stack()
            return _STACK_SECONDS
        ending.is_killed = True
        process.kill()
        return None

    def _check_memory(self, now: float) -> float | None:
        """Look at the memory of workers now and then; end the call that takes too much of it."""
        left = self._looked_at + self._pause - now
        if left > 0:
            return left
        if not self._pool.is_busy():
            return None
        from manyhands.engines.local.memory_watch import WorkerMemory, describe_out_of_memory

        watch = self._get_watch()
        seen = []
        for number, worker in self._pool.workers.items():
            process = self._processes[number]
            key = process.get_current()
            entry = worker.inflight.get(key)
            name = entry.function.name if entry is not None else ""
            limit = (self._find_memory_limit(entry) or None) if entry is not None else None
            seen.append(
                WorkerMemory(number, process.pid, key if entry is not None else 0, name, limit)
            )
        verdict = watch.look(seen, now)
        self._looked_at, self._pause = now, watch.pause
        if verdict is not None:
            self.end_with(verdict.victim.key, describe_out_of_memory(verdict))
            self._processes[verdict.victim.number].kill()
        return self._pause

    def conclude(self, key: int, failure: bytes | None, stack: str = "") -> Ending | None:
        """A call has ended; why it had to, None if nobody wanted it to.

        Parameters
        ----------
        key
        failure
            Its packed error, if it ended by one.
        stack
            Where its worker stood, if it had to be asked.
        """
        ending = self.endings.pop(key, None)
        self._timed.pop(key, None)
        if ending is not None and ending.error is None:
            self._allow(key)
        error = ending.error if ending is not None else None
        if isinstance(error, CallTimeoutError):
            notes = [] if failure is None else getattr(unpack_exception(failure), "__notes__", [])
            add_stack(error, stack or "\n".join(notes))
        return ending

    def close(self) -> None:
        """Give descriptors back."""
        if self._watch is not None:
            self._watch.close()
