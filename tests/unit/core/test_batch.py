"""What runs a batch of items."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.core.batch import Batch
from manyhands.core.exceptions import unpack_exception


def make_batch(
    fn: Callable[..., Any],
    *,
    star: bool = False,
    keep_going: bool = False,
    budget: float | None = None,
) -> Batch:
    return Batch(fn, "it", star=star, keep_going=keep_going, budget=budget)


def fail_on_threes(x: int) -> int:
    if x % 3 == 0:
        raise ValueError(x)
    return x * 10


class Clock:
    """Stands still but for the seconds that calls take."""

    def __init__(self) -> None:
        self.now = 100.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now

    def spend(self, seconds: float) -> float:
        self.now += seconds
        return seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("manyhands.core.batch.perf_counter", clock)
    return clock


@given(st.lists(st.integers()), st.lists(st.integers(), min_size=1))
def test_values_are_those_of_the_plain_map(xs: list[int], ys: list[int]) -> None:
    values, failures, seconds = make_batch(lambda x, y: (x, y))(xs, ys)
    assert values == list(zip(xs, ys, strict=False))
    assert failures == []
    assert seconds >= 0


@pytest.mark.parametrize("column", [range(5), (0, 1, 2, 3, 4), [0, 1, 2, 3, 4], b"\0\1\2\3\4"])
def test_columns_are_whatever_has_a_length(column: Any) -> None:
    assert make_batch(lambda x: x + 1)(column)[0] == [1, 2, 3, 4, 5]


def test_star_spreads_each_item() -> None:
    assert make_batch(divmod, star=True)([(7, 2), (9, 4)])[0] == [(3, 1), (2, 1)]


@given(st.lists(st.integers(-50, 50), max_size=200))
def test_a_batch_that_keeps_going_does_all_items(xs: list[int]) -> None:
    values, failures, _ = make_batch(fail_on_threes, keep_going=True)(xs)
    assert values == [None if x % 3 == 0 else x * 10 for x in xs]
    assert [place for place, _ in failures] == [i for i, x in enumerate(xs) if x % 3 == 0]
    for place, packed in failures:
        error = unpack_exception(packed)
        assert isinstance(error, ValueError)
        assert error.args == (xs[place],)


@given(st.lists(st.integers(-50, 50), max_size=200))
def test_a_batch_that_does_not_keep_going_ends_with_the_first_failure(xs: list[int]) -> None:
    values, failures, _ = make_batch(fail_on_threes)(xs)
    place = next((i for i, x in enumerate(xs) if x % 3 == 0), None)
    if place is None:
        assert (values, failures) == ([x * 10 for x in xs], [])
    else:
        assert values == [*(x * 10 for x in xs[:place]), None]
        assert [where for where, _ in failures] == [place]


@pytest.mark.parametrize("keep_going", [True, False])
def test_no_item_is_run_twice(keep_going: bool) -> None:
    seen: list[int] = []

    def run(x: int) -> int:
        seen.append(x)
        return fail_on_threes(x)

    make_batch(run, keep_going=keep_going)(range(1, 100))
    assert seen == (list(range(1, 100)) if keep_going else [1, 2, 3])


def test_a_traceback_begins_with_the_users_frame() -> None:
    _, [(_, packed)], _ = make_batch(fail_on_threes)([3])
    (note,) = unpack_exception(packed).__notes__
    assert "in fail_on_threes" in note
    assert "manyhands" not in note


def stop(x: int) -> int:
    if x == 2:
        raise StopIteration(x)
    return x


def test_a_stop_iteration_is_a_failure_and_not_an_end() -> None:
    values, failures, _ = make_batch(stop, keep_going=True)([1, 2, 3])
    assert values == [1, None, 3]
    [(place, packed)] = failures
    assert place == 1
    assert "StopIteration" in str(unpack_exception(packed))


def test_a_star_item_that_is_no_tuple_is_a_failure_of_its_own() -> None:
    values, failures, _ = make_batch(divmod, star=True, keep_going=True)([(7, 2), 5, (9, 4)])
    assert values == [(3, 1), None, (2, 1)]
    assert [place for place, _ in failures] == [1]


def test_an_exit_is_not_caught() -> None:
    def leave(x: int) -> None:
        raise SystemExit(x)

    with pytest.raises(SystemExit):
        make_batch(leave, keep_going=True)([1])


def test_a_batch_over_its_budget_leaves_the_rest(clock: Clock) -> None:
    values, failures, seconds = make_batch(clock.spend, budget=1.0)([0.3] * 10)
    assert values == [0.3] * 4
    assert failures == []
    assert seconds == pytest.approx(1.2)


def test_a_batch_does_one_item_at_least(clock: Clock) -> None:
    assert make_batch(clock.spend, budget=1.0)([50.0, 1.0])[0] == [50.0]


def test_a_batch_without_budget_does_all(clock: Clock) -> None:
    assert make_batch(clock.spend)([50.0] * 10)[0] == [50.0] * 10


def test_an_item_that_becomes_slow_is_noticed_soon(clock: Clock) -> None:
    seconds = [1e-6] * 1000 + [0.5] * 1000
    values, _, _ = make_batch(clock.spend, budget=1.0)(seconds)
    assert len(values) < 1300


def test_quick_items_pay_for_few_looks_at_the_clock(clock: Clock) -> None:
    make_batch(clock.spend, budget=1.0)([1e-9] * 10_000)
    assert clock.looks < 500


def test_a_batch_travels_and_has_its_functions_name() -> None:
    batch = pickle.loads(pickle.dumps(make_batch(fail_on_threes, keep_going=True, budget=2.0)))
    assert batch.__qualname__ == "it"
    assert batch.budget == 2.0
    assert batch([1, 2])[0] == [10, 20]
