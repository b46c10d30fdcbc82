"""No processes at all: the loop that everything else must beat to be worth it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class LoopContender:
    """A reference: the calls in the program itself, one after the other."""

    def start(self, workers: int) -> None:
        pass

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        return function(argument)

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        return [function(argument) for argument in arguments]

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,  # noqa: ARG002  there is nothing to divide
    ) -> list[Any]:
        return self.submit_many(function, arguments)

    def prepare(self, value: Any) -> Any:
        return value

    def share(
        self, function: Callable[[Any, Any], Any], value: Any, arguments: Sequence[Any]
    ) -> list[Any]:
        return [function(value, argument) for argument in arguments]

    def close(self) -> None:
        pass
