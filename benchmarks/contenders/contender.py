"""What a row asks of a contender."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

Step: TypeAlias = Callable[[], Any]
"""One round of a case; it gives what tells that all was done."""


@dataclass(frozen=True)
class Scale:
    """How large a case is.

    Attributes
    ----------
    clients : int
        Clients that call at the same time, and servers that each case of several has.
    calls : int
        Calls in a round of a case with one client.
    many : int
        Calls of each client in a round of a case with several.
    refs : int
        References in the value that has many.
    elements : int
        Integers of eight bytes in the large array.
    depth : int
        The Fibonacci number that is computed by a tree of calls.
    patience : float
        Seconds that are waited for it.
    """

    clients: int
    calls: int
    many: int
    refs: int
    elements: int
    depth: int
    patience: float


class Contender(Protocol):
    """One library behind the five things that most rows time.

    A contender is made without arguments and used in a process of its own. Everything
    slow that a user does once (imports, starting workers) happens in `start`.
    """

    def start(self, workers: int) -> None:
        """Open the library with this many worker processes."""
        ...

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        """Run one call and wait for its result."""
        ...

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Submit one call per argument, one by one, then gather all results in order."""
        ...

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,
    ) -> list[Any]:
        """Map the way the library's users do; without `chunksize` the library gets no hint.

        Only contenders with a search for the best size (Pool) look at `chunksize`.
        """
        ...

    def close(self) -> None:
        """End the workers and wait for them."""
        ...


@runtime_checkable
class Submitter(Contender, Protocol):
    """A contender whose calls can be left waiting: submission apart from gathering."""

    def submit_each(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Submit one call per argument and return the handles at once."""
        ...

    def gather(self, handles: list[Any]) -> list[Any]:
        """Wait for the results behind `handles`, in order."""
        ...


@runtime_checkable
class Sharer(Contender, Protocol):
    """A contender that has a way to give one large value to many calls."""

    def prepare(self, value: Any) -> Any:
        """`value` as a user of this way would have made it in the first place; not timed."""
        ...

    def share(
        self, function: Callable[[Any, Any], Any], value: Any, arguments: Sequence[Any]
    ) -> list[Any]:
        """Give `value` to the workers, gather ``function(value, argument)`` per argument, let go."""
        ...


@runtime_checkable
class Chainer(Contender, Protocol):
    """A contender that can pass the result of a call on to the next call."""

    def produce(self, function: Callable[[Any], Any], argument: object) -> Any:
        """Run one call, wait for its end and return a handle to its result."""
        ...

    def chain(self, function: Callable[[Any], Any], handle: Any, length: int) -> Any:
        """Run `function` on what is behind `handle`, then on its own result, `length` times in all.

        Nothing but the last result, which is returned, is waited for.
        """
        ...


@runtime_checkable
class Storer(Contender, Protocol):
    """A contender with a way to give each of many small values to a call of its own."""

    def store_each(self, function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
        """Store each of `values`, run ``function(value)`` for each, and gather."""
        ...


@runtime_checkable
class CasePlayer(Contender, Protocol):
    """A contender that plays cases of Ray's own microbenchmark."""

    def make_step(self, case: str, scale: Scale) -> Step:
        """Set up the case of this name and give one round of it."""
        ...
