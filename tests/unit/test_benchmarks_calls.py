import asyncio
from dataclasses import asdict

import pytest

import manyhands as mh
from benchmarks import case_work
from benchmarks.__main__ import parse
from benchmarks.contenders import BEFORE, OURS
from benchmarks.contenders.contender import Scale
from benchmarks.contenders.manyhands_cases import CASES
from benchmarks.loads import time_step
from benchmarks.measurement import Overall, Reading, RowResult, Setting
from benchmarks.record import describe_results
from benchmarks.rows import GROUPS, OVERALL, ray_perf
from benchmarks.run import Plan, choose_contenders
from benchmarks.table import describe_overall
from benchmarks.targets import judge_overall

QUICK = Setting(workers=2, quick=True, iterations_per_ms=1)
SMALL = Scale(clients=2, calls=20, many=20, refs=20, elements=1_000, depth=6, patience=60.0)


def make_results(**rates):
    results = []
    for name, by_contender in rates.items():
        row = GROUPS["calls"][name.replace("_", "-")]
        result = RowResult(row)
        for contender, rate in by_contender.items():
            result.readings[contender] = [Reading({"rate": rate})]
        results.append(result)
    return results


@pytest.fixture(scope="module")
def session():
    with mh.Session("inline") as opened:
        yield opened


@pytest.mark.parametrize("case", ray_perf.CASES, ids=lambda case: case.name)
def test_a_round_of_ours_gives_what_the_row_expects(case, session):
    found = CASES[case.name](SMALL)()
    if case.expected is not None:
        assert found == case.expected(SMALL)
    assert case.count(SMALL) >= 1


def test_the_tree_of_calls_is_fibonacci(session):
    assert CASES["nested"](SMALL)() == case_work.compute_fibonacci(6) == 8


def test_every_case_is_a_row_and_has_a_program_of_ours():
    assert {case.name for case in ray_perf.CASES} | {"nested"} == set(CASES)
    assert OVERALL["calls"].rows == tuple(case.name for case in ray_perf.CASES)


def test_sizes_are_rays_but_for_dask_with_several_clients():
    full = Setting(workers=2, quick=False, iterations_per_ms=1)
    ours = ray_perf.make_scale(OURS, full)
    assert ours == ray_perf.make_scale("ray", full)
    assert asdict(ours) | {"many": 1_000} == asdict(ray_perf.make_scale("dask", full))
    assert ours.elements * 8 == 800 * 2**20


@pytest.mark.parametrize("number", range(1, 12))
def test_nodes_are_counted_as_the_tree_has_them(number):
    def count(n):
        return 1 if n < 2 else 1 + count(n - 1) + count(n - 2)

    assert case_work.count_nodes(number) == count(number)
    assert case_work.count_nodes(18) == 8_361


def test_servers_answer_alike():
    server, other = case_work.Server(), case_work.AsyncServer()
    answers = {server.small_value(), server.small_value_arg(1), case_work.small_value()}
    answers |= {asyncio.run(other.small_value()), asyncio.run(other.small_value_arg(1))}
    assert answers == {b"ok"}


def test_a_step_is_checked_before_and_after_and_timed_by_itself():
    calls = []
    wall = time_step(lambda: calls.append(0) or 7, 7, QUICK)
    assert 0 < wall < 0.02
    assert len(calls) > 100
    with pytest.raises(RuntimeError, match="8"):
        time_step(lambda: 8, 7, QUICK)


def test_the_median_of_the_rows_is_judged_when_all_are_there():
    overall = Overall(("get-small", "put-small", "tasks-sync"), "rate", 5.0, peer="ray")
    results = make_results(
        get_small={OURS: 40.0, "ray": 2.0},
        put_small={OURS: 1.0, "ray": 2.0},
        nested={OURS: 1.0, "ray": 2.0},
    )
    verdict = judge_overall(results, overall)
    assert verdict.ratios == {"get-small": 20.0, "put-small": 0.5}
    assert verdict.reached is None
    assert "not all measured" in describe_overall(verdict).plain
    results += make_results(tasks_sync={OURS: 12.0, "ray": 2.0})
    verdict = judge_overall(results, overall)
    assert verdict.value == 6.0
    assert verdict.reached
    assert describe_overall(verdict).plain == (
        "✓ reached  median of 3 rows: at least 5x of Ray: 6x"
    )


def test_rows_without_the_peer_are_no_ratio():
    overall = OVERALL["calls"]
    verdict = judge_overall(make_results(get_small={OURS: 1.0}), overall)
    assert verdict.value is None
    assert verdict.reached is None
    assert "? not measured" in describe_overall(verdict).plain


def test_the_record_says_which_rows_are_missing():
    results = make_results(actor_async={OURS: 15_000.0, "ray": 1_000.0})
    verdict = judge_overall(results, OVERALL["calls"])
    record = describe_results({}, Plan(QUICK, 1, None, 1.0), results, verdict)
    assert record["overall"]["ratios"] == {"actor-async": 15.0}
    assert len(record["overall"]["missing"]) == len(ray_perf.CASES) - 1
    (_, enough) = record["rows"][0]["targets"]
    assert enough["reached"]
    assert enough["alternative"]["value"] == 15.0


def test_the_other_checkout_takes_part_where_one_is_given():
    row = GROUPS["calls"]["cost-of-unused"]
    assert choose_contenders(row, None) == [OURS]
    assert choose_contenders(row, ["pool"], "/somewhere") == [OURS, BEFORE]


def test_the_other_checkout_must_be_one(tmp_path, capsys):
    (tmp_path / "src" / "manyhands").mkdir(parents=True)
    with pytest.raises(SystemExit):
        parse(["calls", "--against", str(tmp_path)])
    assert "no checkout" in capsys.readouterr().err
    (tmp_path / "src" / "manyhands" / "__init__.py").touch()
    assert parse(["calls", "--against", str(tmp_path)]).against == str(tmp_path.resolve())
    assert parse(["calls"]).against is None
