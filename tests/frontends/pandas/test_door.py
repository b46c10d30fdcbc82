"""What the door does beside giving the same results: workers, errors, faults, hints, names, imports."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import manyhands as mh
from manyhands.frontends.keeping import shutdown

IS_3 = int(pd.__version__.split(".")[0]) >= 3
FRAME = pd.DataFrame(
    {"k": np.arange(400) // 8, "a": np.arange(400), "b": np.arange(400) / 7},
    index=[f"r{i}" for i in range(400)],
)


def run_program(text: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- who does it ---------------------------------------------------------------------------


def test_workers_do_it(session: mh.Session) -> None:
    here = str(os.getpid())
    pid = lambda _: str(os.getpid())  # noqa: E731
    found = [
        FRAME.mh.apply(pid, axis=1),
        FRAME.mh.apply(pid, axis=1, raw=True),
        FRAME.mh.apply(pid),
        FRAME["a"].mh.map(pid),
        FRAME["a"].mh.apply(pid),
        FRAME[["a", "b"]].mh.map(pid)["a"],
        FRAME.mh.groupby("k")["a"].apply(pid),
        FRAME.mh.groupby("k")["a"].agg(pid),
        FRAME.mh.groupby("k")["a"].agg(["sum", pid]).iloc[:, 1],
        FRAME.mh.groupby("k").agg(x=("a", pid))["x"],
        FRAME.mh.groupby("k")["a"].transform(pid),
        FRAME["a"].mh.rolling(3, 1).apply(lambda _: os.getpid()).astype(int).astype(str),
        FRAME["a"].mh.expanding().apply(lambda _: os.getpid()).astype(int).astype(str),
    ]
    for pids in found:
        assert here not in set(pids), pids
        assert 1 <= pids.nunique() <= 2


def test_each_row_and_group_is_called_for_once(tmp_path: Path) -> None:
    calls: list[Any] = []
    with mh.Session("inline"):
        FRAME.mh.apply(lambda row: calls.append(row.name), axis=1)
        assert calls == FRAME.index.tolist()
        calls.clear()
        FRAME.mh.groupby("k")["a"].apply(lambda group: calls.append(group.name))
        assert calls == FRAME["k"].unique().tolist()


def test_calls_inside_calls(session: mh.Session) -> None:
    def count(group: Any) -> float:
        return float(group.mh.apply(lambda row: row["a"] * 2, axis=1).sum())

    found = FRAME[:80].mh.groupby("k")[["a", "b"]].apply(count)
    assert found.tolist() == [2.0 * FRAME["a"][i : i + 8].sum() for i in range(0, 80, 8)]


def test_columns_are_stored_once_and_read_where_they_are() -> None:
    frame = pd.DataFrame(np.zeros((100_000, 4)), columns=list("abcd"))
    with mh.Session("local", workers=2) as session:
        for _ in range(2):  # the same frame is known again
            assert (
                frame.mh.apply(lambda row: row.sum(), axis=1, raw=True).tolist() == [0.0] * 100_000
            )
            assert frame.mh.groupby(np.zeros(100_000))["a"].agg(lambda group: group.sum())[0] == 0
        stored = [fact.nbytes for fact in session.memory().values]
    assert sum(stored) <= 2 * 3_200_000 + 1_000_000, stored  # as it is, and sorted by groups


@pytest.mark.filterwarnings("ignore")  # what pandas 2 says of it is not the question
def test_what_a_function_changes_stays_with_it(session: mh.Session) -> None:
    frame = FRAME.copy()

    def change(part: Any) -> float:
        part["a"] = -1
        return float(part["b"].sum())

    frame.mh.apply(change, axis=1)
    frame.mh.groupby("k").apply(lambda group: change(group.copy()))
    frame["b"].mh.rolling(3).apply(lambda w: float(np.put(w, 0, -1) or w[1]), raw=True)
    pd.testing.assert_frame_equal(frame, FRAME)


# --- errors and faults ---------------------------------------------------------------------


def test_the_first_error_in_order_comes_as_itself(session: mh.Session) -> None:
    def fail(row: Any) -> None:
        if row["a"] >= 123:
            raise LookupError(row.name)

    with pytest.raises(LookupError, match="r123") as caught:
        FRAME.mh.apply(fail, axis=1)
    notes = "\n".join(caught.value.__notes__)
    assert "in row 'r123'" in notes
    assert "raise LookupError(row.name)" in notes, "the traceback of the worker"


def test_errors_name_the_group_the_element_the_column_and_the_window(session: mh.Session) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    for words, run in {
        "in group 0": lambda: FRAME.mh.groupby("k").apply(fail),
        "in element 0": lambda: FRAME["a"].mh.map(fail),
        "in column 'k'": lambda: FRAME.mh.apply(fail),
        "in window 2, of the rows from 0 to before 3": lambda: FRAME["a"].mh.rolling(3).apply(fail),
    }.items():
        with pytest.raises(ZeroDivisionError) as caught:
            run()
        assert words in caught.value.__notes__


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "killed"

    def strike(number: int) -> int:
        if number == 200 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * 2

    with mh.Session("local", workers=2) as session:
        found = FRAME.mh.apply(lambda row: strike(int(row["a"])), axis=1)
        assert found.tolist() == [2 * i for i in range(400)]
        mark.unlink()
        groups = FRAME.mh.groupby("k")["a"].apply(lambda group: strike(int(group.iloc[0])))
        assert groups.tolist() == [2 * i for i in range(0, 400, 8)]
        assert session.report().deaths == 2


def test_what_kills_every_worker_is_given_up_and_named() -> None:
    with mh.Session("local", workers=2), pytest.raises(mh.WorkerDiedError):
        FRAME.mh.apply(lambda row: os.kill(os.getpid(), signal.SIGKILL), axis=1)


def test_a_frame_that_cannot_travel_says_so(session: mh.Session) -> None:
    frame = pd.DataFrame({"a": [1, 2], "o": [sys.stdout, sys.stdout]})
    with pytest.raises(mh.UnpicklableError):
        frame.mh.apply(lambda row: 1, axis=1)


# --- hints ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # what pandas 2 says of it is not the question
def test_the_report_hints_at_what_pandas_does_faster() -> None:
    with mh.Session("inline") as session:
        FRAME.mh.apply(lambda row: row["a"], axis=1)
        assert session.report().hints == ()
        FRAME.mh.apply("sum", axis=1)  # pandas does that at once
        FRAME.mh.groupby("k")["a"].agg(np.sum)
        assert session.report().hints == ()
        for _ in range(2):
            FRAME["a"].mh.map(str)
            FRAME.mh.apply(np.mean, axis=1)
        report = session.report()
    hints = "\n".join(report.hints)
    assert len(report.hints) == 2
    assert all(name in hints for name in ("str", "mean"))
    assert str(report).count("Hint: ") == 2


# --- names ---------------------------------------------------------------------------------


def test_names_of_pandarallel() -> None:
    text = """
import pandas as pd, manyhands as mh
frame = pd.DataFrame({"k": [1, 1, 2, 2], "a": [1.0, 2.0, 3.0, 4.0]})
assert not hasattr(frame, "parallel_apply")
mh.pandas.install(nb_workers=2, progress_bar=False, verbose=0, use_memory_fs=False)
double, total = (lambda x: x * 2), (lambda w: w.sum())
for found, expected in [
    (frame.parallel_apply(lambda row: row["a"], axis=1), frame["a"]),
    (frame.parallel_applymap(double), frame * 2),
    (frame.parallel_map(double), frame * 2),
    (frame["a"].parallel_map(double), frame["a"] * 2),
    (frame["a"].parallel_apply(double), frame["a"] * 2),
    (frame.groupby("k")["a"].parallel_apply(total), frame.groupby("k")["a"].apply(total)),
    (frame["a"].rolling(2).parallel_apply(total), frame["a"].rolling(2).apply(total)),
    (frame["a"].expanding().parallel_apply(total), frame["a"].expanding().apply(total)),
    (frame.groupby("k")["a"].rolling(2).parallel_apply(total),
     frame.groupby("k")["a"].rolling(2).apply(total)),
    (frame.groupby("k").a.expanding().parallel_apply(total),
     frame.groupby("k").a.expanding().apply(total)),
]:
    assert type(found) is type(expected)
    (found.to_frame() if found.ndim == 1 else found).equals(expected) or found.equals(expected)
    assert found.equals(expected), (found, expected)
print("equal")
"""
    assert run_program(text) == "equal\n"


def test_nb_workers_are_those_that_do_it_and_the_bar_is_shown(
    capfd: pytest.CaptureFixture[str],
) -> None:
    mh.pandas.install(nb_workers=1, progress_bar=True)
    try:
        series: Any = FRAME["a"]
        assert series.parallel_map(lambda _: os.getpid()).nunique() == 1
        assert "400" in capfd.readouterr().err
    finally:
        mh.pandas.install()
        shutdown()


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_a_number_of_workers_is_one(number: Any) -> None:
    with pytest.raises(mh.InvalidArgumentError, match="nb_workers"):
        mh.pandas.install(nb_workers=number)


# --- imports -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "imports", ["import pandas, manyhands", "import manyhands, pandas", "import manyhands as mh"]
)
def test_the_accessor_is_there_in_either_order(imports: str) -> None:
    text = f"{imports}\nimport sys\nassert ('pandas' in sys.modules) == ('pandas' in {imports!r})\n"
    text += "import pandas as pd\nprint(pd.Series([1, 2]).mh.map(lambda x: x + 1).tolist())"
    assert run_program(text, MANYHANDS_ENGINE="inline") == "[2, 3]\n"


def test_without_pandas_the_name_says_what_to_install() -> None:
    text = """
import sys
sys.modules["pandas"] = None
del sys.modules["pandas"]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name="pandas")
sys.meta_path.insert(0, Absent())
import manyhands as mh
sys.meta_path.insert(0, Absent())
try:
    mh.pandas.install()
except mh.DoorNotInstalledError as error:
    print(error)
"""
    assert "pip install 'manyhands[pandas]'" in run_program(text)


@pytest.mark.skipif(IS_3, reason="pandas 3 knows the engines of others")
def test_the_engine_of_pandas_2_points_to_the_accessor() -> None:
    with pytest.raises(mh.UnsupportedError, match=r"df\.mh"):
        _ = mh.pandas.__pandas_udf__
