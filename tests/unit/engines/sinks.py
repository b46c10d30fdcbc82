"""A session as the engines of this process see it, and calls that wait for each other."""

import threading
from collections.abc import Callable
from typing import Any

from manyhands.core.model import Call, CallOptions

LONG = 30.0
"""Seconds after which a wait that should have ended is a failure."""


class FakeSink:
    """Keeps what becomes of calls."""

    def __init__(self) -> None:
        self.ends: dict[int, Any] = {}
        self.attempts: dict[int, Any] = {}
        self.items: dict[int, list[Any]] = {}
        self.deaths: list[tuple[int, BaseException]] = []
        self.returns: list[int] = []
        self.breakdown: BaseException | None = None
        self.on_failure: Callable[[int, BaseException, Any], bool] = lambda *_: False
        self.on_death: Callable[[int, BaseException], None] = lambda *_: None

    def take_results(self, results: Any) -> None:
        for key, value in results:
            self._take(key, value)

    def take_failure(self, key: int, error: BaseException, attempt: Any) -> None:
        self.attempts[key] = attempt
        if not self.on_failure(key, error, attempt):
            self._take(key, error)

    def take_item(self, key: int, item: Any) -> None:
        self.items.setdefault(key, []).append(item)

    def take_actor_end(self, actor: int, error: BaseException) -> None:
        self.deaths.append((actor, error))
        self.on_death(actor, error)

    def take_actor_return(self, actor: int) -> None:
        self.returns.append(actor)

    def take_breakdown(self, error: BaseException) -> None:
        assert self.breakdown is None, "it breaks down once"
        self.breakdown = error

    def answer(self, question: str, *args: Any) -> Any:
        return question, args

    def _take(self, key: int, end: Any) -> None:
        assert key not in self.ends, "a call ends once"
        self.ends[key] = end

    def has(self, *keys: int) -> Callable[[], bool]:
        """Whether these calls have ended, for `wait_until`."""
        return lambda: all(key in self.ends for key in keys)


class Blocker:
    """A call that waits until it may end, and cannot be interrupted meanwhile."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, *_: Any) -> str:
        self.begun.set()
        assert self.may_end.wait(LONG)
        return "done"


class Spinner:
    """A call that computes until it is interrupted."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.caught: list[BaseException] = []

    def __call__(self, *_: Any) -> None:
        try:
            self.begun.set()
            spin()
        except BaseException as error:
            self.caught.append(error)
            raise
        finally:
            self.ended.set()


def spin() -> None:
    """Compute for ever.

    Not ``while goes_on``: since Python 3.13 an interrupt that comes as such a loop jumps back passes by the handlers of
    the `try` around it.
    """
    while True:
        pass


def fail(error: BaseException) -> None:
    raise error


def call(key: int, fn: Callable[..., Any], *args: Any, **options: Any) -> Call:
    """A call with options."""
    return Call(key, fn, args, {}, CallOptions(**options)) if options else Call(key, fn, args, {})
