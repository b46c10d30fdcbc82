"""manyhands itself: its local engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import manyhands as mh


class ManyhandsContender:
    """A session of the local engine."""

    def start(self, workers: int) -> None:
        self._session = mh.Session("local", workers=workers)

    def round_trip(self, function: Callable[[Any], Any], argument: object) -> object:
        return self._session.submit(function, argument).result()

    def submit_each(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        submit = self._session.submit
        return [submit(function, argument) for argument in arguments]

    def gather(self, handles: list[Any]) -> list[Any]:
        return mh.gather(handles)

    def submit_many(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        return self.gather(self.submit_each(function, arguments))

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Sequence[Any],
        chunksize: int | None = None,  # noqa: ARG002  manyhands gets no hint
    ) -> list[Any]:
        return self._session.map(function, arguments)

    def close(self) -> None:
        self._session.close()
