"""A station, and whoever gives it calls."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from manyhands.core.exceptions import unpack_exception
from manyhands.core.serialize import Serializer
from manyhands.engines.cluster.keeper import ClusterKeeper
from manyhands.engines.cluster.packed import Packed
from manyhands.engines.cluster.station import CallFailedError, Station
from manyhands.engines.cluster.task import Settings, Task
from tests.unit.engines.cluster.fakes import SERIALIZER, FakeLink, Near, pack
from tests.unit.engines.sinks import LONG


class Work(threading.Thread):
    """A call that goes on in a thread of its own."""

    def __init__(self, perform: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._perform = perform
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self._perform()
        except BaseException as error:
            self.error = error

    def finish(self) -> Any:
        """What it gave."""
        self.join(LONG)
        assert not self.is_alive(), "the call has not ended"
        if self.error is not None:
            raise self.error
        return self.value

    def fail(self) -> Any:
        """The error that it ended with."""
        self.join(LONG)
        assert not self.is_alive(), "the call has not ended"
        assert self.error is not None, f"it gave {self.value!r}"
        return self.error


class Desk:
    """Gives a station calls, and takes what comes of them."""

    def __init__(self, link: FakeLink, initializer: Any = None, **options: Any) -> None:
        packed = None if initializer is None else pack(initializer)
        self.link = link
        self.settings = Settings("session", 1, packed, **options)
        self.station = Station(self.settings, link, "worker")
        self.keeper = ClusterKeeper(link.fetch, link.hold)
        self._count = 0
        self._is_closed = False

    def close(self) -> None:
        """End the session; again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self.station.close()

    def make_task(
        self, fn: Any, *args: Any, serializer: Serializer = SERIALIZER, **options: Any
    ) -> Task:
        self._count += 1
        number = options.pop("number", self._count)
        packed = Packed.of(serializer.dump(fn, "the function"))
        arguments = Packed.of(serializer.dump_arguments(args, {}))
        options = {"id": f"call-{self._count}", "key": self._count, "name": "work", **options}
        return Task(
            "session",
            topic="caller",
            function=("table", number, packed),
            arguments=arguments,
            **options,
        )

    def perform_task(self, task: Task, inputs: Sequence[Packed] = ()) -> Any:
        """The result of a call; raises its error."""
        error: BaseException
        try:
            return self.station.perform(task, inputs).load(self.keeper.adopt)
        except CallFailedError as failure:
            error = unpack_exception(failure.packed)
        raise error

    def perform(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The result of a call of a function of the test's; raises its error."""
        return self.perform_task(self.make_task(Near(fn), *args, **options))

    def start(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Work:
        """The same in a thread of its own."""
        task = self.make_task(Near(fn), *args, **options)
        return Work(lambda: self.perform_task(task))
