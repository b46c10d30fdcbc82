"""The consumer's end of a stream: partial results of a call, as it yields them."""

from __future__ import annotations

import threading
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Generic, Self, TypeVar

    from manyhands.core.future import Future
    from manyhands.core.roles import StreamOwner

    T_co = TypeVar("T_co", covariant=True)
else:
    from manyhands.core.refs import Generic

    T_co = None


class Stream(Generic[T_co]):
    """What a generator task yields, item by item, while it goes on in a worker.

    An iterator, and an asynchronous one; made by `Task.stream`. The generator runs ahead of its consumer by a
    bounded number of items, and then waits. Closing the stream, leaving its ``with`` block or dropping it stops the
    generator, whose ``finally`` blocks run. What it raises arrives after all that it had yielded.

    Examples
    --------
    >>> import manyhands as mh
    >>> @mh.task
    ... def count_down(start):
    ...     while start:
    ...         yield start
    ...         start -= 1
    >>> list(count_down.stream(3))
    [3, 2, 1]
    """

    def __init__(self, owner: StreamOwner, future: Future[Any], window: int) -> None:
        self._owner = owner
        self._future = future
        self._items: deque[Any] = deque()
        self._came = 0
        self._lock = threading.Lock()  # several threads may take from one stream
        self._owed = 0  # items taken that the generator does not know of
        self._share = max(1, window // 2)
        self._is_over = False
        self._is_watched = False
        self._on_change: Callable[[], object] | None = None

    @property
    def name(self) -> str:
        """The name of the function that yields."""
        return self._future.name

    @property
    def has_begun(self) -> bool:
        """Whether any item has come."""
        return self._came > 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T_co:
        while not self._is_over:
            if not self._is_ready():
                self._owner.wait_until(self._is_ready, None, self._future.key)
            try:
                item = self._items.popleft()
            except IndexError:
                if self._is_ready() and not self._items:  # else another consumer was quicker
                    self._is_over = True
                    self._future.result()
            else:
                self._count_taken()
                return self._open(item)
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        if not self._is_over and not self._is_ready():
            # An engine that runs calls in their caller runs this one as far as the next item, and others look.
            self._owner.wait_until(self._is_ready, 0, self._future.key)
        if not self._is_over and not self._is_ready():
            await self._wait_async()
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    async def _wait_async(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        change = asyncio.Event()

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(change.set)
            except RuntimeError:  # the loop has ended, and whoever waited with it
                return

        if not self._is_watched:
            self._is_watched = True
            self._future.add_done_callback(lambda _: self._tell())
        self._on_change = tell
        self._owner.attend()
        try:
            while not self._is_ready():
                await change.wait()
                change.clear()
        finally:
            self._on_change = None

    def _tell(self) -> None:
        """Something has come, or the call has ended."""
        tell = self._on_change
        if tell is not None:
            tell()

    def close(self) -> None:
        """Stop the generator, if it goes on, and drop what was not taken; again does nothing."""
        if not self._is_over:
            self._is_over = True
            self._items.clear()
            if not self._future.done():
                self._owner.cancel_calls([self._future], running=True)

    async def aclose(self) -> None:
        """`close`, for ``async with contextlib.aclosing(stream)``."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._is_over and not self._future.done():
            from manyhands.core.timers import timers

            # It may run amid anything, also amid a step of the engine that would have to do it.
            owner, future = self._owner, self._future
            timers.call_later(0, lambda: owner.cancel_calls([future], running=True))

    def __repr__(self) -> str:
        return f"<Stream of {self._future!r}, {self._came} items so far>"

    def add(self, item: Any) -> None:
        """One more item has come; called by the session."""
        self._came += 1
        self._items.append(item)
        self._tell()

    def _is_ready(self) -> bool:
        """Whether an item has come, or none will."""
        # Asking the future may take items in.
        return bool(self._items) or self._future.done() or bool(self._items)

    def _count_taken(self) -> None:
        """One more item was taken; tell the generator so, now and then."""
        with self._lock:
            self._owed += 1
            if self._owed < self._share:
                return
            owed, self._owed = self._owed, 0
        self._owner.grant(self._future, owed)

    def _open(self, item: Any) -> T_co:
        value: T_co
        value, error = self._owner.load_item(item)
        if error is not None:
            self.close()
            raise error
        return value
