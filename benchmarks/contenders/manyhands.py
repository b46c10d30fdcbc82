"""manyhands itself: its local engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import manyhands as mh
from benchmarks.contenders.contender import Scale, Step


class ManyhandsContender:
    """A session of the local engine."""

    def start(self, workers: int) -> None:
        self._session = mh.Session("local", workers=workers)
        self._session.__enter__()  # the functions of the package use the session that is open

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

    def prepare(self, value: Any) -> Any:
        return value

    def share(
        self, function: Callable[[Any, Any], Any], value: Any, arguments: Sequence[Any]
    ) -> list[Any]:
        ref = self._session.put(value)
        return self._submit_shared(function, ref, arguments)

    def _submit_shared(
        self, function: Callable[[Any, Any], Any], shared: Any, arguments: Sequence[Any]
    ) -> list[Any]:
        submit = self._session.submit
        return mh.gather([submit(function, shared, argument) for argument in arguments])

    def produce(self, function: Callable[[Any], Any], argument: object) -> Any:
        future = self._session.submit(function, argument)
        mh.wait([future])
        return future

    def chain(self, function: Callable[[Any], Any], handle: Any, length: int) -> Any:
        for _ in range(length):
            handle = self._session.submit(function, handle)
        return handle.result()

    def store_each(self, function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
        put = self._session.put
        return self.submit_many(function, [put(value) for value in values])

    def make_step(self, case: str, scale: Scale) -> Step:
        # Imported here, as an older manyhands takes part in other rows and has no actors.
        from benchmarks.contenders.manyhands_cases import CASES

        return CASES[case](scale)

    def close(self) -> None:
        self._session.__exit__(None, None, None)


class ImplicitContender(ManyhandsContender):
    """Large values passed to each call as they are, without `put`."""

    def share(
        self, function: Callable[[Any, Any], Any], value: Any, arguments: Sequence[Any]
    ) -> list[Any]:
        return self._submit_shared(function, value, arguments)


class BornSharedContender(ImplicitContender):
    """Arrays made by `mh.empty`, in the program and in calls."""

    def prepare(self, value: Any) -> Any:
        shared = mh.empty(value.shape, value.dtype)
        shared[...] = value
        return shared
