"""A map that goes on by itself: whoever takes in the end of one of its batches submits the next one.

`MapRun` moves when its consumer asks for results. What libraries with executors and pools promise is more than that:
all items are run, whether or not anybody looks at the results, and one that fails does not keep the others from it.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import CancelledError

from manyhands.core.mapping import Failure, MapRun, Part, is_sliceable
from manyhands.errors import SessionClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.future import Future
    from manyhands.core.roles import Input, Submitter


class Feed:
    """Items of a map that come while it is under way; an `Input`."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._taken = 0
        self.is_ended = False

    def add(self, items: Iterable[Any]) -> None:
        """These come next."""
        self._items.extend(items)

    def end(self) -> None:
        """No more will come."""
        self.is_ended = True

    def count(self) -> int:
        """How many have come; asked by who adds them."""
        return self._taken + len(self._items)

    def count_remaining(self) -> int | None:
        """Items left; None while more may come."""
        return len(self._items) if self.is_ended else None

    def stop(self) -> None:
        """Nothing more is wanted."""
        self.is_ended = True
        self._items.clear()

    def take(self, size: int) -> Part | None:
        """Up to `size` items that have come; None where there are none now."""
        size = min(size, len(self._items))
        if not size:
            return None
        part = Part(self._taken, [[self._items.popleft() for _ in range(size)]])
        self._taken += size
        return part


class UnattendedMap(MapRun):
    """One map that runs all its items, and keeps their results until they are taken.

    Parameters
    ----------
    session, fn, star, batch
        As for `MapRun`.
    source
        The items.
    on_end
        Called once with the map when all have ended, by whichever thread takes in the last one.

    Attributes
    ----------
    is_over : bool
        Whether nothing of it runs or will run.
    has_failed : bool
        Whether items have.
    done : dict of int to list
        Results not taken yet by where the first of them stands in the input; a `Failure` for an item that failed.
        In the order in which they came.
    """

    def __init__(
        self,
        session: Submitter,
        fn: Callable[..., Any],
        source: Input,
        *,
        star: bool = False,
        batch: int | None = None,
        on_end: Callable[[UnattendedMap], object] | None = None,
    ) -> None:
        super().__init__(session, fn, (), star=star, batch=batch, keep_going=True, source=source)
        self._on_end = on_end
        self._landed: deque[Future[Any]] = deque()
        self._calls = 0  # to `advance`, that are not answered yet
        self._lock = threading.Lock()  # of that number
        self._is_cancelled = False
        self._is_cut = False  # whether items were withdrawn before they began
        self._refusal: SessionClosedError | None = None
        self.is_over = False
        self.has_failed = False
        self.done: dict[int, list[Any]] = {}

    def advance(self) -> None:
        """Take in what has ended, and keep enough batches in flight.

        One thread at a time is at it; others leave it to that one, and so does a call of this in itself: submitting
        may take in the end of a batch.
        """
        with self._lock:
            self._calls += 1
            if self._calls > 1:
                return
        while True:
            calls = self._calls
            try:
                self._move()
            except BaseException:
                with self._lock:
                    self._calls = 0
                raise
            with self._lock:
                if self._calls == calls:
                    self._calls = 0
                    break
        if self.is_over:
            with self._lock:
                on_end, self._on_end = self._on_end, None
            if on_end is not None:
                on_end(self)
                self._session.rouse()

    def cancel(self, *, running: bool = False) -> None:
        """Withdraw what has not started, with `running` also what has; results that are there stay."""
        if self.is_over:
            return
        self._stop()
        self._session.cancel_calls(list(self._flying), running=running)
        self.advance()

    def fail_at(self, turn: int, error: BaseException) -> None:
        """In the place of the item `turn` an error has come."""
        self.done[turn] = [Failure(error)]
        self.has_failed = True

    def await_part(self, turn: int, timeout: float | None) -> list[Any] | None:
        """The results from the item `turn` on, as many as have come together; None after the last one.

        Raises
        ------
        TimeoutError
            They have not come after `timeout` seconds.
        concurrent.futures.CancelledError
            They will not come.
        """
        if not self._session.wait_until(lambda: turn in self.done or self.is_over, timeout):
            raise TimeoutError(f"item {turn} of a map of {self._name} has no result in time")
        part = self.take(turn)
        if part is None:
            self.check_whole()
        return part

    def take(self, turn: int | None) -> list[Any] | None:
        """The results from the item `turn` on, or of any items; None where they are not there now."""
        while turn is None and self.done:
            try:
                turn = next(iter(self.done))
            except RuntimeError:  # another thread has added some meanwhile
                continue
        return None if turn is None else self.done.pop(turn, None)

    def collect(self) -> list[Any]:
        """The results of all items, once it is over."""
        self.check_whole()
        done, self.done = self.done, {}
        values: list[Any] = []
        for start in sorted(done):
            values += done[start]
        return values

    def check_whole(self) -> None:
        """Raise CancelledError where items were withdrawn before they began, or why they could not begin."""
        if self._refusal is not None:
            raise self._refusal
        if self._is_cut:
            raise CancelledError(f"a map of {self._name} was cancelled before its end")

    def _move(self) -> None:
        while self._landed:
            future = self._landed.popleft()
            if future not in self._flying:
                continue
            self.done.update(self._take_in(future))
            # One at a time: unpickling results takes long enough for a worker to run dry.
            self._launch(0)
        self._launch(0)
        if not self._flying and not self._waiting:
            self.is_over = self._is_cancelled or self._source.count_remaining() == 0
            if self.is_over:
                self._remember_pace()

    def _launch(self, buffered: int) -> None:
        if self._is_cancelled:
            self._is_cut = self._is_cut or bool(self._waiting)
            self._waiting.clear()
            return
        try:
            super()._launch(buffered)
        except SessionClosedError as error:
            self._refusal = None if self._is_cancelled else error
            self._stop()
            self._is_cut = True  # those that were just to begin

    def _start(self, part: Part) -> Future[Any]:
        future = super()._start(part)
        self._session.attend()
        future.notify(self._take_end)
        return future

    def _take_end(self, future: Future[Any]) -> None:
        self._landed.append(future)
        self.advance()

    def _take_in(self, future: Future[Any]) -> list[tuple[int, list[Any]]]:
        part = self._flying[future]
        try:
            return super()._take_in(future)
        except CancelledError as error:
            self._stop()  # perhaps not by us: a session that closes withdraws all
            self.has_failed = True
            return [(part.start, [Failure(error)] * part.size)]

    def _stop(self) -> None:
        """Start nothing more."""
        if not self._is_cancelled:
            self._is_cut = self._source.count_remaining() != 0
            self._is_cancelled = True
            self._source.stop()

    def _raise_or_keep(self, index: int, error: BaseException) -> BaseException | Failure:
        error.add_note(f"in item {index} of a map of {self._name}")
        self.has_failed = True
        return Failure(error)


def freeze(items: Iterable[Any]) -> Any:
    """What iteration gives now, whatever is done to `items` later."""
    if isinstance(items, (range, tuple, str, bytes)):
        return items
    copy = getattr(items, "copy", None)
    return copy() if is_sliceable(items) and copy is not None else list(items)
