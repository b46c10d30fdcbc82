"""What makes an actor in a worker, and what calls its methods there."""

from __future__ import annotations

from manyhands.core import place
from manyhands.errors import ActorDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_COROUTINE = 0x80
"""`inspect.CO_COROUTINE`, without importing `inspect`."""

_stages: dict[int, _Stage] = {}
"""The actors of this process, by their numbers."""


class _Stage:
    """An actor that lives here.

    Attributes
    ----------
    actor
        The user's object.
    every
        Calls after which its state is kept; 0 for never.
    calls
        Since it was kept last.
    """

    __slots__ = ("actor", "calls", "every")

    def __init__(self, actor: Any, every: int) -> None:
        self.actor = actor
        self.every = every
        self.calls = 0


class ActorMaker:
    """Makes an actor of a class in the process that it is called in.

    Parameters
    ----------
    number
        Unique; its calls find it by that.
    cls
        The user's class.
    every
        Calls after which its ``checkpoint`` is asked for what to keep; 0 for never.
    """

    def __init__(self, number: int, cls: Callable[..., Any], every: int) -> None:
        self.number = number
        self.cls = cls
        self.every = every
        self.__qualname__ = getattr(cls, "__qualname__", type(cls).__qualname__)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Make it."""
        _stages[self.number] = _Stage(self.cls(*args, **kwargs), self.every)

    def make_restorer(self) -> ActorRestorer | None:
        """What makes the actor of its state; None where that is never kept."""
        return ActorRestorer(self.number, self.cls, self.every) if self.every else None


class ActorRestorer(ActorMaker):
    """Makes it again of what its ``checkpoint`` gave."""

    def __call__(self, kept: Any) -> None:
        """Make it again."""
        restored = self.cls.restore(kept)  # type: ignore[attr-defined]
        _stages[self.number] = _Stage(restored, self.every)


class ActorMethod:
    """Calls a method of an actor that lives in the process.

    Two of one actor's method are equal.
    """

    __slots__ = ("__qualname__", "method", "number")

    def __init__(self, number: int, method: str, name: str) -> None:
        self.number = number
        self.method = method
        self.__qualname__ = name

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ActorMethod)
            and other.number == self.number
            and other.method == self.method
        )

    def __hash__(self) -> int:
        return hash((self.number, self.method))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method, and keep the actor's state if it is time."""
        stage = _stages.get(self.number)
        if stage is None:
            raise ActorDiedError(f"{self.__qualname__}: the actor is not in this worker any more")
        result = getattr(stage.actor, self.method)(*args, **kwargs)
        if not stage.every:
            return result
        if hasattr(result, "__await__"):
            return _keep_after(result, self.number, stage)
        if hasattr(result, "__next__") or hasattr(result, "__anext__"):
            return result  # a stream changes the state as it goes on; the next plain call keeps it
        _count_call(self.number, stage)
        return result


def is_coroutine_function(fn: Any) -> bool:
    """Whether to call `fn`, or the method of an actor of this process that it stands for, only makes a coroutine."""
    if isinstance(fn, ActorMethod):
        stage = _stages.get(fn.number)
        fn = getattr(stage.actor, fn.method, None) if stage is not None else None
    code = getattr(fn, "__code__", None)
    return code is not None and bool(code.co_flags & _COROUTINE)


async def _keep_after(result: Any, number: int, stage: _Stage) -> Any:
    value = await result
    _count_call(number, stage)
    return value


def _count_call(number: int, stage: _Stage) -> None:
    stage.calls += 1
    if stage.calls >= stage.every:
        stage.calls = 0
        place.get_post().keep(number, stage.actor.checkpoint())


def remove_actor(number: int) -> None:
    """Let go of an actor that lives here."""
    _stages.pop(number, None)
