import pytest

from benchmarks.contenders import find_entry, is_wanted
from benchmarks.measurement import Against, Metric, Reading, Row, RowResult, Target, Unit
from benchmarks.run import choose_contenders, limit_rounds, rotate
from benchmarks.table import describe_verdict, format_value, make_table
from benchmarks.targets import find_best_peer, judge_row

TIME = Metric("time", "time", Unit.SECONDS)
RATE = Metric("rate", "rate", Unit.RATE, higher_is_better=True)


def make_result(*targets, **values):
    names = ["manyhands", "pool", "executor", "bare"]
    row = Row(
        name="row",
        title="A row",
        metrics=(TIME, RATE),
        targets=targets,
        contenders={name: name.title() for name in names},
        measure=lambda *_: Reading({}),
    )
    result = RowResult(row)
    for name, times in values.items():
        result.readings[name] = [Reading({"time": t, "rate": 1 / t}) for t in times]
    return result


def judge(target, **values):
    (verdict,) = judge_row(make_result(target, **values))
    return verdict


def test_best_peer_is_neither_ours_nor_a_reference():
    result = make_result(manyhands=[1.0], pool=[3.0], executor=[2.0], bare=[0.5])
    assert find_best_peer(result, TIME) == "executor"
    assert find_best_peer(result, RATE) == "executor"


def test_no_peer_no_best():
    assert find_best_peer(make_result(manyhands=[1.0]), TIME) is None


@pytest.mark.parametrize(("limit", "reached"), [(0.4, False), (0.5, True), (0.6, True)])
def test_upper_bound_on_a_ratio_of_medians(limit, reached):
    target = Target("time", limit, against=Against.BEST)
    verdict = judge(target, manyhands=[1.0, 1.0, 9.0], pool=[2.0], executor=[3.0])
    assert verdict.value == 0.5
    assert verdict.reference == "pool"
    assert verdict.reached is reached


def test_lower_bound_against_one_peer():
    target = Target("rate", 3.0, at_least=True, against=Against.PEER, peer="executor")
    verdict = judge(target, manyhands=[1.0], pool=[2.0], executor=[4.0])
    assert verdict.value == 4.0
    assert verdict.reached


def test_another_metric_may_decide_who_is_best():
    result = make_result(
        Target("time", 1.0, against=Against.BEST, best_by="rate"), manyhands=[1.0], executor=[4.0]
    )
    result.readings["pool"] = [Reading({"time": 2.0, "rate": 9.0})]
    (verdict,) = judge_row(result)
    assert verdict.reference == "pool"
    assert verdict.value == 0.5


def test_a_variant_of_ours_may_have_a_target_of_its_own():
    target = Target("time", 2.0, against=Against.PEER, peer="bare", of="executor")
    result = make_result(target, manyhands=[9.0], executor=[3.0], bare=[2.0])
    (verdict,) = judge_row(result)
    assert verdict.value == 1.5
    assert describe_verdict(result, verdict).plain.strip() == (
        "✓ reached  Executor, time: at most 2x of Bare: 1.5x"
    )


@pytest.mark.parametrize(("ours", "reached"), [([0.9], True), ([1.9], True), ([2.1], False)])
def test_one_of_two_targets_is_enough(ours, reached):
    other = Target("time", 0.5, against=Against.PEER, peer="pool")
    target = Target("time", 1.0, alternative=other)
    result = make_result(target, manyhands=ours, pool=[4.0])
    (verdict,) = judge_row(result)
    assert verdict.reached is reached
    assert ", or time: at most 0.5x of Pool: " in describe_verdict(result, verdict).plain


def test_of_two_targets_the_one_that_was_measured_counts():
    other = Target("time", 0.5, against=Against.PEER, peer="pool")
    result = make_result(Target("time", 1.0, alternative=other), manyhands=[0.5])
    (verdict,) = judge_row(result)
    assert verdict.reached
    assert describe_verdict(result, verdict).plain.endswith("500 ms and ?")


def test_target_without_comparison():
    assert judge(Target("time", 1.0), manyhands=[0.9]).reached
    assert not judge(Target("time", 1.0), manyhands=[1.1]).reached


@pytest.mark.parametrize("values", [{"manyhands": [1.0]}, {"pool": [1.0]}, {}])
def test_nothing_measured_is_neither_reached_nor_missed(values):
    assert judge(Target("time", 1.0, against=Against.BEST), **values).reached is None


def test_verdict_names_the_peer_and_the_figure():
    target = Target("time", 0.5, against=Against.BEST)
    result = make_result(target, manyhands=[1.0], pool=[4.0])
    (verdict,) = judge_row(result)
    words = describe_verdict(result, verdict).plain
    assert "reached" in words
    assert "at most 0.5x of the best peer (Pool): 0.25x" in words


def test_table_has_a_line_per_contender_and_metric_and_one_per_heading():
    assert make_table(make_result(manyhands=[1.0], pool=[2.0])).row_count == 6


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.000_25, Unit.SECONDS, "250 µs"),
        (1.5, Unit.SECONDS, "1.5 s"),
        (4.1e-7, Unit.SECONDS, "410 ns"),
        (0.0, Unit.SECONDS, "0 ns"),
        (float("inf"), Unit.SECONDS, "none"),
        (24_600, Unit.RATE, "24.6 k/s"),
        (475, Unit.RATE, "475 /s"),
        (1536, Unit.BYTES, "1.5 KiB"),
        (8.35e9, Unit.BANDWIDTH, "8.35 GB/s"),
        (0.95, Unit.SHARE, "0.950"),
        (1.2, Unit.FACTOR, "1.2x"),
        (0, Unit.COUNT, "0"),
    ],
)
def test_values_are_printed_in_the_unit_that_reads_best(value, unit, text):
    assert format_value(value, unit) == text


def test_each_round_begins_one_contender_later():
    assert [rotate("abc", number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
    assert rotate([], 1) == []


def test_heavy_peers_take_half_of_the_rounds():
    assert [limit_rounds("ray", rounds) for rounds in (1, 2, 5)] == [1, 1, 3]
    assert limit_rounds("pool", 5) == 5


def test_only_peers_that_are_wanted_take_part_and_references_always_do():
    row = make_result().row
    chosen = choose_contenders(row, peers=["pool"])
    assert "pool" in chosen
    assert "bare" in chosen
    assert "executor" not in chosen


def test_a_variant_takes_part_where_its_library_is_wanted():
    assert is_wanted("pool-kept", ["pool"])
    assert is_wanted("pool-kept", None)
    assert not is_wanted("pool-kept", ["ray"])
    assert not is_wanted("pool-spawn", ["pool"])  # a program of its own, that has to be named
    assert is_wanted("manyhands-empty", ["ray"])
    assert not find_entry("manyhands-empty").peer
    assert find_entry("pool-spawn") is find_entry("pool")
