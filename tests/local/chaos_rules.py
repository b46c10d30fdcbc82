"""The rules of the chaos test: what may come of an operation, given what was done to the workers."""

import signal
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import CancelledError
from itertools import count
from pathlib import Path
from typing import Any

import manyhands as mh
from tests.local.chaos import BEGIN, PARTS, AsyncTally, KeptTally, Refused, Tally, mix


class Witness:
    """What was done to the workers, and what went wrong.

    Parameters
    ----------
    session
        Is observed from now on.
    folder
        Of the log.

    Attributes
    ----------
    struck : dict of int to set of int
        Workers that were killed, and the signals.
    lost : set of int
        Those whose template was killed.
    ended : set of int
        Those that the engine killed itself.
    actor_ends : Counter
        How often the worker of an actor has ended, by its number.
    faults : list of str
        What breaks a rule.
    calls, delivered, judged : int
        Calls that were made, results that have come, and operations whose ends were held against the rules.
    kills, excuses : int
        Workers that the engine killed, orphans aside, and operations that left it no other choice.
    ends : Counter
        How operations ended.
    """

    def __init__(self, session: mh.Session, folder: str) -> None:
        self.session = session
        self.engine: Any = session._engine
        self.folder = folder
        self.struck: defaultdict[int, set[int]] = defaultdict(set)
        self.lost: set[int] = set()
        self.ended: set[int] = set()
        self.actor_ends: Counter[int] = Counter()
        self.faults: list[str] = []
        self.calls = 0
        self.judged = 0
        self.kills = self.excuses = 0
        self.delivered = 0
        self.ends: Counter[str] = Counter()
        self.is_over = False
        self.numbers = count(1)
        self.operations: list[Operation] = []
        self._settled: set[int] = set()
        self._lock = threading.Lock()
        self._observe()

    def _observe(self) -> None:
        """See what the engine tells its session: every call ends once, and none that was given back."""
        session: Any = self.session
        take_results, take_failure = session.take_results, session.take_failure
        cancel, note_actor_end = self.engine.cancel, self.engine.note_actor_end

        def see_results(results: list[tuple[int, Any]]) -> None:
            self.delivered += len(results)
            makings = session._troupe._makings
            self._settle([key for key, _ in results if key not in makings], "a result")
            take_results(results)

        def see_failure(key: int, error: BaseException, attempt: Any) -> None:
            if key in self._settled:
                self.blame(f"call {key} failed after its end: {error!r}")
            take_failure(key, error, attempt)

        def see_cancel(keys: Any, *, running: bool = False) -> set[int]:
            withdrawn: set[int] = cancel(keys, running=running)
            self._settle(withdrawn, "a cancellation")
            return withdrawn

        def see_actor_end(actor: int, error: BaseException) -> None:
            self.actor_ends[actor] += 1
            note_actor_end(actor, error)

        session.take_results, session.take_failure = see_results, see_failure
        self.engine.cancel, self.engine.note_actor_end = see_cancel, see_actor_end

    def _settle(self, keys: Any, what: str) -> None:
        with self._lock:
            again = self._settled.intersection(keys)
            self._settled.update(keys)
        for key in again:
            self.blame(f"call {key} got {what} after its end")

    def blame(self, fault: str) -> None:
        self.faults.append(fault)

    def is_dead(self, pid: int) -> bool:
        """Whether anybody ended this worker."""
        return pid in self.struck or pid in self.lost or pid in self.ended

    def check_death(self, error: mh.WorkerDiedError) -> str | None:
        """What is wrong with the error of a worker's death; None for nothing."""
        pid = error.pid
        if pid is None or pid in self.lost or pid in self.ended:
            return None
        if pid not in self.struck:
            return f"worker {pid} was not killed"
        # While `faulthandler` writes where the threads of an aborted process stood, they run on, and that may crash.
        aborted = signal.SIGABRT in self.struck[pid] and error.signal == signal.SIGSEGV
        if error.signal not in self.struck[pid] and not aborted:
            return f"worker {pid} was killed by {self.struck[pid]}, and not by {error.signal}"
        return None

    def read_log(self) -> dict[int, list[tuple[int, int]]]:
        """For each call the moments in which it began, and the processes."""
        found = defaultdict(list)
        for number, pid, moment in BEGIN.iter_unpack(Path(self.folder, "log").read_bytes()):
            found[number].append((moment, pid))
        return found


class Operation:
    """Something that was asked of the session, and what may come of it.

    Attributes
    ----------
    number : int
        Of the call, or of the whole that its calls belong to.
    numbers : iterable of int
        Of its calls, as they stand in the log.
    expected
        The result.
    worker_retries, retries, timeout
        As of its task.
    may_refuse : bool
        Whether `Refused` is a right end.
    is_nested : bool
        Whether it makes calls of its own, whose errors may become its own.
    inputs : list of Operation
    cancelled_at : int or None
        When its cancellation had ended, in nanoseconds; 0 while that is under way.
    """

    def __init__(self, witness: Witness, what: str, number: int, expected: Any = None) -> None:
        self.witness = witness
        self.what = what
        self.number = number
        self.numbers: Any = (number,)
        self.expected = expected
        self.future: Any = None
        self.worker_retries = 1
        self.retries = 0
        self.timeout: float | None = None
        self.may_refuse = False
        self.is_nested = False
        self.inputs: list[Operation] = []
        self.cancelled_at: int | None = None
        self.is_running_cancelled = False
        self.heard = 0
        witness.operations.append(self)

    def __repr__(self) -> str:
        return f"{self.what} {self.number} ({self.future!r})"

    def watch(self, future: Any) -> "Operation":
        """It has begun."""
        self.future = future
        future.notify(self._hear)
        return self

    def _hear(self, _: Any) -> None:
        self.heard += 1

    def cancel(self, *, running: bool) -> None:
        was_done = self.future.done()
        self.cancelled_at, self.is_running_cancelled = 0, running
        is_cancelled = self.future.cancel(running=running)
        self.cancelled_at = time.monotonic_ns() if is_cancelled else None
        if is_cancelled and was_done and not self.future.cancelled():
            self.witness.blame(f"{self!r} had ended and was cancelled")

    def may_be_cancelled(self) -> bool:
        return self.cancelled_at is not None or any(one.may_be_cancelled() for one in self.inputs)

    def judge(self, timeout: float = 100.0) -> None:
        """Wait for the end and hold it against the rules."""
        fault = self._judge(timeout)
        if fault is not None and not self.witness.is_over:
            self.witness.blame(f"{self!r}: {fault}")
        self.witness.judged += 1

    def _judge(self, timeout: float) -> str | None:
        try:
            error = self.future.exception(timeout)
        except CancelledError:
            self.witness.ends["cancelled"] += 1
            return None if self.may_be_cancelled() else "it was cancelled, and nobody asked for it"
        self.witness.ends[type(error).__name__ if error is not None else "result"] += 1
        if error is not None:
            return self.judge_error(error)
        return self.judge_value(self.future.result())

    def judge_value(self, value: Any) -> str | None:
        return (
            None if value == self.expected else f"its result is {value!r}, and not {self.expected}"
        )

    def judge_error(self, error: BaseException) -> str | None:
        """What is wrong with an error; None for nothing."""
        if isinstance(error, mh.DependencyError) and not self.is_nested:
            cause = error.__cause__
            failed = [
                one for one in self.inputs if one.future.done() and not one.future.cancelled()
            ]
            if any(one.future.exception() is cause for one in failed):
                return None
        elif isinstance(error, mh.CallTimeoutError):
            if self.timeout is not None and error.seconds >= self.timeout:
                return None
        elif isinstance(error, mh.WorkerDiedError):
            return self.witness.check_death(error) or self.check_attempts(error)
        elif isinstance(error, Refused):
            if self.may_refuse:
                return None
        elif self.is_nested and isinstance(error, (mh.DependencyError, mh.ActorDiedError)):
            return None
        return f"it must not end by this error:\n{describe(error)}"

    def check_attempts(self, error: BaseException) -> str | None:
        """Whether a call whose worker died was tried as often as it may be."""
        if self.is_nested:
            return None
        lines = "\n".join(getattr(error, "__notes__", ())).splitlines()
        deaths = sum(". WorkerDiedError: " in line for line in lines) or 1
        if deaths != self.worker_retries + 1:
            return f"{deaths} workers died of it, and {self.worker_retries} retries are allowed:\n{describe(error)}"
        return None

    def check_log(self, log: dict[int, list[tuple[int, int]]]) -> Iterator[str]:
        """What is wrong with how often its calls began, and when."""
        for number in self.numbers:
            begins = log.get(number, ())
            alive = [pid for _, pid in begins if not self.witness.is_dead(pid)]
            if len(alive) > 1 + self.retries:
                yield f"{self!r} began {len(begins)} times, in workers {begins} that did not die"
            if self.cancelled_at:
                # One that a worker has read may begin before the interrupt is there.
                limit = self.cancelled_at + (2_000_000_000 if self.is_running_cancelled else 0)
                late = [moment - self.cancelled_at for moment, _ in begins if moment > limit]
                if late:
                    yield f"{self!r} was cancelled, and began {late} ns later"


def describe(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


class Mapping(Operation):
    """A map; its items are judged one by one.

    Attributes
    ----------
    size
        Of its input.
    bad
        The items that are to fail.
    """

    def __init__(self, witness: Witness, number: int, size: int, bad: frozenset[int]) -> None:
        super().__init__(witness, "map", number)
        self.first = number * PARTS
        self.numbers = range(self.first, self.first + size)
        self.size = size
        self.bad = bad
        self.deadline: float | None = None

    def __repr__(self) -> str:
        return f"map {self.number} of {self.size}"

    def judge_items(self, found: list[Any], size: int) -> str | None:
        """What is wrong with results in the order of the input."""
        if len(found) != size:
            return f"it has {len(found)} results, and not {size}"
        faults = (self.judge_item(x, value) for x, value in enumerate(found))
        return next((fault for fault in faults if fault is not None), None)

    def judge_unordered(self, found: list[Any], size: int | None) -> str | None:
        """The same of results in any order; `size` is None where an error has ended it."""
        left = {mix(self.first, x) for x in range(self.size) if x not in self.bad}
        fault = None
        for value in found:
            if value in left:
                left.remove(value)  # so it comes once
            else:
                fault = fault or self.judge_item(None, value)
        if size is not None and len(found) != size:
            fault = f"it has {len(found)} results, and not {size}"
        return fault

    def judge_item(self, x: int | None, value: Any) -> str | None:
        """What is wrong with what became of an item; x is None for any."""
        if isinstance(value, Refused):
            place = value.args[0]
            return None if place in self.bad and x in (None, place) else f"item {x}: {value!r}"
        if isinstance(value, mh.WorkerDiedError):
            return self.witness.check_death(value) or self.check_attempts(value)
        if isinstance(value, mh.DeadlineError) and self.deadline is not None:
            return None
        if isinstance(value, BaseException):
            return f"item {x} must not end by this error:\n{describe(value)}"
        is_right = x is not None and x not in self.bad and value == mix(self.first, x)
        return None if is_right else f"item {x} is {value}"


class Tree(Operation):
    """A nested tree: its calls are tried again where any worker of theirs died."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.is_nested = True

    def judge_error(self, error: BaseException) -> str | None:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, mh.WorkerDiedError):
            cause = cause.__cause__ or cause.__context__
        return super().judge_error(error if cause is None else cause)

    def check_log(self, log: dict[int, list[tuple[int, int]]]) -> Iterator[str]:
        begins = {number: log.get(number, []) for number in self.numbers}
        if any(self.witness.is_dead(pid) for begun in begins.values() for _, pid in begun):
            return
        for number, begun in begins.items():
            if len(begun) > 1:
                yield f"{self!r}: node {number % PARTS} began {len(begun)} times, and nobody died"
        if self.cancelled_at:
            late = [m for begun in begins.values() for m, _ in begun if m > self.cancelled_at + 2e9]
            if late:
                yield f"{self!r} was cancelled, and {len(late)} of its calls began later"


class ActorCall(Operation):
    """A call to an actor; it is not tried again unasked."""

    def __init__(
        self, witness: Witness, what: str, number: int, troupe: "Performer", place: int = 0
    ) -> None:
        super().__init__(witness, what, number, mix(number, 1))
        self.performer = troupe
        self.place = place
        self.worker_retries = 0
        self.retries = 0

    def judge_value(self, value: Any) -> str | None:
        return super().judge_value(value) if not self.place else self.performer.judge(self, value)

    def judge_error(self, error: BaseException) -> str | None:
        if isinstance(error, mh.ActorDiedError):
            return self.performer.explain_end(error)
        return super().judge_error(error)

    def check_log(self, log: dict[int, list[tuple[int, int]]]) -> Iterator[str]:
        begins = log.get(self.number, ())
        if len(begins) > 1:
            yield f"{self!r} began {len(begins)} times"


class Performer:
    """An actor and what is known of its state.

    Parameters
    ----------
    witness
    kind
        "plain", "kept", "light", "async" or "threads".
    restarts
    """

    def __init__(self, witness: Witness, kind: str, restarts: int) -> None:
        options = {
            "plain": {},
            "kept": {"checkpoint_every": 1},
            "light": {"cpus": 0},
            "async": {},
            "threads": {"max_concurrency": 4},
        }[kind]
        cls = {"kept": KeptTally, "async": AsyncTally}.get(kind, Tally)
        self.witness = witness
        self.kind = kind
        self.restarts = restarts
        self.is_stopped = False
        self.places = count(1)
        self.pending: list[ActorCall] = []
        self.last = self.calls = 0  # of the last call that ended well
        self.failed = 0  # calls since then that did not
        self.handle: Any = mh.actor(cls, restarts=restarts, **options).start()

    @property
    def ends(self) -> int:
        return self.witness.actor_ends[self.handle._number]

    def is_over(self) -> bool:
        return self.is_stopped or self.ends > self.restarts

    def explain_end(self, error: mh.ActorDiedError) -> str | None:
        """Whether the actor may answer that it is dead."""
        if self.is_over():
            return None
        return f"its actor's worker has ended {self.ends} times, and {self.restarts} restarts are allowed: {error}"

    def judge(self, call: ActorCall, answer: tuple[int, int]) -> str | None:
        """Whether a call found the actor in the right state; calls are judged in their order."""
        before, calls = answer
        failed, self.failed = self.failed, 0
        last, self.last = self.last, call.place
        counted, self.calls = self.calls, calls
        if self.kind in ("async", "threads"):  # they run beside each other
            return None
        if before >= call.place:
            return f"call {call.place} of the actor came after call {before}"
        if self.kind != "kept" and self.ends:
            return None
        if before < last or not counted < calls <= counted + 1 + failed:
            return f"it found {answer} after {(last, counted)} and {failed} calls that failed"
        return None
