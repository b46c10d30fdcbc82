import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.contenders.bare import deal
from benchmarks.statistics import (
    compute_efficiency,
    compute_ideal_wall,
    compute_median,
    compute_percentile,
    compute_ratio,
    divide,
    draw_durations,
    find_crossing,
    summarize,
)

FLOATS = st.floats(min_value=-1e9, max_value=1e9)


def test_percentile_is_linear_between_the_nearest_ranks():
    assert compute_percentile([4.0, 1.0, 3.0, 2.0], 25) == pytest.approx(1.75)
    assert compute_percentile([1.0, 2.0], 99) == pytest.approx(1.99)


@given(st.lists(FLOATS, min_size=1), st.floats(min_value=0, max_value=100))
def test_percentile_lies_within_the_values(values, percent):
    found = compute_percentile(values, percent)
    assert min(values) <= found or math.isclose(found, min(values))
    assert found <= max(values) or math.isclose(found, max(values))


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_percentile_rejects_what_has_no_answer(values, percent):
    with pytest.raises(ValueError, match=r"values|percent"):
        compute_percentile(values, percent)


def test_median_of_an_even_number_is_the_middle_of_two():
    assert compute_median([1.0, 10.0, 2.0, 3.0]) == 2.5


def test_summary_has_quartiles_and_their_distance():
    summary = summarize([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (summary.median, summary.low, summary.high, summary.count) == (3.0, 2.0, 4.0, 5)
    assert summary.spread == 2.0


def test_one_value_has_no_spread():
    assert summarize([7.0]).spread == 0.0


def test_what_was_never_found_is_infinite_and_has_no_spread():
    summary = summarize([math.inf, math.inf])
    assert summary.median == math.inf
    assert summary.spread == 0.0


def test_ratio_to_zero_is_infinite():
    assert compute_ratio(3.0, 2.0) == 1.5
    assert compute_ratio(1.0, 0.0) == math.inf


def test_efficiency_is_one_when_all_workers_compute_all_the_time():
    assert compute_efficiency(total=4.0, workers=2, wall=2.0) == 1.0
    assert compute_efficiency(total=4.0, workers=2, wall=4.0) == 0.5


def test_ideal_wall_is_bounded_by_the_total_or_by_the_longest_call():
    assert compute_ideal_wall([1.0, 1.0, 1.0, 1.0], workers=2) == 2.0
    assert compute_ideal_wall([5.0, 1.0], workers=2) == 5.0
    assert compute_ideal_wall([], workers=2) == 0.0


def test_durations_are_the_same_for_the_same_seed_and_have_the_median_asked_for():
    durations = draw_durations(5_000, median=2.0, sigma=1.5, seed=1)
    assert durations == draw_durations(5_000, median=2.0, sigma=1.5, seed=1)
    assert compute_median(durations) == pytest.approx(2.0, rel=0.1)
    assert min(durations) > 0


@given(st.floats(min_value=2e-6, max_value=0.5))
def test_crossing_is_found_within_the_tolerance(cost):
    found = find_crossing(lambda x: x / (x + cost), 1e-7, 10.0, level=0.5, tolerance=1.05)
    assert found == pytest.approx(cost, rel=0.05)


def test_crossing_outside_the_search():
    assert find_crossing(lambda _: 1.0, 1e-6, 1.0, level=0.5, tolerance=1.1) == 1e-6
    assert find_crossing(lambda _: 0.0, 1e-6, 1.0, level=0.5, tolerance=1.1) == math.inf


@given(st.lists(st.integers(min_value=1, max_value=1_000)), st.integers(1, 4))
def test_dealing_loses_nothing_and_keeps_loads_within_the_largest_cost(costs, workers):
    shares = deal(costs, workers)
    assert sorted(cost for share in shares for cost in share) == sorted(costs)
    loads = [sum(share) for share in shares]
    assert max(loads) - min(loads) <= max(costs, default=0)


@pytest.mark.parametrize(
    ("length", "parts", "expected"),
    [
        (4, 2, [(0, 2), (2, 4)]),
        (5, 3, [(0, 1), (1, 3), (3, 5)]),
        (1, 2, [(0, 0), (0, 1)]),
    ],
)
def test_parts_follow_each_other_and_are_alike(length, parts, expected):
    assert divide(length, parts) == expected
