"""Pure: the life of calls that have inputs, or were tried and failed.

Events come in, effects go out. Most calls need no account and cost nothing here; one that may be tried again gets one
when it first fails. No clock, no thread, no chance, no I/O: whoever holds a `Lifecycle` serialises access, draws the
numbers and carries the effects out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from manyhands.core.model import CallState
from manyhands.errors import WorkerDiedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from manyhands.core.model import RetryPolicy


@dataclass(frozen=True, slots=True)
class Submit:
    """Give the call to the engine: its inputs are there."""

    key: int


@dataclass(frozen=True, slots=True)
class Again:
    """Give the call to the engine once more, after so many seconds."""

    key: int
    delay: float


@dataclass(frozen=True, slots=True)
class Fail:
    """End the call with an error: its own (`cause` is None), or that of the input `cause`.

    Attributes
    ----------
    key
    cause
    history
        The errors of its earlier attempts, oldest first.
    """

    key: int
    cause: int | None
    history: tuple[BaseException, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the call as cancelled, because the input `cause` was."""

    key: int
    cause: int


Effect = Submit | Again | Fail | Cancel


class Attempts:
    """How often a call was tried, and whether it is tried again.

    Failures of its own count against `retries`, deaths of its workers against `worker_retries`.

    Attributes
    ----------
    errors
        Of the attempts that failed, oldest first.

    Examples
    --------
    >>> from manyhands.core.model import RetryPolicy
    >>> attempts = Attempts(RetryPolicy(1, backoff=0.5))
    >>> [attempts.fail(OSError(), chance=1.0) for _ in range(2)]
    [0.5, None]
    """

    __slots__ = ("_deaths", "errors", "policy")

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self.errors: list[BaseException] = []
        self._deaths = 0

    def fail(self, error: BaseException, chance: float, key: int = 0) -> float | None:
        """Take in that an attempt failed.

        Parameters
        ----------
        error
        chance
            From 0 to 1, drawn evenly: calls that failed together are not tried again together.
        key
            The call's; see `is_own_death`.

        Returns
        -------
        float or None
            Seconds after which to try again; None for not at all.
        """
        policy = self.policy
        self.errors.append(error)
        if is_own_death(error, key):
            self._deaths += 1
            return 0.0 if self._deaths <= policy.worker_retries else None
        failures = len(self.errors) - self._deaths
        if failures > policy.retries or not policy.covers(error):
            return None
        # Exponential, capped, and from half of that to all of it. A huge exponent would overflow.
        longest = min(policy.backoff_cap, policy.backoff * 2.0 ** min(failures - 1, 64))
        return longest * (1 + chance) / 2


def is_own_death(error: BaseException, key: int) -> bool:
    """Whether the call `key` failed because its own worker died, and not because another call's did."""
    return isinstance(error, WorkerDiedError) and error.key in (None, key)


class _Record:
    __slots__ = ("attempts", "missing", "state")

    def __init__(self, missing: set[int]) -> None:
        self.missing = missing
        self.attempts: Attempts | None = None
        self.state = CallState.WAITING if missing else CallState.READY


class Lifecycle:
    """The calls that wait for inputs, and those that may be tried again.

    Keys are the caller's; inputs have keys too, also where they are no calls of this session.

    Examples
    --------
    >>> life = Lifecycle()
    >>> life.admit(2, inputs=[1])
    []
    >>> life.succeed(1)
    [Submit(key=2)]
    """

    def __init__(self) -> None:
        self._records: dict[int, _Record] = {}
        self._dependents: dict[int, list[int]] = {}

    def __bool__(self) -> bool:
        """Whether there is any call to keep account of."""
        return bool(self._records or self._dependents)

    def get_state(self, key: int) -> CallState | None:
        """None for a call that needs no account, or needs it no more."""
        record = self._records.get(key)
        return record.state if record is not None else None

    def is_with_engine(self, key: int) -> bool:
        """Whether the engine has the call, or has had it; not so while it waits for inputs or its next attempt."""
        return self.get_state(key) in (None, CallState.READY)

    def count_attempts(self, key: int) -> int:
        """Attempts that have failed so far."""
        record = self._records.get(key)
        attempts = record.attempts if record is not None else None
        return len(attempts.errors) if attempts is not None else 0

    def admit(self, key: int, inputs: Iterable[int]) -> list[Effect]:
        """A new call; `inputs` are those that have not ended yet."""
        missing = set(inputs)
        if not missing:
            return [Submit(key)]
        self._records[key] = _Record(missing)
        for source in missing:
            self._dependents.setdefault(source, []).append(key)
        return []

    def succeed(self, key: int) -> list[Effect]:
        """A call or another input ended well."""
        self._records.pop(key, None)
        effects: list[Effect] = []
        for dependent in self._dependents.pop(key, ()):
            record = self._records.get(dependent)
            if record is None:
                continue
            record.missing.discard(key)
            if not record.missing:
                del self._records[dependent]
                effects.append(Submit(dependent))
        return effects

    def fail(
        self, key: int, error: BaseException, policy: RetryPolicy, chance: float = 1.0
    ) -> list[Effect]:
        """An attempt of a call failed.

        Parameters
        ----------
        key
        error
        policy
            When the call is tried again.
        chance
            As in `Attempts.fail`.
        """
        record = self._records.get(key) or _Record(set())
        attempts = record.attempts = record.attempts or Attempts(policy)
        history = tuple(attempts.errors)
        delay = attempts.fail(error, chance, key)
        if delay is None:
            return [Fail(key, None, history), *self._end(key, is_cancelled=False)]
        self._records[key] = record
        record.state = CallState.DELAYED
        return [Again(key, delay)]

    def refuse(self, key: int) -> list[Effect]:
        """A call cannot run at all, or another input failed: another attempt would end the same way."""
        return [Fail(key, None), *self._end(key, is_cancelled=False)]

    def resume(self, key: int) -> bool:
        """The delay of `Again` is over; whether the call is still to be tried."""
        record = self._records.get(key)
        if record is None or record.state is not CallState.DELAYED:
            return False
        record.state = CallState.READY
        return True

    def cancel(self, key: int) -> list[Effect]:
        """A call was withdrawn, or another input was."""
        return self._end(key, is_cancelled=True)

    def validate(self) -> None:
        """Raise AssertionError unless the account is consistent; for tests."""
        for key, record in self._records.items():
            assert (record.state is CallState.WAITING) == bool(record.missing), key
            for source in record.missing:
                assert key in self._dependents.get(source, ()), (key, source)
            assert record.missing or record.attempts is not None, key
            if record.attempts is not None:
                policy = record.attempts.policy
                assert len(record.attempts.errors) <= policy.retries + policy.worker_retries, key
        for source, dependents in self._dependents.items():
            for dependent in dependents:
                assert source in self._records[dependent].missing, (source, dependent)

    def _end(self, key: int, *, is_cancelled: bool) -> list[Effect]:
        """Forget a call that came to nothing, and end all that hangs on it, however far."""
        self._withdraw(key)
        effects: list[Effect] = []
        ended = [key]
        while ended:
            source = ended.pop()
            for dependent in self._dependents.pop(source, ()):
                if dependent in self._records:
                    self._withdraw(dependent)
                    effects.append(
                        Cancel(dependent, source) if is_cancelled else Fail(dependent, source)
                    )
                    ended.append(dependent)
        return effects

    def _withdraw(self, key: int) -> None:
        record = self._records.pop(key, None)
        for source in record.missing if record is not None else ():
            waiting = self._dependents.get(source)
            if waiting is not None and key in waiting:
                waiting.remove(key)
                if not waiting:
                    del self._dependents[source]
