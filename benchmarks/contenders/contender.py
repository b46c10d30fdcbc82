"""What a row asks of a contender."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable


class Contender(Protocol):
    """One library behind the five things that rows time.

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
