"""A map: its input cut into batches just in time, its batches kept in flight, its results put in order."""

from __future__ import annotations

from itertools import islice
from random import random
from time import monotonic
from weakref import WeakKeyDictionary

from manyhands.core.batch import Batch, CoroutineBatch
from manyhands.core.batching import TARGET_SECONDS, BatchSizer
from manyhands.core.coroutines import CoroutineRunner
from manyhands.core.exceptions import unpack_exception
from manyhands.core.functions import check_callable, is_coroutine_function, name_callable
from manyhands.core.ledger import note_attempts
from manyhands.core.model import DEFAULT_OPTIONS, CallOptions, RetryPolicy
from manyhands.core.resources import ONE_CPU
from manyhands.errors import DeadlineError, InvalidArgumentError, WorkerDiedError, WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from typing import Any

    from manyhands.core.batching import Pace
    from manyhands.core.future import Future
    from manyhands.core.lifecycle import Attempts
    from manyhands.core.roles import Input, Submitter, Watcher

_BUDGET_TARGETS = 8
"""How much longer than it was meant to a batch may run before it leaves its rest to others."""

_BATCHES_PER_WORKER = 3
"""Batches in flight: one that runs, one that follows, one that the engine can move."""

_COROUTINES_PER_BATCH = 64
"""Items of an ``async`` function that run together, unless the user says how many: they mostly wait."""

_BUFFERED_PER_WORKER = 8
"""Batches read ahead of the consumer of an ordered stream, those that are done but not yet its turn included."""


class Part:
    """Items that travel together: where they stand in the input, and their values by argument."""

    __slots__ = ("attempts", "columns", "due", "size", "start")

    def __init__(
        self, start: int, columns: list[Any], attempts: Attempts | None = None, due: float = 0.0
    ) -> None:
        self.start = start
        self.columns = columns
        self.size = min(len(column) for column in columns)
        self.attempts = attempts  # of a part that is one item
        self.due = due  # not to be tried again before that time

    def cut(self, begin: int, end: int) -> Part:
        """The items from `begin` to before `end`."""
        return Part(self.start + begin, [column[begin:end] for column in self.columns])

    def repeat(self, place: int, attempts: Attempts, due: float) -> Part:
        """One of the items, to be tried again."""
        columns = [column[place : place + 1] for column in self.columns]
        return Part(self.start + place, columns, attempts, due)


class Failure:
    """Stands among the results for the error of an item until it is that item's turn."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Source:
    """The input, read from front to back. What has a length and slices (a list, a range, an array) is sliced."""

    def __init__(self, inputs: tuple[Iterable[Any], ...]) -> None:
        self._sliced: list[Any] = [value if is_sliceable(value) else None for value in inputs]
        self._iterators = [
            iter(value) if sliced is None else None
            for value, sliced in zip(inputs, self._sliced, strict=True)
        ]
        lengths = [len(value) for value in self._sliced if value is not None]
        self._shortest = min(lengths, default=None)
        self._read = 0
        self._ended = False

    def count_remaining(self) -> int | None:
        """Items left; None where nobody knows."""
        if self._shortest is None or any(iterator is not None for iterator in self._iterators):
            return None
        return self._shortest - self._read

    def stop(self) -> None:
        """Nothing more is wanted."""
        self._ended = True

    def take(self, size: int) -> Part | None:
        """The next `size` items, or fewer at the end; None after it."""
        if self._ended:
            return None
        start, end = self._read, self._read + size
        columns = []
        for value, iterator in zip(self._sliced, self._iterators, strict=True):
            columns.append(value[start:end] if iterator is None else list(islice(iterator, size)))
        part = Part(start, columns)
        if part.size < size:
            self._ended = True
            part = part.cut(0, part.size)
        self._read += part.size
        return part if part.size else None


class Paces:
    """How quick functions were in the maps of a session, as long as they live."""

    def __init__(self) -> None:
        self._paces: WeakKeyDictionary[Any, Pace] = WeakKeyDictionary()

    def get(self, fn: Callable[..., Any]) -> Pace | None:
        """What was measured; None where nothing was."""
        try:
            return self._paces.get(fn)
        except TypeError:  # it has no hash, or cannot be referred to weakly
            return None

    def set(self, fn: Callable[..., Any], pace: Pace) -> None:
        """Keep what was measured."""
        try:
            self._paces[fn] = pace
        except TypeError:
            pass


class MapRun:
    """One map under way.

    Parameters
    ----------
    session
        Runs the batches.
    fn
        The user's function.
    inputs
        For each argument of `fn`, its values; the shortest ends the map.
    star
        Whether `inputs` is one iterable of argument tuples.
    batch
        Items per batch; None to let it follow the measured duration of an item.
    keep_going
        Whether an item's error becomes its result.
    options
        Of each item; a batch's call has them too, but for retries, which are an item's.
    deadline
        Seconds for the whole map, from its first use.
    watcher
        Is told of progress.
    source
        Where the items come from, in place of `inputs`.
    make
        Makes what runs a batch of items, with the parameters of `Batch`; left out, what `fn` asks for.
    target
        Work in a batch, in seconds.
    """

    def __init__(
        self,
        session: Submitter,
        fn: Callable[..., Any],
        inputs: tuple[Iterable[Any], ...],
        *,
        star: bool = False,
        batch: int | None = None,
        keep_going: bool = False,
        options: CallOptions = DEFAULT_OPTIONS,
        deadline: float | None = None,
        watcher: Watcher | None = None,
        source: Input | None = None,
        make: Callable[..., Batch] | None = None,
        target: float = TARGET_SECONDS,
    ) -> None:
        check_callable(fn)
        if batch is not None and (
            not isinstance(batch, int) or isinstance(batch, bool) or batch < 1
        ):
            raise InvalidArgumentError(
                f"batch={batch!r}: it is a number of items, 1 or more; leave it out to let it follow the work"
            )
        self._session = session
        self._name = name_callable(fn)
        policy = options.policy
        keeps = keep_going or policy.retries > 0
        # Within its budget a batch begins no item late, so that a time-out for the batch is one for its items.
        is_timed = options.timeout is not None
        budget = _BUDGET_TARGETS * target if batch is None or is_timed else None
        self._options, self._alone_options = _make_batch_options(options)
        if make is None and is_coroutine_function(fn) and options.need is not ONE_CPU:
            fn = CoroutineRunner(fn, self._name)  # what they hold is for one at a time
        elif make is None and is_coroutine_function(fn):
            make, batch = CoroutineBatch, batch or _COROUTINES_PER_BATCH
        self._batch = (make or Batch)(fn, self._name, star=star, keep_going=keeps, budget=budget)
        self._source: Input = Source(inputs) if source is None else source
        self._fn = fn
        self._sizer = BatchSizer(session.workers, batch, session.paces.get(fn), target)
        self._keep_going = keep_going
        self._policy = policy
        self._watcher = watcher
        self._deadline = deadline
        self._ends_at: float | None = None
        self._total = 0
        self._in_place = False
        self._failed = False  # whether a `Failure` is on its way
        self._waiting: list[Part] = []
        self._flying: dict[Future[Any], Part] = {}

    def iterate_parts(
        self, *, ordered: bool, in_place: bool = False
    ) -> Generator[list[Any], None, None]:
        """Lists of results as they come, or in the input's order; reads ahead a bounded number of items.

        An error is raised once it is known, or with `in_place` after the results of the items before it.
        Whoever stops early closes the iterator: what has not started is then withdrawn.
        """
        self._in_place = in_place
        if self._deadline is not None:
            self._ends_at = monotonic() + self._deadline
        done: dict[int, list[Any]] = {}
        turn = 0
        try:
            while True:
                self._launch(len(done) if ordered else 0)
                if not self._flying and not self._waiting:
                    break
                self._session.wait_until(self._has_landed, self._measure_patience())
                # One at a time: unpickling its results takes long enough for a worker to run dry.
                done.update(self._land())
                if ordered:
                    while turn in done:
                        values = done.pop(turn)
                        turn += len(values)
                        if self._failed:
                            yield from _cut_at_failure(values)
                        else:
                            yield values
                else:
                    while done:
                        yield done.popitem()[1]
        finally:
            self._remember_pace()
            self._session.cancel_calls(self._flying, running=True)
            if self._watcher is not None:
                self._watcher.close()

    def _remember_pace(self) -> None:
        """So that the next map of this function need not begin with single items."""
        pace = self._sizer.pace
        if pace is not None:
            self._session.paces.set(self._fn, pace)

    def _launch(self, buffered: int) -> None:
        """Keep enough batches in flight."""
        workers = self._session.workers
        while len(self._flying) < self._count_places():
            part = self._take_waiting()
            if part is None:
                if len(self._flying) + buffered >= _BUFFERED_PER_WORKER * workers and self._flying:
                    return
                part = self._source.take(self._sizer.choose(self._source.count_remaining()))
            if part is None:
                return
            self._start(part)

    def _start(self, part: Part) -> Future[Any]:
        options = self._options if part.size > 1 else self._alone_options
        future = self._session.start_call(self._batch, tuple(part.columns), {}, options)
        self._flying[future] = part
        return future

    def _count_places(self) -> int:
        """How many batches may be in flight."""
        workers = self._session.workers
        # Before anything is known of the items, a worker gets one of them and no more.
        return workers if self._sizer.seconds_per_item is None else _BATCHES_PER_WORKER * workers

    def _take_waiting(self) -> Part | None:
        """A part that is to be tried again, if its time has come."""
        for index in range(len(self._waiting) - 1, -1, -1):
            if not self._waiting[index].due or self._waiting[index].due <= monotonic():
                return self._waiting.pop(index)
        return None

    def _measure_patience(self) -> float | None:
        """Seconds after which to look up though nothing has landed; None for no matter how long."""
        # Where all places are taken, what waits has to wait for one of them.
        is_full = len(self._flying) >= self._count_places()
        moments = [] if is_full else [part.due for part in self._waiting]
        if self._ends_at is not None:
            moments.append(self._ends_at)
        return max(0.0, min(moments) - monotonic()) if moments else None

    def _has_landed(self) -> bool:
        return any(future.done() for future in self._flying)

    def _land(self) -> list[tuple[int, list[Any]]]:
        """The values of a batch that has ended, each list with its place in the input; nothing where none has."""
        if self._ends_at is not None and monotonic() >= self._ends_at:
            raise DeadlineError(
                f"the map of {self._name} was not done after {self._deadline} s: {self._total} items had ended. The "
                f"rest is cancelled"
            )
        future = next((future for future in self._flying if future.done()), None)
        if future is None:
            return []
        return self._take_in(future)

    def _take_in(self, future: Future[Any]) -> list[tuple[int, list[Any]]]:
        """The values of a batch that has ended, as `_land` gives them."""
        part = self._flying.pop(future)
        error = future.exception()
        self._session.discount_batch(failed=error is not None)
        if error is not None:
            return self._recover(part, error, future.key)
        return self._accept(part, *future.result())

    def _accept(
        self, part: Part, values: list[Any], failures: list[tuple[int, bytes]], seconds: float
    ) -> list[tuple[int, list[Any]]]:
        self._sizer.observe(len(values), seconds)
        if failures:
            return self._settle(part, values, failures)
        if len(values) < part.size:
            self._waiting.append(part.cut(len(values), part.size))
        self._count(len(values), 0)
        return [(part.start, values)]

    def _recover(self, part: Part, error: BaseException, key: int) -> list[tuple[int, list[Any]]]:
        """A batch failed as a whole: its worker died, or its results do not travel. Find the item."""
        if isinstance(error, WorkerStartError):  # nothing will run any more
            values = [self._raise_or_keep(part.start + place, error) for place in range(part.size)]
        elif part.size > 1:
            self._waiting += [part.cut(place, place + 1) for place in reversed(range(part.size))]
            return []
        elif (again := self._try_again(part, 0, error, key)) is not None:
            self._waiting.append(again)
            return []
        else:
            values = [self._raise_or_keep(part.start, error)]
        self._count(len(values), len(values))
        return [(part.start, values)]

    def _settle(
        self, part: Part, values: list[Any], failures: list[tuple[int, bytes]]
    ) -> list[tuple[int, list[Any]]]:
        """Some items of a batch failed: raise, keep the errors as results, or try these items again."""
        results = []
        begin = 0
        failed = 0
        for place, packed in failures:
            error = unpack_exception(packed)
            again = self._try_again(part, place, error)
            if again is None:
                values[place] = self._raise_or_keep(part.start + place, error)
                failed += 1
                continue
            if place > begin:
                results.append((part.start + begin, values[begin:place]))
            self._waiting.append(again)
            begin = place + 1
        if begin < len(values):
            results.append((part.start + begin, values[begin:]))
        if len(values) < part.size:
            self._waiting.append(part.cut(len(values), part.size))
        self._count(sum(len(kept) for _, kept in results), failed)
        return results

    def _try_again(self, part: Part, place: int, error: BaseException, key: int = 0) -> Part | None:
        """One item of a part once more, after an error; None where its attempts are used up.

        `key` is that of the batch's call where that has failed as a whole.
        """
        attempts = part.attempts
        if attempts is None:
            if not self._policy.retries and not isinstance(error, WorkerDiedError):
                return None  # most errors are the first and only ones
            from manyhands.core.lifecycle import Attempts

            attempts = Attempts(self._policy)
        history = tuple(attempts.errors)
        delay = attempts.fail(error, random(), key)
        if delay is None:
            if history:
                note_attempts(error, history)
            return None
        self._session.count_retry()
        return part.repeat(place, attempts, monotonic() + delay if delay else 0.0)

    def _raise_or_keep(self, index: int, error: BaseException) -> BaseException | Failure:
        error.add_note(f"in item {index} of a map of {self._name}")
        if self._keep_going:
            return error
        if self._in_place:
            self._failed = True
            self._source.stop()
            return Failure(error)
        self._count(1, 1)
        raise error

    def _count(self, items: int, failed: int) -> None:
        self._total += items
        self._session.count_items(items, failed)
        if self._watcher is not None:
            self._watcher.advance(items, failed)


def _make_batch_options(options: CallOptions) -> tuple[CallOptions, CallOptions]:
    """What the calls of batches are run with: of several items, and of one.

    A batch is tried again by its items, so the engine's account has nothing to do with retries.
    """
    if options is DEFAULT_OPTIONS:
        return _UNTRIED, _UNTRIED
    timeout = options.timeout

    def make(limit: float | None) -> CallOptions:
        return CallOptions(
            _ONE_ATTEMPT,
            timeout=limit,
            priority=options.priority,
            need=options.need,
            name=options.name,
        )

    return make(None if timeout is None else timeout + _BUDGET_TARGETS * TARGET_SECONDS), make(
        timeout
    )


_ONE_ATTEMPT = RetryPolicy(worker_retries=0)
_UNTRIED = CallOptions(_ONE_ATTEMPT)


def _cut_at_failure(values: list[Any]) -> Generator[list[Any], None, None]:
    for place, value in enumerate(values):
        if isinstance(value, Failure):
            yield values[:place]
            raise value.error
    yield values


def is_sliceable(value: Any) -> bool:
    """Whether slices of `value` are what iteration would give; true of NumPy's arrays, not of pandas' series."""
    if isinstance(value, (list, tuple, range, str, bytes, bytearray, memoryview)):
        return True
    return (
        hasattr(value, "__array_interface__")
        and bool(getattr(value, "shape", ()))
        and not hasattr(value, "iloc")
    )
