"""What runs a coroutine function that holds resources: by itself, in a worker, as any other call.

Coroutines that ask for nothing share one worker's event loop, many at a time. One that holds something has a worker's
thread for itself, since only there devices can be shown to it, its memory be measured, and its process be ended alone.
"""

from __future__ import annotations

from manyhands.core.functions import is_coroutine_function, name_callable
from manyhands.core.resources import ONE_CPU

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from manyhands.core.model import Call


class CoroutineRunner:
    """Runs a coroutine function to its end, on an event loop of its own.

    Parameters
    ----------
    function
        The user's.
    name
        What errors call it.
    """

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Any]], name: str) -> None:
        self.function = function
        self.__qualname__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Its result."""
        import asyncio

        return asyncio.run(self.function(*args, **kwargs))


def choose_runner(call: Call) -> Callable[..., Any]:
    """What a worker is to run for a call: its function, but for a coroutine function that holds resources."""
    options = call.options
    if options.need is ONE_CPU or options.actor or not is_coroutine_function(call.fn):
        return call.fn
    return CoroutineRunner(call.fn, name_callable(call.fn))
