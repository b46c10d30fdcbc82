"""Shuffles of frames and bags: the same content as by Dask's own, in a fixed order, whatever holds the pieces."""

import datetime as dt
import operator
from pathlib import Path

import dask
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask._task_spec import convert_legacy_graph
from dask.local import get_sync
from dask.tokenize import tokenize
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

import manyhands as mh
from manyhands.frontends.dask import pieces, shuffle
from manyhands.frontends.dask.pieces import Held, Packed, Room, Stored, keep
from manyhands.frontends.dask.shuffle import exchange, join_frames, split_frame

ENGINES = {"local": {"workers": 2}, "threads": {"workers": 2}, "inline": {}}


@pytest.fixture(params=ENGINES)
def session(request):
    with mh.Session(request.param, **ENGINES[request.param]) as session:
        yield session


class Recorder:
    """A scheduler of Dask's kind that exchanges and runs the graph here."""

    def __init__(self, *, apart: bool) -> None:
        self.apart = apart
        self.keys: set[str] = set()

    def __call__(self, expr, keys, **_):
        graph = convert_legacy_graph(expr.__dask_graph__())
        before = dict(graph)
        changed = exchange(expr, graph, keys, apart=self.apart)
        assert graph == before
        self.keys |= {key[0] if isinstance(key, tuple) else key for key in changed}
        self.functions = {getattr(node, "func", None) for node in changed.values()}
        return get_sync(changed, keys)

    def count(self, prefix: str) -> int:
        return sum(key.startswith(prefix) for key in self.keys)


@pytest.fixture(params=[False, True], ids=["together", "apart"])
def recorder(request):
    return Recorder(apart=request.param)


def make_frame(rows: int = 200) -> pd.DataFrame:
    chance = np.random.default_rng(7)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(chance.integers(0, 50, rows), "D")
    return pd.DataFrame(
        {
            "key": chance.integers(0, 20, rows),
            "value": np.where(chance.random(rows) < 0.2, np.nan, chance.random(rows)),
            "name": pd.Series(chance.choice(["ann", "bob", None], rows), dtype="str"),
            "kind": pd.Categorical(chance.choice(["x", "y", "z"], rows)),
            "day": days,
        },
        index=pd.Index(chance.integers(0, 50, rows), name="label"),
    )


def compute_parts(frame, method, scheduler):
    with dask.config.set({"dataframe.shuffle.method": method}):
        return dask.compute(*frame.shuffle("key", npartitions=7).partitions, scheduler=scheduler)


# --- frames: held against Dask's own ----------------------------------------------


@pytest.mark.parametrize("method", ["disk", "tasks"])
def test_partitions_are_those_of_the_tasks_shuffle(recorder, method):
    frame = dd.from_pandas(make_frame(), npartitions=9, sort=False)
    expected = compute_parts(frame, "tasks", "sync")
    found = compute_parts(frame, method, recorder)
    assert recorder.count("split-") > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert_frame_equal(ours, theirs)


def test_rows_are_those_of_the_disk_shuffle(recorder):
    frame = dd.from_pandas(make_frame(), npartitions=9, sort=False)
    columns = ["key", "value", "name", "kind", "day"]
    for ours, theirs in zip(
        compute_parts(frame, "disk", recorder), compute_parts(frame, "disk", "sync"), strict=True
    ):
        assert_frame_equal(
            ours.sort_values(columns).sort_index(kind="stable"),
            theirs.sort_values(columns).sort_index(kind="stable"),
        )


def test_of_a_selection_only_that_is_cut_out(recorder):
    frame = dd.from_pandas(make_frame(), npartitions=4, sort=False)
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        shuffled = frame.shuffle("key", npartitions=6)
        expected = shuffled.partitions[[4, 1]].compute(scheduler="sync")
        assert_frame_equal(shuffled.partitions[[4, 1]].compute(scheduler=recorder), expected)
    assert recorder.count("split-") > 0


def test_more_partitions_than_a_stage_of_dask_has(recorder):
    frame = dd.from_pandas(make_frame(400), npartitions=40, sort=False)
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        shuffled = frame.shuffle("key", npartitions=50)
        expected = shuffled.compute(scheduler="sync")
        assert_frame_equal(shuffled.compute(scheduler=recorder), expected)


@pytest.mark.parametrize("method", ["disk", "tasks"])
def test_operations_that_shuffle(recorder, method):
    source = make_frame()
    frame = dd.from_pandas(source, npartitions=5, sort=False)
    other = dd.from_pandas(
        pd.DataFrame({"key": range(0, 20, 2), "weight": range(10)}), npartitions=3
    )
    with dask.config.set({"dataframe.shuffle.method": method}):
        asked = {
            "merge": frame.merge(other, on="key", how="outer", broadcast=False),
            "set_index": frame.set_index("key", divisions=[0, 5, 10, 19]),
            "sort_values": frame.sort_values("value", npartitions=3),
            "agg": frame.groupby("key").value.agg(["sum", "count"], split_out=3),
            "apply": frame.groupby("key")[["value"]].apply(len, meta=("n", "i8")),
            "nunique": frame.drop_duplicates(["key"], split_out=2)[["key"]],
        }
        expected = dask.compute(asked, scheduler="sync")[0]
        found = dask.compute(asked, scheduler=recorder)[0]
    assert recorder.count("split-") >= 5
    for name, theirs in expected.items():
        assert_frame_equal(sort_rows(found[name], name), sort_rows(theirs, name))


def sort_rows(result, name):
    """Rows in an order of their own: that of the disk shuffle is a matter of chance, and so is a merge's index."""
    if isinstance(result, pd.Series):
        result = result.to_frame("result")
    rows = result.reset_index(drop=name == "merge")
    return rows.sort_values(list(rows.columns)).reset_index(drop=True)


def test_unequal_categories_are_united(recorder):
    parts = [
        pd.DataFrame({"key": [1, 2, 3], "kind": pd.Categorical(list(letters))})
        for letters in ("abc", "bcd", "xyz")
    ]
    frame = dd.from_map(lambda number: parts[number], range(3), meta=parts[0].iloc[:0])
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        shuffled = frame.shuffle("key", npartitions=2)
        expected = shuffled.partitions[0].compute(scheduler="sync")
        assert_frame_equal(shuffled.partitions[0].compute(scheduler=recorder), expected)


def test_an_unknown_version_keeps_its_own_shuffle(monkeypatch):
    from dask.dataframe.dask_expr import _shuffle

    monkeypatch.delattr(_shuffle, "DiskShuffle")
    recorder = Recorder(apart=False)
    frame = (
        dd.from_pandas(make_frame(), npartitions=3, sort=False).shuffle("key").map_partitions(len)
    )
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        assert frame.sum().compute(scheduler=recorder) == 200
    assert recorder.count("split-taskshuffle") == 1


def test_frames_that_come_as_delayed_do_without_files(recorder, tmp_path):
    frame = dd.from_pandas(make_frame(), npartitions=3, sort=False)
    with dask.config.set(
        {"dataframe.shuffle.method": "disk", "temporary_directory": str(tmp_path)}
    ):
        parts = frame.shuffle("key", npartitions=4).to_delayed(optimize_graph=True)
        found = dask.compute(*parts, scheduler=recorder)
    assert sum(map(len, found)) == 200
    assert not list(Path(tmp_path).iterdir())


# --- frames: cut and joined -------------------------------------------------------


def cells():
    text = st.text("abc", max_size=3)
    return {
        "integers": st.integers(-5, 5),
        "floats": st.one_of(st.none(), st.floats(allow_nan=True, width=32)),
        "texts": st.one_of(st.none(), text),
        "dates": st.dates(dt.date(2000, 1, 1), dt.date(2001, 1, 1)),
        "objects": st.tuples(st.integers(0, 3), text),
    }


@st.composite
def frames(draw):
    """Some partitions of a frame, perhaps without rows, and to which each of their rows goes."""
    count = draw(st.integers(1, 6))
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(0, 12))
        columns = {
            name: draw(st.lists(cell, min_size=rows, max_size=rows))
            for name, cell in cells().items()
        }
        part = pd.DataFrame(
            columns, index=draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
        )
        part["floats"] = part["floats"].astype("float64")
        part["integers"] = part["integers"].astype("int64")
        part["texts"] = part["texts"].astype("str")
        part["dates"] = pd.to_datetime(part["dates"])
        part["objects"] = part["objects"].astype("object")
        part["kinds"] = part["texts"].astype("category")
        part["nullable"] = part["integers"].astype("Int16")
        part.index = part.index.astype("int64")
        part["_partitions"] = np.array(
            draw(st.lists(st.integers(0, count - 1), min_size=rows, max_size=rows)), np.int8
        )
        parts.append(part)
    return count, parts


@settings(max_examples=60, deadline=None)
@given(frames(), st.booleans(), st.sampled_from(["held", "packed", "file"]))
def test_every_row_arrives_once_and_in_order(drawn, ignore_index, holder):
    count, parts = drawn
    room = {"held": Room(float("inf")), "packed": None, "file": Room(0)}[holder]
    with mh.Session("inline"):
        splits = [
            split_frame(
                part,
                column="_partitions",
                count=count,
                parts=None,
                ignore_index=ignore_index,
                room=room,
            )
            for part in parts
        ]
        joined = [
            join_frames(splits, number, ignore_index=ignore_index, empty=None)
            for number in range(count)
        ]
    for number, ours in enumerate(joined):
        chosen = [part[part._partitions == number] for part in parts]
        chosen = [part for part in chosen if len(part)] or [parts[0].iloc[:0]]
        theirs = dd.dispatch.concat(chosen, uniform=True, ignore_index=ignore_index)
        assert_frame_equal(ours, theirs.reset_index(drop=True) if ignore_index else theirs)


def test_codes_outside_are_taken_as_dask_takes_them():
    frame = pd.DataFrame({"x": range(4), "_partitions": [5, -1, 2, 0]})
    split = split_frame(
        frame, column="_partitions", count=3, parts=None, ignore_index=False, room=None
    )
    assert [
        list(split.get(part)["x"]) if split.get(part) is not None else None for part in range(3)
    ] == [
        [3],
        None,
        [0, 1, 2],
    ]


def test_what_is_joined_can_be_written():
    frame = pd.DataFrame({"x": [1.0, 2.0], "_partitions": [0, 0]})
    split = split_frame(
        frame, column="_partitions", count=1, parts=None, ignore_index=False, room=None
    )
    joined = join_frames([split], 0, ignore_index=False, empty=None)
    joined.iloc[0, 0] = 7.0
    assert joined.x.tolist() == [7.0, 2.0] and frame.x.tolist() == [1.0, 2.0]


# --- bags -------------------------------------------------------------------------


def list_groups(bag, **options):
    return {key: sorted(group) for key, group in bag.compute(**options)}


@pytest.mark.parametrize("partitions", [1, 2, 7])
@pytest.mark.parametrize("goal", [None, 1, 3])
def test_groups_of_a_bag(recorder, partitions, goal):
    bag = db.from_sequence(range(100), npartitions=partitions).groupby(
        operator.methodcaller("__mod__", 7), npartitions=goal
    )
    expected = {rest: list(range(rest, 100, 7)) for rest in range(7)}
    assert list_groups(bag, scheduler=recorder) == expected
    assert recorder.count("partd") == 0
    by_partition = [part.compute(scheduler=recorder) for part in bag.to_delayed()]
    theirs = [part.compute(scheduler="sync") for part in bag.to_delayed()]
    assert [sorted(key for key, _ in part) for part in by_partition] == [
        sorted(key for key, _ in part) for part in theirs
    ]


def test_groups_come_in_the_order_of_the_elements(recorder):
    bag = db.from_sequence(range(40, 0, -1), npartitions=13).groupby(lambda x: x % 3, npartitions=1)
    assert bag.compute(scheduler=recorder) == [
        (1, list(range(40, 0, -3))),
        (0, list(range(39, 0, -3))),
        (2, list(range(38, 0, -3))),
    ]


def test_groups_of_groups_and_what_follows(recorder):
    bag = (
        db.from_sequence(range(60), npartitions=5)
        .groupby(lambda x: x % 10)
        .map(lambda item: (item[0], len(item[1])))
        .groupby(lambda item: item[1])
        .map(lambda item: (item[0], sorted(key for key, _ in item[1])))
    )
    assert bag.compute(scheduler=recorder) == [(6, list(range(10)))]
    assert recorder.count("partd") == 0


def test_groups_by_an_index(recorder):
    bag = db.from_sequence([("a", 1), ("b", 2), ("a", 3)], npartitions=2).groupby(0)
    assert dict(bag.compute(scheduler=recorder)) == {"a": [("a", 1), ("a", 3)], "b": [("b", 2)]}


@pytest.mark.parametrize("name", ["partition", "collect"])
def test_other_functions_write_and_read_a_stand_in(recorder, monkeypatch, name):
    bag = db.from_sequence(range(20), npartitions=3).groupby(lambda x: x % 3)
    monkeypatch.setattr(f"dask.bag.core.{name}", None)  # as in a version where it is another one
    assert list_groups(bag, scheduler=recorder) == {
        rest: list(range(rest, 20, 3)) for rest in range(3)
    }
    assert recorder.count("partd") == 0


def test_elements_that_pickle_by_value_alone(recorder):
    bag = db.from_sequence([lambda: 1, lambda: 2, lambda: 3], npartitions=2)
    groups = bag.groupby(lambda function: function() % 2).compute(scheduler=recorder)
    assert {key: [f() for f in group] for key, group in groups} == {1: [1, 3], 0: [2]}


@given(st.one_of(st.integers(), st.floats(), st.text(), st.binary(), st.booleans(), st.none()))
def test_the_quick_hash_is_dasks(key):
    assert shuffle._hash(key) == tokenize(key)


def test_a_hash_that_differs_is_not_used(monkeypatch, recorder):
    bag = db.from_sequence(range(50), npartitions=3).groupby(abs)
    theirs = [part.compute(scheduler="sync") for part in bag.to_delayed()]
    monkeypatch.setattr(shuffle, "_hash", lambda key: "0")
    ours = [part.compute(scheduler=recorder) for part in bag.to_delayed()]
    assert [sorted(part) for part in ours] == [sorted(part) for part in theirs]


def test_a_graph_without_shuffles_stays(recorder):
    bag = db.from_sequence(range(4), npartitions=2).map(abs)
    assert bag.compute(scheduler=recorder) == [0, 1, 2, 3]


# --- what holds the pieces --------------------------------------------------------


def test_pieces_go_where_there_is_room():
    room = Room(100)
    with mh.Session(workers=1):
        first = keep({0: [1], 2: [3]}, 90, room)
        second = keep({0: [2], 3: ["a"]}, 20, room)
        assert (type(first), type(second)) == (Held, Stored)
        assert [second.get(part) for part in range(4)] == [[2], None, None, ["a"]]
        del first
        assert type(keep({}, 95, room)) is Held


def test_beyond_the_room_a_file_holds_them(tmp_path):
    with mh.Session("inline"), dask.config.set({"temporary_directory": str(tmp_path)}):
        kept = keep({5: np.arange(10.0), 7: "text"}, 1, Room(0))
    assert type(kept) is Packed and type(kept.buffer) is np.memmap
    assert kept.get(5).tolist() == list(range(10)) and kept.get(7) == "text"
    assert kept.get(6) is None and kept.get(8) is None
    assert not list(Path(tmp_path).iterdir())


def test_arrays_are_read_in_place():
    kept = keep({0: np.arange(10.0), 1: np.arange(3)}, 1, None)
    assert np.shares_memory(kept.get(0), kept.buffer)
    assert all(np.shares_memory(kept.get(part), kept.buffer) for part in (0, 1))


def test_the_limit_follows_the_memory(monkeypatch):
    from manyhands.core import machine

    memory = machine.Memory(None, None, None, available=400)
    monkeypatch.setattr(machine, "read_memory", lambda: memory)
    room = Room()
    assert not room.take(101) and room.take(100) and not room.take(1)


# --- in a session -----------------------------------------------------------------


def test_a_bag_is_grouped_in_a_session(session):
    bag = db.from_sequence(range(1000), npartitions=5).groupby(lambda x: x % 7)
    assert list_groups(bag) == {rest: list(range(rest, 1000, 7)) for rest in range(7)}


@pytest.mark.parametrize("on", ["threads", "workers"])
def test_frames_are_shuffled_in_a_session(session, on):
    source = make_frame()
    frame = dd.from_pandas(source, npartitions=4, sort=False)
    other = pd.DataFrame({"key": range(20), "weight": range(20)})
    merged = frame.merge(dd.from_pandas(other, npartitions=3), on="key", broadcast=False)
    applied = frame.groupby("key")[["value"]].apply(len, meta=("n", "i8"))
    indexed = frame.set_index("key", divisions=[0, 5, 10, 19])
    shuffled = frame.shuffle("name").map_partitions(len)
    found = dask.compute(merged, applied, indexed, shuffled, scheduler=mh.dask_scheduler, on=on)
    assert sorted(found[0].weight) == sorted(source.merge(other, on="key").weight)
    assert found[1].sort_index().to_dict() == source.groupby("key").size().to_dict()
    assert found[2].index.is_monotonic_increasing and len(found[2]) == 200
    assert sum(found[3]) == 200


def test_beyond_the_room_the_store_holds_a_shuffle(monkeypatch):
    monkeypatch.setattr(pieces, "_SHARE", 10**12)
    source = make_frame(5000)
    frame = dd.from_pandas(source, npartitions=4, sort=False).shuffle("key").map_partitions(len)
    with mh.Session(workers=1, store="1MB"):
        assert sum(frame.compute()) == 5000
