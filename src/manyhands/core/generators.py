"""What runs a generator function as a stream, in a worker."""

from __future__ import annotations

from manyhands.core import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class StreamCall:
    """Runs a function whose result is iterated, and sends each item as it comes.

    Parameters
    ----------
    fn
        The user's function: a generator function, or one that returns anything to iterate over; also an
        asynchronous generator function.
    name
        What errors call it.
    """

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.fn = fn
        self.__qualname__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send all items; whatever ends it early ends the generator too, whose ``finally`` blocks then run.

        Returns
        -------
        int
            How many there were; of an asynchronous generator, a coroutine that gives it.
        """
        source = self.fn(*args, **kwargs)
        if hasattr(source, "__aiter__"):
            return self._send_all_async(source)
        return self._send_all(source)

    def _send_all(self, source: Any) -> int:
        emit = place.get_post().emit
        count = 0
        iterator = iter(source)
        try:
            for item in iterator:
                emit(item)
                count += 1
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
        return count

    async def _send_all_async(self, source: Any) -> int:
        import asyncio
        from contextvars import copy_context

        post = place.get_post()
        loop = asyncio.get_running_loop()
        count = 0
        try:
            async for item in source:
                if post.is_alone:
                    post.emit(item)
                else:  # it waits where nobody takes the items, and the loop has others to run
                    await loop.run_in_executor(None, copy_context().run, post.emit, item)
                count += 1
        finally:
            await source.aclose()
        return count
