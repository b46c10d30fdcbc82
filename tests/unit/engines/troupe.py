"""Actors for the tests of engines whose calls run in this process."""

import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

from manyhands.core.acting import ActorMaker, ActorMethod
from manyhands.core.generators import StreamCall
from manyhands.core.model import ActorPlace, Call
from manyhands.core.resources import make_need
from tests.unit.engines.sinks import LONG, call

numbers = count(880001)
"""Unique in the process, as those of sessions are."""


class Counter:
    """Keeps a number, and what else a test wants of it."""

    made = 0

    def __init__(self, value: int = 0) -> None:
        type(self).made += 1
        self.value = value
        self.threads = [threading.get_ident()]

    def add(self, amount: int) -> int:
        self.value += amount
        self.threads.append(threading.get_ident())
        return self.value

    def list_threads(self) -> list[int]:
        return self.threads

    def run(self, fn: Any, *args: Any) -> Any:
        return fn(*args)

    def exit(self) -> None:
        raise SystemExit(3)

    def count_up(self, end: int) -> Iterator[int]:
        while self.value < end:
            self.value += 1
            yield self.value

    async def add_async(self, amount: int) -> int:
        self.value += amount
        return self.value

    async def run_async(self, fn: Any, *args: Any) -> Any:
        return await fn(*args)

    def checkpoint(self) -> dict[str, int]:
        return {"value": self.value}

    @classmethod
    def restore(cls, kept: dict[str, int]) -> "Counter":
        return cls(kept["value"])


class Picky:
    """Cannot always be made."""

    def __init__(self, error: BaseException) -> None:
        raise error

    def add(self, amount: int) -> int:
        raise AssertionError(amount)


class Cast:
    """An actor of an engine, and its calls."""

    def __init__(self, engine: Any, sink: Any, first_key: int = 100) -> None:
        self.engine = engine
        self.sink = sink
        self.number = next(numbers)
        self._keys = count(first_key)

    def start(
        self,
        *args: Any,
        cls: type[Any] = Counter,
        every: int = 0,
        cpus: float = 0,
        timeout: float | None = None,
        **place: Any,
    ) -> int:
        """Have it made; the key of the call that does."""
        key = next(self._keys)
        making = call(key, ActorMaker(self.number, cls, every), *args, timeout=timeout)
        self.engine.start_actor(self.number, making, ActorPlace(make_need(cpus=cpus), **place))
        return key

    def make_call(self, method: str, *args: Any, **options: Any) -> Call:
        fn: Any = ActorMethod(self.number, method, f"Counter.{method}")
        if options.get("window"):
            fn = StreamCall(fn, f"Counter.{method}")
        return call(next(self._keys), fn, *args, actor=self.number, **options)

    def submit(self, method: str, *args: Any, **options: Any) -> int:
        made = self.make_call(method, *args, **options)
        self.engine.submit(made)
        return made.key

    def wait(self, key: int) -> Any:
        assert self.engine.wait_until(self.sink.has(key), LONG, key)
        return self.sink.ends[key]

    def ask(self, method: str, *args: Any, **options: Any) -> Any:
        return self.wait(self.submit(method, *args, **options))
