"""Pure: the life of calls that have inputs or may be tried again. Events come in, effects go out.

Most calls have neither; for them nothing is kept here, and they cost nothing. No clock, no thread, no I/O:
whoever holds a `Lifecycle` serialises access and carries the effects out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from manyhands.core.model import CallState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from manyhands.core.model import RetryPolicy


@dataclass(frozen=True, slots=True)
class Submit:
    """Give the call to the engine: its inputs are there, or it is to be tried again."""

    key: int


@dataclass(frozen=True, slots=True)
class Fail:
    """End the call with an error: its own (`cause` is None), or that of the input `cause`."""

    key: int
    cause: int | None


Effect = Submit | Fail


class _Record:
    __slots__ = ("attempts", "missing", "policy", "state")

    def __init__(self, missing: set[int], policy: RetryPolicy) -> None:
        self.missing = missing
        self.policy = policy
        self.attempts = 0
        self.state = CallState.WAITING if missing else CallState.READY


class Lifecycle:
    """The calls that wait for inputs, and those that may be tried again.

    Keys are the caller's; inputs have keys too, also where they are no calls of this session.

    Examples
    --------
    >>> from manyhands.core.model import RetryPolicy
    >>> life = Lifecycle()
    >>> life.admit(2, inputs=[1], policy=RetryPolicy())
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

    def is_waiting(self, key: int) -> bool:
        """Whether the call waits for inputs."""
        return self.get_state(key) is CallState.WAITING

    def count_attempts(self, key: int) -> int:
        """Attempts that have failed so far."""
        record = self._records.get(key)
        return record.attempts if record is not None else 0

    def admit(self, key: int, inputs: Iterable[int], policy: RetryPolicy) -> list[Effect]:
        """A new call; `inputs` are those that have not ended yet."""
        missing = set(inputs)
        if not missing and not policy.retries:
            return [Submit(key)]
        self._records[key] = _Record(missing, policy)
        for source in missing:
            self._dependents.setdefault(source, []).append(key)
        return [] if missing else [Submit(key)]

    def succeed(self, key: int) -> list[Effect]:
        """A call or another input ended well."""
        self._records.pop(key, None)
        effects: list[Effect] = []
        for dependent in self._dependents.pop(key, ()):
            record = self._records.get(dependent)
            if record is None:
                continue
            record.missing.discard(key)
            if not record.missing and record.state is CallState.WAITING:
                record.state = CallState.READY
                effects.append(Submit(dependent))
                if not record.policy.retries:
                    del self._records[dependent]
        return effects

    def fail(self, key: int, error: BaseException) -> list[Effect]:
        """An attempt of a call failed, or another input did."""
        record = self._records.get(key)
        if record is not None:
            record.attempts += 1
            policy = record.policy
            if record.attempts <= policy.retries and isinstance(error, policy.retry_on):
                return [Submit(key)]
        return [Fail(key, None), *self._end(key)]

    def cancel(self, key: int) -> list[Effect]:
        """A call was withdrawn, or another input was."""
        return self._end(key)

    def validate(self) -> None:
        """Raise AssertionError unless the account is consistent; for tests."""
        for key, record in self._records.items():
            assert (record.state is CallState.WAITING) == bool(record.missing), key
            for source in record.missing:
                assert key in self._dependents.get(source, ()), (key, source)
            assert record.attempts <= record.policy.retries, key

    def _end(self, key: int) -> list[Effect]:
        """Forget a call that came to nothing, and fail all that hangs on it, however far."""
        self._withdraw(key)
        effects: list[Effect] = []
        ended = [key]
        while ended:
            source = ended.pop()
            for dependent in self._dependents.pop(source, ()):
                if dependent in self._records:
                    self._withdraw(dependent)
                    effects.append(Fail(dependent, source))
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
