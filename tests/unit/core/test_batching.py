"""How many items the next batch takes."""

from hypothesis import given
from hypothesis import strategies as st

from manyhands.core.batching import GROWTH, TARGET_SECONDS, BatchSizer

workers = st.integers(1, 64)
durations = st.floats(0, 1e4, allow_nan=False)
observations = st.lists(st.tuples(st.integers(0, 10**6), durations), max_size=30)
remaining = st.none() | st.integers(0, 10**9)


def test_the_first_batch_is_one_item() -> None:
    sizer = BatchSizer(4)
    assert sizer.choose() == 1
    assert sizer.seconds_per_item is None


def test_a_batch_aims_at_its_duration() -> None:
    sizer = BatchSizer(2)
    sizer.observe(100, 100 * TARGET_SECONDS / 50)
    assert sizer.choose() in (49, 50)


def test_the_duration_that_it_aims_at_can_be_another() -> None:
    sizer = BatchSizer(2, target=10 * TARGET_SECONDS)
    sizer.observe(100, 100 * TARGET_SECONDS / 50)
    assert sizer.choose() in (499, 500)


def test_what_takes_long_travels_alone() -> None:
    sizer = BatchSizer(2)
    sizer.observe(1, 60.0)
    assert sizer.choose() == 1
    assert sizer.seconds_per_item == 60.0


def test_the_end_of_the_input_is_cut_finer() -> None:
    sizer = BatchSizer(2)
    sizer.observe(1000, 1000 * TARGET_SECONDS / 100)
    sizes = [sizer.choose(remaining) for remaining in (10_000, 400, 200)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] >= 99
    assert sizes[-1] <= 30


def test_few_slow_items_are_dealt_out_one_by_one() -> None:
    sizer = BatchSizer(2)
    sizer.observe(10, 10 * TARGET_SECONDS / 4)
    assert sizer.choose() == 4
    assert sizer.choose(remaining=6) == 1


def test_nothing_is_learnt_from_an_empty_batch() -> None:
    sizer = BatchSizer(2)
    sizer.observe(0, 1.0)
    assert sizer.seconds_per_item is None


@given(workers, st.integers(1, 10**6), observations, remaining)
def test_a_size_that_was_asked_for_is_kept(
    workers: int, fixed: int, seen: list[tuple[int, float]], remaining: int | None
) -> None:
    sizer = BatchSizer(workers, fixed)
    for items, seconds in seen:
        sizer.observe(items, seconds)
    assert sizer.choose(remaining) == fixed


@given(workers, observations, remaining)
def test_a_batch_has_an_item_and_grows_within_bounds(
    workers: int, seen: list[tuple[int, float]], remaining: int | None
) -> None:
    sizer = BatchSizer(workers)
    for items, seconds in seen:
        sizer.observe(items, seconds)
    size = sizer.choose(remaining)
    largest = max((items for items, _ in seen), default=0)
    assert 1 <= size <= max(1, GROWTH * largest)
    each = sizer.seconds_per_item
    if remaining is not None and each is not None:
        fair = max(1, remaining // workers)
        assert size <= fair or size * each <= TARGET_SECONDS / 4, "one worker would hold the end"


@given(workers, observations)
def test_no_batch_is_expected_to_take_longer_than_its_target(
    workers: int, seen: list[tuple[int, float]]
) -> None:
    sizer = BatchSizer(workers)
    for items, seconds in seen:
        sizer.observe(items, seconds)
    size = sizer.choose()
    each = sizer.seconds_per_item
    assert size == 1 or each is None or size * each <= TARGET_SECONDS * 1.0001


@given(workers, st.floats(0.01, 20), st.floats(1e-8, 1e-4))
def test_one_slow_first_call_is_forgotten(workers: int, slow: float, quick: float) -> None:
    sizer = BatchSizer(workers)
    sizer.observe(1, slow)
    ideal = TARGET_SECONDS / quick
    batches = 0
    while sizer.choose() < ideal / 2:
        size = sizer.choose()
        sizer.observe(size, size * quick)
        batches += 1
        assert batches <= 32, "it still holds the sizes down"


@given(workers, st.floats(1e-7, 1e-4), st.floats(2, 1000))
def test_items_that_become_slower_make_batches_smaller(
    workers: int, quick: float, factor: float
) -> None:
    sizer = BatchSizer(workers)
    for _ in range(10):
        size = sizer.choose()
        sizer.observe(size, size * quick)
    slow = quick * factor
    for _ in range(24):
        size = sizer.choose()
        sizer.observe(size, size * slow)
    assert sizer.choose() * slow <= max(TARGET_SECONDS, slow) * 1.25


def test_a_later_sizer_begins_where_an_earlier_one_was() -> None:
    first = BatchSizer(2)
    assert first.pace is None
    first.observe(100, 1e-3)
    later = BatchSizer(2, pace=first.pace)
    assert later.choose() == first.choose() > 1
    assert later.seconds_per_item == 1e-5
    assert BatchSizer(2, fixed=7, pace=first.pace).pace is None
