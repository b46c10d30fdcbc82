"""A map: cut into batches, kept in flight, put in order."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.core import mapping
from manyhands.core.batch import Batch
from manyhands.core.future import Future
from manyhands.core.lifecycle import Attempts
from manyhands.core.mapping import MapRun, Source
from manyhands.core.model import CallOptions, RetryPolicy
from manyhands.core.resources import make_need
from manyhands.errors import (
    CallTimeoutError,
    DeadlineError,
    InvalidArgumentError,
    NotCallableError,
    WorkerDiedError,
    WorkerStartError,
)
from tests.unit.core.sessions import FakeSession


def make_options(
    retries: int = 0, retry_on: Any = (Exception,), *, worker_retries: int = 1
) -> CallOptions:
    """Options of items whose attempts follow at once."""
    return CallOptions(RetryPolicy(retries, retry_on, worker_retries, backoff=0.0))


class FakeWatcher:
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.items = 0
        self.failed = 0
        self.closed = 0

    def advance(self, items: int, failed: int) -> None:
        self.items += items
        self.failed += failed

    def close(self) -> None:
        self.closed += 1


def collect(run: MapRun, *, ordered: bool = True) -> list[Any]:
    return [value for part in run.iterate_parts(ordered=ordered) for value in part]


def describe(value: Any) -> Any:
    return (type(value), value.args) if isinstance(value, BaseException) else value


rngs = st.integers(0, 2**32).map(Random)
workers = st.integers(1, 5)
sizes = st.none() | st.integers(1, 12)


class Items:
    """What each of the items 0 to `count` does.

    Attributes
    ----------
    bad
        Those that fail, and how often: a number, or infinity.
    killers
        Those that kill their worker, and how often.
    """

    def __init__(self, count: int, bad: dict[int, float], killers: dict[int, int]) -> None:
        self.count = count
        self.bad = bad
        self.killers = killers
        self.runs: Counter[int] = Counter()
        self._left = dict(bad)

    def run(self, x: int) -> int:
        self.runs[x] += 1
        if self._left.get(x, 0) > 0:
            self._left[x] -= 1
            raise ValueError(x)
        return x * x


@st.composite
def item_sets(draw: st.DrawFn, *, deaths: bool = True) -> Items:
    count = draw(st.integers(0, 60))
    some = st.sets(st.integers(0, count), max_size=6)
    times = st.sampled_from([1, 2, float("inf")])
    bad = {item: draw(times) for item in sorted(draw(some))}
    killers = dict.fromkeys(sorted(draw(some)), 10**9) if deaths else {}
    return Items(count, bad, {k: v for k, v in killers.items() if k not in bad})


# The input.


@given(st.lists(st.integers()), st.data())
def test_slices_of_the_input_are_its_items(items: list[int], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([list, tuple, iter, dict.fromkeys, range]))
    plain = list(range(len(items))) if kind is range else list(kind(items))
    source = Source((kind(len(items)) if kind is range else kind(items),))
    read: list[int] = []
    while (part := source.take(data.draw(st.integers(1, 7)))) is not None:
        assert part.start == len(read)
        assert part.size == len(part.columns[0]) > 0
        read += part.columns[0]
        known = source.count_remaining()
        assert known == (len(plain) - len(read) if kind in (list, tuple, range) else None)
    assert read == plain
    assert source.take(1) is None


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.data())
def test_the_shortest_input_ends_the_map(lengths: list[int], data: st.DataObject) -> None:
    kind = st.sampled_from([list, iter, tuple])
    source = Source(tuple(data.draw(kind)(range(length)) for length in lengths))
    rows: list[tuple[int, ...]] = []
    while (part := source.take(data.draw(st.integers(1, 7)))) is not None:
        assert {len(column) for column in part.columns} == {part.size}
        rows += zip(*part.columns, strict=True)
    assert rows == list(zip(*[range(n) for n in lengths], strict=False))


@given(st.integers(1, 40), st.data())
def test_a_part_of_a_part_knows_its_place(size: int, data: st.DataObject) -> None:
    part = Source((range(100, 100 + size), [str(n) for n in range(size)])).take(size)
    assert part is not None
    begin = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(begin + 1, size))
    cut = part.cut(begin, end)
    assert (cut.start, cut.size, cut.attempts) == (begin, end - begin, None)
    assert list(cut.columns[0]) == list(range(100 + begin, 100 + end))
    assert cut.columns[1] == [str(n) for n in range(begin, end)]


def test_one_item_of_a_part_keeps_its_place_and_its_attempts() -> None:
    part = Source((range(100, 110), "abcdefghij")).take(10)
    assert part is not None
    attempts = Attempts(RetryPolicy(2))
    once_more = part.cut(2, 9).repeat(3, attempts, due=5.0)
    assert (once_more.start, once_more.size, once_more.due) == (5, 1, 5.0)
    assert once_more.attempts is attempts
    assert [list(column) for column in once_more.columns] == [[105], ["f"]]


def test_a_range_travels_as_a_range() -> None:
    part = Source((range(0, 10**9, 3),)).take(10**6)
    assert part is not None
    assert part.columns == [range(0, 3 * 10**6, 3)]


def test_text_and_bytes_are_items_too() -> None:
    source = Source(("abc", b"abc", memoryview(b"abc")))
    part = source.take(2)
    assert part is not None
    assert list(zip(*part.columns, strict=True)) == [("a", 97, 97), ("b", 98, 98)]


class ArrayLike:
    """Slices as NumPy's arrays do, and is no list."""

    __array_interface__ = None

    def __init__(self, values: list[int]) -> None:
        self.values = values
        self.shape = (len(values),)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return type(self)(self.values[index])

    def __iter__(self) -> Iterator[int]:
        return iter(self.values)


class SeriesLike(ArrayLike):
    """As pandas' series: slices go by label, so only iteration gives the items in order."""

    iloc = None


def test_an_array_travels_as_slices() -> None:
    source = Source((ArrayLike([1, 2, 3]),))
    assert source.count_remaining() == 3
    part = source.take(2)
    assert part is not None
    assert isinstance(part.columns[0], ArrayLike)
    assert part.columns[0].values == [1, 2]


@pytest.mark.parametrize("value", [SeriesLike([1, 2, 3]), {1: "a", 2: "b"}, {1: 1, 2: 2}.keys()])
def test_what_has_other_slices_is_iterated_over(value: Any) -> None:
    part = Source((value,)).take(2)
    assert part is not None
    assert part.columns == [[1, 2]]


# The map.


@given(
    rng=rngs,
    workers=workers,
    batch=sizes,
    items=item_sets(),
    ordered=st.booleans(),
    leaves_rests=st.booleans(),
    retries=st.integers(0, 3),
)
def test_a_map_is_the_plain_map(
    rng: Random,
    workers: int,
    batch: int | None,
    items: Items,
    *,
    ordered: bool,
    leaves_rests: bool,
    retries: int,
) -> None:
    session = FakeSession(rng, workers, deaths=items.killers, leaves_rests=leaves_rests)
    watcher = FakeWatcher()
    run = MapRun(
        session,
        items.run,
        (range(items.count),),
        batch=batch,
        keep_going=True,
        options=make_options(retries),
        watcher=watcher,
    )
    results = collect(run, ordered=ordered)

    assert len(results) == items.count
    surely_fail = {x for x, times in items.bad.items() if times == float("inf")} | {*items.killers}
    may_fail = surely_fail | {x for x, times in items.bad.items() if times > retries}
    by_item: dict[int, Any] = {}
    for place, value in enumerate(results):
        if isinstance(value, WorkerDiedError):
            item = int(str(value).removeprefix("at "))
        elif isinstance(value, ValueError):
            (item,) = value.args
        else:
            item = place if ordered else round(value**0.5)
            assert value == item * item
        assert item not in by_item
        by_item[item] = value
        if ordered:
            assert item == place
    assert by_item.keys() == set(range(items.count))
    failed = {item for item, value in by_item.items() if isinstance(value, BaseException)}
    assert surely_fail & by_item.keys() <= failed <= may_fail
    for item in items.killers.keys() & by_item.keys():
        assert isinstance(by_item[item], WorkerDiedError)
    for item in failed:
        assert f"in item {item} of a map of Items.run" in by_item[item].__notes__
    assert (session.items, session.failed) == (items.count, len(failed))
    assert (watcher.items, watcher.failed, watcher.closed) == (items.count, len(failed), 1)
    assert session.batches == len(session.batch_sizes)
    assert not session.outstanding


@given(
    rng=rngs,
    workers=workers,
    batch=sizes,
    items=item_sets(deaths=False),
    retries=st.integers(0, 3),
    ordered=st.booleans(),
)
def test_an_item_is_tried_as_often_as_allowed(
    rng: Random, workers: int, batch: int | None, items: Items, *, retries: int, ordered: bool
) -> None:
    session = FakeSession(rng, workers, leaves_rests=True)
    run = MapRun(
        session,
        items.run,
        (iter(range(items.count)),),
        batch=batch,
        keep_going=True,
        options=make_options(retries),
    )
    collect(run, ordered=ordered)
    for item in range(items.count):
        assert items.runs[item] == 1 + min(items.bad.get(item, 0), retries)
    assert session.retried == items.runs.total() - items.count


@given(rngs, workers, sizes, item_sets(), st.booleans())
def test_a_failure_is_raised_with_its_index(
    rng: Random, workers: int, batch: int | None, items: Items, ordered: bool
) -> None:
    items.count = max(items.count, 1)
    session = FakeSession(rng, workers, deaths=items.killers)
    watcher = FakeWatcher()
    run = MapRun(session, items.run, (range(items.count),), batch=batch, watcher=watcher)
    fatal = {item for item in (*items.bad, *items.killers) if item < items.count}
    if not fatal:
        results = collect(run, ordered=ordered)
        assert sorted(results) == [x * x for x in range(items.count)]
    else:
        with pytest.raises((ValueError, WorkerDiedError)) as caught:
            collect(run, ordered=ordered)
        error = caught.value
        culprit = error.args[0] if isinstance(error, ValueError) else int(str(error)[3:])
        assert culprit in fatal
        assert error.__notes__[-1] == f"in item {culprit} of a map of Items.run"
        assert all(future.done() for future, _, _ in session.outstanding), "not withdrawn"
        assert session.failed == watcher.failed == 1
    assert watcher.closed == 1


@given(rng=rngs, workers=workers, batch=sizes, items=item_sets())
def test_in_place_a_failure_comes_after_all_results_before_it(
    rng: Random, workers: int, batch: int | None, items: Items
) -> None:
    session = FakeSession(rng, workers, deaths=items.killers)
    run = MapRun(session, items.run, (iter(range(items.count)),), batch=batch)
    culprit = min((item for item in (*items.bad, *items.killers)), default=items.count)
    values: list[int] = []
    caught: BaseException | None = None
    try:
        for part in run.iterate_parts(ordered=True, in_place=True):
            values += part
    except (ValueError, WorkerDiedError) as error:
        caught = error
    assert values == [x * x for x in range(min(culprit, items.count))]
    if culprit < items.count:
        assert caught is not None
        assert caught.__notes__[-1] == f"in item {culprit} of a map of Items.run"
        assert all(future.done() for future, _, _ in session.outstanding), "not withdrawn"
    else:
        assert caught is None


def test_a_death_is_counted_once() -> None:
    session = FakeSession(deaths={0: 1})
    with pytest.raises(WorkerDiedError):
        collect(MapRun(session, abs, ([0],), options=make_options(worker_retries=0)))
    assert (session.items, session.failed) == (1, 1)


@given(rngs, workers, st.integers(1, 12), st.integers(1, 3))
def test_a_worker_that_dies_now_and_then_costs_nothing_with_worker_retries(
    rng: Random, workers: int, batch: int, retries: int
) -> None:
    deaths = {item: rng.randint(1, retries) for item in rng.sample(range(40), 5)}
    session = FakeSession(rng, workers, deaths=deaths)
    options = make_options(worker_retries=retries)
    run = MapRun(session, abs, (range(-40, 0),), batch=batch, options=options)
    session.deaths = {item - 40: times for item, times in deaths.items()}
    assert collect(run) == list(range(40, 0, -1))


@given(rngs, workers, st.integers(1, 12))
def test_a_worker_that_dies_once_costs_nothing(rng: Random, workers: int, batch: int) -> None:
    session = FakeSession(rng, workers, deaths=dict.fromkeys(rng.sample(range(40), 5), 1))
    assert collect(MapRun(session, abs, (range(40),), batch=batch)) == list(range(40))


@pytest.mark.parametrize(("worker_retries", "deaths"), [(0, 1), (1, 2), (2, 3)])
def test_an_item_that_keeps_killing_workers_is_given_up_alone(
    worker_retries: int, deaths: int
) -> None:
    session = FakeSession(deaths={3: deaths})
    options = make_options(5, worker_retries=worker_retries)
    run = MapRun(session, abs, (range(6),), batch=1, keep_going=True, options=options)
    results = collect(run)
    assert [value for value in results if isinstance(value, int)] == [0, 1, 2, 4, 5]
    (error,) = (value for value in results if isinstance(value, WorkerDiedError))
    assert session.retried == worker_retries
    notes = error.__notes__
    assert notes[-1] == "in item 3 of a map of abs"
    if worker_retries:
        assert notes[0].splitlines() == [
            f"All {deaths} attempts failed:",
            *(f"  {number}. WorkerDiedError: at 3" for number in range(1, deaths + 1)),
        ]
    else:
        assert len(notes) == 1, "one attempt needs no account"


def test_a_death_costs_the_others_of_a_batch_nothing() -> None:
    session = FakeSession(deaths={3: 10**9})
    results = collect(MapRun(session, abs, (range(8),), batch=8, keep_going=True))
    assert [describe(value) for value in results] == [
        0, 1, 2, (WorkerDiedError, ("at 3",)), 4, 5, 6, 7,
    ]  # fmt: skip


def test_only_the_errors_of_the_policy_are_tried_again() -> None:
    runs: Counter[int] = Counter()

    def fail(x: int) -> None:
        runs[x] += 1
        raise KeyError(x) if x == 1 else OSError(x)

    options = make_options(3, (OSError,))
    collect(MapRun(FakeSession(), fail, ([0, 1, 2],), batch=3, keep_going=True, options=options))
    assert runs == {0: 4, 1: 1, 2: 4}


def test_an_error_after_several_attempts_tells_of_them() -> None:
    def fail(x: int) -> None:
        raise ValueError(f"item {x}")

    run = MapRun(FakeSession(), fail, ([7, 8],), batch=2, keep_going=True, options=make_options(1))
    for place, error in enumerate(collect(run)):
        line = f"ValueError: item {place + 7}"
        told = [note for note in error.__notes__ if note.startswith("All")]
        assert told == [f"All 2 attempts failed:\n  1. {line}\n  2. {line}"]


def test_what_a_map_asks_for_holds_for_each_batch() -> None:
    session = FakeSession()
    options = CallOptions(
        RetryPolicy(2, backoff=0.0), priority=3, need=make_need(cpus=2), name="squares"
    )
    collect(MapRun(session, abs, (range(9),), batch=2, options=options))
    for given_on in session.options:
        assert (given_on.priority, given_on.name, given_on.timeout) == (3, "squares", None)
        assert given_on.need is options.need


class Doubled(Batch):
    """Gives each result twice as large."""

    def __call__(self, *columns: Any) -> Any:
        values, failures, seconds = super().__call__(*columns)
        return [2 * value for value in values], failures, seconds


def test_what_runs_the_batches_can_be_of_another_class() -> None:
    assert collect(MapRun(FakeSession(), abs, ([-1, 2, -3],), make=Doubled)) == [2, 4, 6]


def test_a_time_out_is_that_of_an_item() -> None:
    session = FakeSession()
    collect(MapRun(session, abs, (range(7),), batch=3, options=CallOptions(timeout=2.0)))
    sizes = session.batch_sizes
    assert sizes == [3, 3, 1]
    timeouts = [options.timeout for options in session.options]
    assert timeouts[2] == 2.0
    for timeout in timeouts[:2]:  # no item begins after the batch's budget
        assert timeout is not None and 2.0 < timeout < 3.0


def test_an_item_that_takes_too_long_costs_the_others_of_its_batch_nothing() -> None:
    class SlowSession(FakeSession):
        def end(self, future: Future[Any], batch: Any, columns: tuple[Any, ...]) -> None:
            if 3 in columns[0]:
                future.set_exception(CallTimeoutError("too long"))
            else:
                super().end(future, batch, columns)

    options = CallOptions(timeout=1.0)
    session = SlowSession()
    results = collect(MapRun(session, abs, (range(8),), batch=8, keep_going=True, options=options))
    assert [describe(value) for value in results] == [
        0, 1, 2, (CallTimeoutError, ("too long",)), 4, 5, 6, 7,
    ]  # fmt: skip
    assert session.retried == 0


class BrokenSession(FakeSession):
    """Its engine breaks at the first wait, and takes no call any more."""

    def end(self, future: Future[Any], batch: Any, columns: tuple[Any, ...]) -> None:
        future.set_exception(WorkerStartError("broken"))


@pytest.mark.parametrize("batch", [None, 1, 5])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_breakdown_is_every_items_error(batch: int | None, retries: int) -> None:
    run = MapRun(
        BrokenSession(),
        abs,
        (range(20),),
        batch=batch,
        keep_going=True,
        options=make_options(retries),
    )
    results = collect(run)
    assert [type(value) for value in results] == [WorkerStartError] * 20


@pytest.mark.parametrize("batch", [None, 1, 5])
def test_a_breakdown_is_raised(batch: int | None) -> None:
    with pytest.raises(WorkerStartError, match="broken"):
        collect(MapRun(BrokenSession(), abs, (range(20),), batch=batch))


def test_no_items_are_no_calls() -> None:
    session = FakeSession()
    for empty in ([], iter(()), range(0), {}):
        assert collect(MapRun(session, abs, (empty,))) == []
    assert session.batch_sizes == []


def test_star_spreads_tuples() -> None:
    run = MapRun(FakeSession(), divmod, ([(7, 2), (9, 4), (1, 1)],), star=True)
    assert collect(run) == [(3, 1), (2, 1), (1, 0)]


def test_several_inputs_are_zipped() -> None:
    run = MapRun(FakeSession(), pow, ([2, 3, 4], itertools.count(1)))
    assert collect(run) == [2, 9, 64]


def test_a_size_that_was_asked_for_is_kept() -> None:
    session = FakeSession()
    collect(MapRun(session, abs, (range(100),), batch=30))
    assert session.batch_sizes == [30, 30, 30, 10]


def test_batches_of_quick_items_grow() -> None:
    session = FakeSession()
    collect(MapRun(session, abs, (range(20_000),)))
    assert session.batch_sizes[0] == 1
    assert max(session.batch_sizes) > 100
    assert sum(session.batch_sizes) == 20_000


@pytest.mark.parametrize("batch", [0, -1, 2.5, True, "5"])
def test_a_size_that_cannot_be_meant_is_refused(batch: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="batch="):
        MapRun(FakeSession(), abs, ([1],), batch=batch)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(NotCallableError):
        MapRun(FakeSession(), 3, ([1],))  # type: ignore[arg-type]


# Streams.


class CountingInput:
    """An endless input that knows how far it was read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.read += 1
        return self.read - 1


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_input_is_read_as_it_is_consumed(ordered: bool) -> None:
    session = FakeSession(workers=2)
    numbers = CountingInput()
    parts = MapRun(session, abs, (numbers,), batch=5).iterate_parts(ordered=ordered)
    assert numbers.read == 0, "nothing happens before somebody asks"
    consumed = 0
    for part in itertools.islice(parts, 50):
        consumed += len(part)
        assert numbers.read - consumed <= 5 * 2 * 10
    parts.close()


def test_reading_ahead_is_bounded_where_the_first_batch_is_the_last() -> None:
    session = FakeSession(workers=2)
    session.choose = lambda: len(session.outstanding) - 1 if len(session.outstanding) > 1 else 0
    numbers = CountingInput()
    parts = MapRun(session, abs, (numbers,), batch=5).iterate_parts(ordered=True)
    assert next(parts) == [0, 1, 2, 3, 4]
    assert numbers.read <= 5 * 2 * 10
    parts.close()


def test_an_ordered_stream_yields_what_has_its_turn() -> None:
    session = FakeSession(workers=1)
    session.choose = lambda: len(session.outstanding) - 1
    run = MapRun(session, abs, (range(40),), batch=2)
    assert [part[0] for part in run.iterate_parts(ordered=True)] == list(range(0, 40, 2))


def test_few_batches_are_in_flight() -> None:
    session = FakeSession(workers=3)
    collect(MapRun(session, abs, (range(500),), batch=1))
    assert 3 <= session.most_outstanding <= 12


def test_each_worker_gets_one_of_the_first_items() -> None:
    session = FakeSession(workers=3)
    parts = MapRun(session, abs, (range(500),)).iterate_parts(ordered=True)
    session.choose = lambda: 0
    next(parts)
    assert session.batch_sizes[:3] == [1, 1, 1]
    parts.close()


def test_who_stops_early_withdraws_the_rest() -> None:
    session = FakeSession()
    watcher = FakeWatcher()
    run = MapRun(session, abs, (itertools.count(),), batch=1, watcher=watcher)
    parts = run.iterate_parts(ordered=False)
    next(parts)
    parts.close()
    assert session.outstanding
    assert all(future.cancelled() for future, _, _ in session.outstanding)
    assert {running for _, running in session.withdrawn} == {True}, "what runs is ended too"
    assert watcher.closed == 1


def test_an_interrupt_also_ends_what_runs() -> None:
    session = FakeSession()

    def interrupt() -> int:
        raise KeyboardInterrupt

    parts = MapRun(session, abs, (range(10),), batch=1).iterate_parts(ordered=True)
    session.choose = interrupt
    with pytest.raises(KeyboardInterrupt):
        next(parts)
    assert session.withdrawn[0][1] is True
    assert all(future.cancelled() for future, _, _ in session.outstanding)


def test_an_input_that_fails_fails_the_map() -> None:
    def numbers() -> Iterator[int]:
        yield from range(7)
        raise LookupError("no more")

    session = FakeSession()
    with pytest.raises(LookupError, match="no more"):
        collect(MapRun(session, abs, (numbers(),), batch=2))
    assert all(future.done() for future, _, _ in session.outstanding)


# Later.


class Clock:
    """Stands still but for who waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class ClockedSession(FakeSession):
    """Runs batches at once, oldest first, each for so many seconds of a clock that the test drives."""

    def __init__(self, clock: Clock, seconds: float = 0.0, workers: int = 2) -> None:
        super().__init__(workers=workers)
        self.clock = clock
        self.seconds = seconds
        self.choose = lambda: 0
        self.waits: list[float | None] = []

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        self.waits.append(timeout)
        assert timeout is None or timeout > 0, "a map that does not wait takes a core"
        ends_at = None if timeout is None else self.clock.now + timeout
        while not is_done():
            if not self.outstanding or (
                ends_at is not None and self.clock.now + self.seconds > ends_at
            ):
                assert ends_at is not None, "it waits for nothing"
                self.clock.now = ends_at
                return is_done()
            self.clock.now += self.seconds
            self.end(*self.outstanding.pop(0))
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(mapping, "monotonic", clock)
    monkeypatch.setattr(mapping, "random", lambda: 1.0)
    return clock


def test_an_item_is_tried_again_after_a_while(clock: Clock) -> None:
    times: list[float] = []

    def fail(x: int) -> None:
        times.append(clock.now - 1000)
        raise ValueError(x)

    policy = RetryPolicy(3, backoff=1.0, backoff_cap=3.0)
    run = MapRun(ClockedSession(clock), fail, ([1],), keep_going=True, options=CallOptions(policy))
    collect(run)
    assert times == [0.0, 1.0, 3.0, 6.0]


def test_an_item_is_tried_again_at_once_after_a_death(clock: Clock) -> None:
    session = ClockedSession(clock)
    session.deaths = {1: 1}
    assert collect(MapRun(session, abs, ([1],))) == [1]
    assert clock.now == 1000.0


@pytest.mark.parametrize("kind", [list, iter])
def test_others_go_on_while_an_item_waits_for_its_next_attempt(clock: Clock, kind: Any) -> None:
    order: list[int] = []

    def fail_once(x: int) -> int:
        order.append(x)
        if x == 0 and order.count(0) == 1:
            raise ValueError(x)
        return x

    policy = RetryPolicy(1, backoff=100.0, backoff_cap=100.0)
    session = ClockedSession(clock, seconds=1.0)
    run = MapRun(session, fail_once, (kind(range(12)),), batch=1, options=CallOptions(policy))
    assert collect(run, ordered=False) == [*range(1, 12), 0]
    assert order == [*range(12), 0]
    assert clock.now == 1000.0 + 1.0 + 100.0 + 1.0
    assert session.most_outstanding > 2, "as many at a time as without it"


def test_a_map_whose_places_are_all_taken_sleeps_until_something_lands(clock: Clock) -> None:
    session = ClockedSession(clock, seconds=1.0, workers=1)
    session.deaths = {5: 1}  # so all items of its batch wait to be run alone
    assert collect(MapRun(session, abs, (range(100),), batch=50)) == list(range(100))
    assert set(session.waits) == {None}


def test_a_map_that_is_done_in_time(clock: Clock) -> None:
    session = ClockedSession(clock, seconds=1.0)
    assert collect(MapRun(session, abs, (range(4),), batch=1, deadline=4.5)) == [0, 1, 2, 3]


@pytest.mark.parametrize("keep_going", [True, False])
def test_a_map_that_is_not_done_in_time(clock: Clock, keep_going: bool) -> None:
    session = ClockedSession(clock, seconds=1.0)
    watcher = FakeWatcher()
    run = MapRun(
        session, abs, (range(40),), batch=1, deadline=3.5, keep_going=keep_going, watcher=watcher
    )
    with pytest.raises(DeadlineError, match=r"the map of abs .* 3\.5 s: 3 items had ended"):
        collect(run)
    assert clock.now == 1003.5
    assert session.withdrawn and all(running for _, running in session.withdrawn)
    assert all(future.cancelled() for future, _, _ in session.outstanding)
    assert watcher.closed == 1


def test_a_deadline_counts_from_the_first_use(clock: Clock) -> None:
    run = MapRun(ClockedSession(clock), abs, (range(4),), deadline=1.0)
    clock.now += 100.0
    assert collect(run) == [0, 1, 2, 3]


def test_a_deadline_ends_the_wait_for_another_attempt(clock: Clock) -> None:
    def fail(x: int) -> None:
        raise ValueError(x)

    policy = RetryPolicy(1, backoff=100.0, backoff_cap=100.0)
    options = CallOptions(policy)
    run = MapRun(ClockedSession(clock), fail, ([1],), deadline=2.0, options=options)
    with pytest.raises(DeadlineError):
        collect(run)
    assert clock.now == 1002.0


def test_the_next_map_of_a_function_begins_with_larger_batches() -> None:
    session = FakeSession()
    session.choose = lambda: 0
    for _ in range(2):
        session.batch_sizes.clear()
        collect(MapRun(session, abs, (range(10_000),)))  # type: ignore[arg-type]
    assert session.batch_sizes[0] > 1
    session.batch_sizes.clear()
    collect(MapRun(session, [].__contains__, (range(100),)))  # type: ignore[arg-type]
    assert session.batch_sizes[0] == 1


def test_a_function_that_cannot_be_remembered_is_no_fault() -> None:
    class Bare:
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, x: int) -> int:
            return x

    session = FakeSession()
    for _ in range(2):
        assert collect(MapRun(session, Bare(), (range(50),))) == list(range(50))  # type: ignore[arg-type]
