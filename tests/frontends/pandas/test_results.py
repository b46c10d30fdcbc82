"""Results equal those of pandas: values, types, labels, names and order."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal, assert_series_equal

import manyhands as mh

ROWS = 60
IS_3 = int(pd.__version__.split(".")[0]) >= 3


def make_frame() -> pd.DataFrame:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "k": chance.integers(0, 7, ROWS),
            "j": chance.choice(list("abc"), ROWS),
            "a": np.arange(ROWS),
            "b": chance.random(ROWS),
            "c": [f"text {i}" for i in range(ROWS)],
            "t": pd.date_range("2020-03-28", periods=ROWS, freq="h", tz="Europe/Vienna"),
            "cat": pd.Categorical(chance.choice(["u", "v", None], ROWS)),
            "n": pd.array([None if i % 5 == 0 else i for i in range(ROWS)], "Int64"),
            "s": pd.array([None if i % 7 == 0 else str(i) for i in range(ROWS)], "string"),
            "w": pd.array([None if i % 4 == 0 else i for i in range(ROWS)], "int64[pyarrow]"),
            "o": [None, 1, "x", 2.5, (1, 2), [3]] * (ROWS // 6),
        }
    )
    frame.loc[5:11, "b"] = np.nan
    return frame


FRAME = make_frame()
NUMBERS = FRAME[["a", "b"]]
LABELLED = NUMBERS.set_axis([i // 2 for i in range(ROWS)]).set_axis(
    pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["l", None]), axis=1
)


def check(expected: Any, found: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, pd.DataFrame):
        assert_frame_equal(found, expected)
        assert type(found.index) is type(expected.index)
        assert type(found.columns) is type(expected.columns)
    else:
        if any(isinstance(value, pd.Series) for value in expected):  # which pandas cannot compare
            assert list(map(repr, found)) == list(map(repr, expected))
            found, expected = (one.map(type) for one in (found, expected))
        assert_series_equal(found, expected)
        assert type(found.index) is type(expected.index)
    assert found.attrs == expected.attrs


def give_plain(whole: Any) -> Any:
    return whole


def give_ours(whole: Any) -> Any:
    return whole.mh


def choose(row: Any) -> Any:
    """Results of several types, and none at first."""
    number = int(row["a"])
    return None if number < 20 else (number if number % 3 else f"{number}")


def lose(group: Any) -> Any:
    return None if group.name % 3 == 0 else group.iloc[:2]


def mix(group: Any) -> Any:
    """Other labels from group to group."""
    return pd.Series({"even" if group.name % 2 else "odd": group["a"].sum(), "size": len(group)})


def widen(group: Any, by: float = 1.0, *, shift: float = 0.0) -> Any:
    return (group["b"].max() - group["b"].min()) * by + shift


Case = Callable[[Callable[[Any], Any]], Any]
ROW_CASES: dict[str, Case] = {
    "numbers": lambda of: of(NUMBERS).apply(lambda row: row["a"] + row["b"], axis=1),
    "integers": lambda of: of(FRAME).apply(lambda row: row["a"] * 2, axis=1),
    "texts": lambda of: of(FRAME).apply(lambda row: row["c"] + "!", axis="columns"),
    "bools": lambda of: of(FRAME).apply(lambda row: row["b"] > 0.5, axis=1),
    "dates": lambda of: of(FRAME).apply(lambda row: row["t"], axis=1),
    "missing": lambda of: of(FRAME).apply(lambda row: row["n"], axis=1),
    "none": lambda of: of(FRAME).apply(lambda row: None, axis=1),
    "mixed": lambda of: of(FRAME).apply(choose, axis=1),
    "integers, then floats": lambda of: of(FRAME).apply(
        lambda row: row["a"] if row["a"] < 40 else row["b"], axis=1
    ),
    "lists": lambda of: of(FRAME).apply(lambda row: [row["a"], row["b"]], axis=1),
    "lists expanded": lambda of: of(FRAME).apply(
        lambda row: [row["a"], row["c"]], axis=1, result_type="expand"
    ),
    "lists broadcast": lambda of: of(NUMBERS).apply(
        lambda row: [1, 2], axis=1, result_type="broadcast"
    ),
    "series reduced": lambda of: of(NUMBERS).apply(
        lambda row: row * 2, axis=1, result_type="reduce"
    ),
    "dicts": lambda of: of(FRAME).apply(lambda row: {"a": row["a"]}, axis=1),
    "the row": lambda of: of(FRAME).apply(lambda row: row, axis=1),
    "the row of numbers": lambda of: of(NUMBERS).apply(lambda row: row * 2, axis=1),
    "series": lambda of: of(FRAME).apply(
        lambda row: pd.Series({"q": row["a"], "r": row["c"]}), axis=1
    ),
    "series of integers": lambda of: of(FRAME).apply(
        lambda row: pd.Series([row["a"], 1], index=pd.Index(["x", "y"], name="of")), axis=1
    ),
    "series of other labels": lambda of: of(FRAME).apply(
        lambda row: pd.Series({"q" if row["a"] % 2 else "r": row["a"]}), axis=1
    ),
    "repeated labels": lambda of: of(LABELLED).apply(lambda row: row.sum(), axis=1),
    "repeated labels, series": lambda of: of(LABELLED).apply(lambda row: row + 1, axis=1),
    "names": lambda of: of(LABELLED).apply(lambda row: row.name, axis=1),
    "arrays": lambda of: of(NUMBERS).apply(lambda row: row.sum(), axis=1, raw=True),
    "arrays to arrays": lambda of: of(NUMBERS).apply(lambda row: row * 2, axis=1, raw=True),
    "arrays of objects": lambda of: of(FRAME).apply(lambda row: str(row[2]), axis=1, raw=True),
    "nullable": lambda of: of(FRAME[["n", "n"]]).apply(lambda row: row.iloc[0], axis=1),
    "arrow": lambda of: of(FRAME[["w"]]).apply(lambda row: row["w"], axis=1),
    "columns": lambda of: of(NUMBERS).apply(lambda column: column.max() - column.min()),
    "columns to columns": lambda of: of(NUMBERS).apply(lambda column: column + 1),
    "columns as arrays": lambda of: of(FRAME[["a", "c"]]).apply(
        lambda column: str(column[3]), raw=True
    ),
    "all columns": lambda of: of(FRAME).apply(lambda column: column.iloc[1]),
    "arguments": lambda of: of(NUMBERS).apply(
        lambda row, by, shift: row["a"] * by + shift, axis=1, args=(2,), shift=3
    ),
    "no rows": lambda of: of(FRAME.iloc[:0]).apply(lambda row: row["a"], axis=1),
    "no columns": lambda of: of(FRAME.iloc[:, :0]).apply(lambda row: 1, axis=1),
    "one row": lambda of: of(FRAME.iloc[:1]).apply(lambda row: row["a"], axis=1),
    "a text": lambda of: of(NUMBERS).apply("sum", axis=1),
    "a list": lambda of: of(NUMBERS).apply(["sum", "max"]),
    "a ufunc": lambda of: of(NUMBERS).apply(np.sqrt),
}
ELEMENT_CASES: dict[str, Case] = {
    **{
        f"column {name}": lambda of, name=name: of(FRAME[name]).map(
            lambda x: f"{type(x).__name__} {x}"
        )
        for name in FRAME.columns
    },
    **{
        f"present in {name}": lambda of, name=name: of(FRAME[name]).map(str, na_action="ignore")
        for name in FRAME.columns
    },
    "a dict": lambda of: of(FRAME["j"]).map({"a": 1, "b": 2}),
    "a period": lambda of: of(FRAME["t"].dt.tz_localize(None).dt.to_period("D")).map(
        lambda day: day + 1
    ),
    "sparse": lambda of: of(FRAME["a"].astype(pd.SparseDtype("int", 0))).map(lambda x: x + 1),
    "no elements": lambda of: of(FRAME["a"].iloc[:0]).map(lambda x: x),
    "applied": lambda of: of(FRAME["b"]).apply(lambda x, y: x + y, args=(3,)),
    "applied by keyword": lambda of: of(FRAME["b"]).apply(lambda x, y: x + y, y=3),
    "applied to all": lambda of: of(FRAME["b"]).apply(lambda whole: whole + 1, by_row=False),
    "series": lambda of: of(FRAME["b"]).apply(lambda x: pd.Series([x, 2], index=["p", "q"])),
    "a frame": lambda of: of(FRAME[["a", "b", "c"]]).map(str),
    "a frame, present": lambda of: of(FRAME).map(lambda x: f"({x})", na_action="ignore"),
}
GROUP_CASES: dict[str, Case] = {
    "numbers": lambda of: of(FRAME).groupby("k").apply(widen),
    "arguments": lambda of: of(FRAME).groupby("k").apply(widen, 2.0, shift=1.0),
    "frames": lambda of: of(FRAME).groupby("k").apply(lambda group: group.head(2)),
    "frames without keys": lambda of: (
        of(FRAME).groupby("k", group_keys=False).apply(lambda group: group.assign(z=group.name))
    ),
    "like frames": lambda of: of(FRAME).groupby("k").apply(lambda group: group[["a", "b"]] * 2),
    "some none": lambda of: of(FRAME).groupby("k").apply(lose),
    "series": lambda of: (
        of(FRAME)
        .groupby("k")
        .apply(lambda group: pd.Series({"a": group["a"].sum(), "b": group["b"].mean()}))
    ),
    "series of other labels": lambda of: of(FRAME).groupby("k").apply(mix),
    "columns": lambda of: of(FRAME).groupby("k").apply(lambda group: group["b"].cumsum()),
    "lists": lambda of: of(FRAME).groupby("k").apply(lambda group: group["a"].tolist()),
    "keys of two": lambda of: of(FRAME).groupby(["k", "j"]).apply(widen),
    "keys as columns": lambda of: of(FRAME).groupby(["k", "j"], as_index=False).apply(widen),
    "not sorted": lambda of: of(FRAME).groupby("j", sort=False).apply(widen),
    "missing keys": lambda of: of(FRAME).groupby("cat", observed=True, dropna=False).apply(widen),
    "dropped keys": lambda of: of(FRAME).groupby("n")["b"].apply(lambda group: group.sum()),
    "absent categories": lambda of: (
        of(FRAME.assign(cat=FRAME["cat"].cat.add_categories("z")))
        .groupby("cat", observed=False)["b"]
        .apply(lambda group: group.sum())
    ),
    "levels": lambda of: of(LABELLED).groupby(level=0).apply(lambda group: group.sum()),
    "by a function": lambda of: of(NUMBERS).groupby(lambda label: label % 3).apply(widen),
    "by days": lambda of: (
        of(FRAME.set_index("t")).groupby(pd.Grouper(freq="D")).apply(lambda group: group["a"].sum())
    ),
    "a column": lambda of: of(FRAME).groupby("k")["b"].apply(lambda group: group.nlargest(2)),
    "an attribute": lambda of: of(FRAME).groupby("k").b.apply(lambda group: group.sum()),
    "a series": lambda of: of(FRAME["b"]).groupby(FRAME["k"]).apply(lambda group: group.mean()),
    "no groups": lambda of: of(FRAME.iloc[:0]).groupby("k")["b"].apply(lambda group: group.sum()),
    "one group": lambda of: of(FRAME).groupby(np.zeros(ROWS))["b"].apply(lambda group: group.sum()),
    "agg": lambda of: of(FRAME).groupby("k")["b"].agg(lambda group: group.max() - group.min()),
    "agg of columns": lambda of: of(FRAME).groupby("k")[["a", "b"]].agg(lambda g: g.iloc[0]),
    "agg by two": lambda of: of(FRAME).groupby(["k", "j"])[["a", "b"]].agg(lambda g: g.iloc[-1]),
    "agg, arguments": lambda of: of(FRAME).groupby("k")[["a"]].agg(lambda g, n: g.iloc[n], 0),
    "agg of a list": lambda of: (
        of(FRAME)
        .groupby("k")["b"]
        .aggregate(["sum", lambda group: group.iloc[0], lambda group: group.iloc[-1]])
    ),
    "agg of a dict": lambda of: (
        of(FRAME)
        .groupby("k")
        .agg(
            {"a": ["sum", lambda group: group.iloc[0]], "b": lambda group: group.mean(), "c": "max"}
        )
    ),
    "agg by names": lambda of: (
        of(FRAME).groupby("k").agg(u=("a", lambda group: group.iloc[0]), v=pd.NamedAgg("b", "sum"))
    ),
    "agg by a text": lambda of: of(FRAME).groupby("k")[["a", "b"]].agg("mean"),
    "agg with what falls back": lambda of: (
        of(FRAME[["k", "a"]].assign(o=FRAME["b"].astype(object)))
        .groupby("k")
        .agg({"o": "mean", "a": lambda group: group.sum()})
    ),
    "transform": lambda of: of(FRAME).groupby("k")["b"].transform(lambda group: group.rank()),
    "transform frames": lambda of: (
        of(FRAME).groupby("k")[["a", "b"]].transform(lambda group: group - group.mean())
    ),
    "transform to one": lambda of: (
        of(FRAME).groupby("k")[["a", "b"]].transform(lambda group: group.max())
    ),
    "transform columns": lambda of: (
        of(FRAME)
        .groupby("k")[["a", "b"]]
        .transform(lambda column: column - column.loc[column.index[0]])
    ),
    "transform absent categories": lambda of: (
        of(FRAME.assign(cat=FRAME["cat"].cat.set_categories(["z", "u", "v"])))
        .groupby("cat", observed=False)[["a", "b"]]
        .transform(lambda group: group / len(group))
    ),
    "transform by a text": lambda of: of(FRAME).groupby("k")["b"].transform("cumsum"),
}
WINDOW_CASES: dict[str, Case] = {
    "rolling": lambda of: of(FRAME["b"]).rolling(5).apply(lambda w: w.iloc[-1] - w.iloc[0]),
    "few": lambda of: of(NUMBERS).rolling(5, min_periods=2).apply(lambda w: w.sum()),
    "centred": lambda of: (
        of(NUMBERS).rolling(4, center=True, closed="both").apply(lambda w: w.sum(), raw=True)
    ),
    "steps": lambda of: of(NUMBERS).rolling(5, step=3).apply(len),
    "times": lambda of: (
        of(FRAME.set_index("t")[["a", "b"]])
        .rolling("3h", closed="left")
        .apply(lambda w: w.index[0].hour)
    ),
    "on": lambda of: of(FRAME[["t", "a"]]).rolling("2h", on="t").apply(lambda w: w.sum()),
    "forward": lambda of: (
        of(FRAME["a"])
        .rolling(pd.api.indexers.FixedForwardWindowIndexer(window_size=3))
        .apply(lambda w: w.iloc[0])
    ),
    "arguments": lambda of: (
        of(FRAME["a"])
        .rolling(3)
        .apply(lambda w, by, shift: w.sum() * by + shift, args=(2,), kwargs={"shift": 1})
    ),
    "expanding": lambda of: of(FRAME["b"]).expanding(3).apply(lambda w: w.max()),
    "none long enough": lambda of: of(FRAME["b"]).rolling(ROWS + 1).apply(lambda w: 1.0),
    "no rows": lambda of: of(FRAME["b"].iloc[:0]).rolling(2).apply(lambda w: 1.0),
    "of groups": lambda of: (
        of(FRAME).groupby("k")["b"].rolling(3, min_periods=1).apply(lambda w: w.mean())
    ),
    "of groups, times": lambda of: (
        of(FRAME[["k", "t", "a"]]).groupby("k").rolling("5h", on="t").apply(len)
    ),
    "expanding of groups": lambda of: (
        of(FRAME).groupby("k")[["a", "b"]].expanding().apply(lambda w: w[0], raw=True)
    ),
    "a column of windows": lambda of: of(NUMBERS).rolling(2)["a"].apply(lambda w: w.sum()),
}


def flatten(**kinds: dict[str, Case]) -> list[Any]:
    return [
        pytest.param(case, id=f"{kind}: {name}")
        for kind, cases in kinds.items()
        for name, case in cases.items()
    ]


# What pandas itself warns of in some of these is not the question here.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "case",
    flatten(rows=ROW_CASES, elements=ELEMENT_CASES, groups=GROUP_CASES, windows=WINDOW_CASES),
)
def test_it_is_what_pandas_gives(session: mh.Session, case: Case) -> None:
    expected = case(give_plain)
    check(expected, case(give_ours))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["inline", "threads"])
@pytest.mark.parametrize("kind", ["rows", "elements", "groups", "windows"])
def test_other_engines_give_the_same(session: mh.Session, engine: str, kind: str) -> None:
    cases = {
        "rows": ROW_CASES,
        "elements": ELEMENT_CASES,
        "groups": GROUP_CASES,
        "windows": WINDOW_CASES,
    }
    with mh.Session(engine, workers=2):
        for case in cases[kind].values():
            check(case(give_plain), case(give_ours))


@pytest.mark.skipif(not IS_3, reason="pandas 2 knows no engines of others")
@pytest.mark.parametrize("name", [name for name in ROW_CASES if "broadcast" not in name])
def test_the_engine_gives_the_same(session: mh.Session, name: str) -> None:
    if "expanded" in name or "reduced" in name:
        with pytest.raises(NotImplementedError, match="result_type"):
            ROW_CASES[name](give_engine)
        return
    check(ROW_CASES[name](give_plain), ROW_CASES[name](give_engine))


@pytest.mark.skipif(not IS_3, reason="pandas 2 knows no engines of others")
@pytest.mark.parametrize("name", FRAME.columns)
def test_the_engine_gives_the_same_of_elements(session: mh.Session, name: str) -> None:
    for action in (None, "ignore"):
        expected = FRAME[name].map(str, na_action=action)
        check(expected, FRAME[name].map(str, na_action=action, engine=mh.pandas))


class give_engine:
    """A frame whose `apply` is given our engine."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def apply(self, func: Any, axis: Any = 0, **kwargs: Any) -> Any:
        return self.frame.apply(func, axis, engine=mh.pandas, **kwargs)


def test_attributes_stay(session: mh.Session) -> None:
    frame = NUMBERS.copy()
    frame.attrs["of"] = "these"
    check(frame.apply(lambda row: row["a"], axis=1), frame.mh.apply(lambda row: row["a"], axis=1))
    check(frame.apply(lambda row: row * 2, axis=1), frame.mh.apply(lambda row: row * 2, axis=1))


class Special(pd.DataFrame):
    """A frame of a class of its own."""

    @property
    def _constructor(self) -> Any:
        return Special


@pytest.mark.filterwarnings("ignore")  # pandas 2 says that groups have their keys
def test_classes_stay(session: mh.Session) -> None:
    frame = Special(NUMBERS)
    check(frame.apply(lambda row: row * 2, axis=1), frame.mh.apply(lambda row: row * 2, axis=1))
    found = frame.mh.groupby("a").apply(lambda group: group.head(1))
    check(frame.groupby("a").apply(lambda group: group.head(1)), found)


VALUES = st.one_of(
    st.none(), st.integers(-9, 9), st.floats(width=16), st.text("ab", max_size=2), st.booleans()
)
COLUMN = st.one_of(
    st.lists(st.integers(-5, 5), min_size=12, max_size=12),
    st.lists(st.floats(width=16), min_size=12, max_size=12),
    st.lists(VALUES, min_size=12, max_size=12),
)
RESULTS = st.lists(
    st.one_of(
        VALUES,
        VALUES.map(lambda value: [value, value]),
        VALUES.map(lambda value: pd.Series({"x": value, "y": value})),
        st.integers(0, 9).map(np.int64),
        st.floats(width=16).map(np.float64),
    ),
    min_size=12,
    max_size=12,
)
BRIEF = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def compare(case: Case) -> None:
    """The same result, or the same kind of error."""
    try:
        expected = case(give_plain)
    except Exception as error:
        with pytest.raises(type(error)):
            case(give_ours)
    else:
        check(expected, case(give_ours))


@pytest.mark.filterwarnings("ignore")
@BRIEF
@given(columns=st.lists(COLUMN, min_size=1, max_size=3), rows=st.integers(0, 12))
def test_any_frame(session: mh.Session, columns: list[list[Any]], rows: int) -> None:
    frame = pd.DataFrame({place: column[:rows] for place, column in enumerate(columns)})
    compare(lambda of: of(frame).apply(lambda row: row.iloc[0], axis=1))
    compare(lambda of: of(frame).apply(lambda row: row, axis=1))
    compare(lambda of: of(frame).apply(lambda column: column.iloc[0]))
    compare(lambda of: of(frame).map(lambda x: x))
    compare(lambda of: of(frame).groupby(0).apply(lambda group: group.iloc[0]))
    compare(lambda of: of(frame).groupby(0).apply(lambda group: group.iloc[::-1]))


@pytest.mark.filterwarnings("ignore")
@BRIEF
@given(results=RESULTS, rows=st.integers(1, 12), keys=st.lists(st.integers(0, 3), min_size=12))
def test_any_results(session: mh.Session, results: list[Any], rows: int, keys: list[int]) -> None:
    frame = pd.DataFrame({"k": keys[:rows], "i": range(rows)})
    compare(lambda of: of(frame).apply(lambda row: results[row["i"]], axis=1))
    compare(lambda of: of(frame).apply(lambda row: results[row["i"]], axis=1, result_type="expand"))
    compare(lambda of: of(frame["i"]).map(lambda i: results[i]))
    compare(lambda of: of(frame["i"]).apply(lambda i: results[i]))
    compare(lambda of: of(frame).groupby("k").apply(lambda group: results[group["i"].iloc[0]]))
    compare(lambda of: of(frame).groupby("k")["i"].agg(lambda group: results[group.iloc[0]]))
    compare(lambda of: of(frame["i"]).rolling(2).apply(lambda w: results[int(w.iloc[0])]))


@pytest.mark.parametrize("keys", ["number", "real", ["number", "real"]])
def test_names_of_groups_are_what_pandas_makes_them(session: mh.Session, keys: Any) -> None:
    frame = pd.DataFrame({"number": [1, 1, 2], "real": [0.5, 0.5, 1.5], "text": list("abc")})
    expected = frame.groupby(keys)["text"].apply(lambda group: repr(group.name))
    found = frame.mh.groupby(keys)["text"].apply(lambda group: repr(group.name))
    pd.testing.assert_series_equal(found, expected)
