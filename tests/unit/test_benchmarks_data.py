import gc
import weakref

import numpy as np
import pytest

import manyhands as mh
from benchmarks import data_work
from benchmarks.__main__ import parse
from benchmarks.contenders import find_entry
from benchmarks.loads import Load, expect
from benchmarks.processes import parse_rollup
from benchmarks.rows import GROUPS, ROWS

ROLLUP = """\
5624287e3000-7fff0cc8f000 ---p 00000000 00:00 0                          [rollup]
Rss:                1624 kB
Pss:                 233 kB
Pss_Shmem:             8 kB
"""


def test_without_a_group_the_rows_are_the_basic_ones():
    assert list(parse([]).only) == list(GROUPS["basics"])
    assert list(parse(["data"]).only) == list(GROUPS["data"])
    assert parse(["data", "--only", "chain,array", "--quick"]).only == ["chain", "array"]


@pytest.mark.parametrize("arguments", [["--only", "array"], ["data", "--only", "demo"], ["else"]])
def test_a_row_is_of_its_group(arguments, capsys):
    with pytest.raises(SystemExit):
        parse(arguments)
    assert "array" in capsys.readouterr().err or arguments == ["else"]


def test_targets_name_metrics_and_contenders_of_their_row():
    assert len(ROWS) == sum(map(len, GROUPS.values()))
    for row in ROWS.values():
        metrics = {metric.key for metric in row.metrics}
        for target in row.targets:
            assert target.metric in metrics
            assert target.of in row.contenders
            assert target.peer in {"", *row.contenders}
            assert target.alternative is None or target.alternative.metric in metrics
        assert all(find_entry(name) for name in row.contenders)


def test_a_rollup_is_read_by_name_and_in_bytes():
    assert parse_rollup(ROLLUP) == {"Rss": 1624 << 10, "Pss": 233 << 10, "Pss_Shmem": 8 << 10}


def test_every_round_is_checked_and_none_begins_with_the_outcome_of_another_held():
    outcomes = []

    def run():
        gc.collect()
        assert not any(outcome() for outcome in outcomes)
        value = np.zeros(1)
        outcomes.append(weakref.ref(value))
        return value

    checked = []
    walls = Load(run, lambda value: checked.append(len(value))).time_rounds(3)
    assert checked == [1] * 5
    assert len(walls) == 3


def test_results_that_are_not_as_expected_raise():
    expect([1.0], [1.0])
    with pytest.raises(RuntimeError, match=r"\[2.0\]"):
        expect([2.0], [1.0])


def test_the_chains_steps_are_alike():
    ones = data_work.fill_ones(4)
    assert data_work.add_one(ones).tolist() == [2.0] * 4
    with mh.Session("inline"):
        assert data_work.add_one_born_shared(ones).tolist() == [2.0] * 4


def test_sums_of_slices_are_exact_in_any_order():
    array = data_work.make_array(1_000)
    parts = [data_work.sum_part(array, part) for part in ((0, 300), (300, 1_000))]
    assert sum(parts) == float(array[::-1].sum())


def test_values_say_which_they_are():
    values = data_work.make_bytes(300, 1024)
    assert {len(value) for value in values} == {1024}
    assert [data_work.read_number(value) for value in values] == list(range(300))


def test_reading_touches_each_page():
    array = np.zeros(2_048)
    array[::512] = 1
    assert data_work.read_pages(array) == 4


def test_a_frame_has_a_column_of_each_kind_and_a_figure_of_each():
    frame = data_work.make_frame(100)
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "int64", "datetime64[s]", "str"]
    price, amount, day, letters = data_work.summarize_part(frame, (10, 20))
    assert price == frame["price"][10:20].sum()
    assert amount == frame["amount"][10:20].sum()
    assert day.startswith("202")
    assert letters == 10 * len("customer-00000")
