"""What goes wrong in a node: its own error comes, the other nodes end, and a lost worker loses nothing."""

import os
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path

import dask
import dask.array as da
import dask.bag as db
import pytest
from dask import delayed

import manyhands as mh
from manyhands.testing.checks import wait_for
from tests.local.processes import is_alive


@pytest.fixture(params=["inline", "threads", "local"])
def session(request: pytest.FixtureRequest) -> Iterator[mh.Session]:
    with mh.Session(request.param, workers=2) as session:
        yield session


@pytest.fixture(params=["threads", "workers"])
def on(request: pytest.FixtureRequest) -> str:
    place: str = request.param
    return place


class OwnError(Exception):
    """Of a user, with two arguments."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(what, number)
        self.number = number


def fail(number: int) -> int:
    raise OwnError("on purpose", number)


def test_the_error_of_a_node_comes_as_itself(session: mh.Session, on: str) -> None:
    with pytest.raises(OwnError, match="on purpose") as caught:
        delayed(abs)(delayed(fail)(7)).compute(on=on)
    assert caught.value.number == 7
    told = "".join(traceback.format_exception(caught.value))
    assert "in fail" in told and 'raise OwnError("on purpose", number)' in told


def test_the_traceback_is_that_of_users(session: mh.Session, on: str) -> None:
    """Dask leaves out what is its own, and what is ours."""
    with pytest.raises(OwnError) as caught:
        delayed(fail)(7).compute(on=on)
    frames = traceback.extract_tb(caught.value.__traceback__)
    outer = ["test_the_traceback_is_that_of_users", "compute", "compute"]
    assert [frame.name for frame in frames[:-1]] == outer
    if (session.engine, on) != ("local", "workers"):  # what those have seen is in a note
        assert frames[-1].name == "fail"


def test_an_error_inside_a_collection_comes_as_itself(session: mh.Session, on: str) -> None:
    numbers = db.range(10, npartitions=5).map(lambda x: 1 // (x - 4))
    with pytest.raises(ZeroDivisionError):
        numbers.sum().compute(on=on)
    assert db.range(4, npartitions=2).sum().compute(on=on) == 6


def test_after_the_first_error_no_other_node_runs(
    session: mh.Session, on: str, tmp_path: Path
) -> None:
    def mark(index: int) -> None:
        (tmp_path / str(index)).touch()

    with dask.annotate(priority=1):
        failing = delayed(fail)(0)
    others = [delayed(mark)(index) for index in range(40)]
    with pytest.raises(OwnError):
        dask.compute(*others, failing, on=on, num_workers=1)
    assert not list(tmp_path.iterdir())


def test_what_runs_is_stopped_when_another_fails(tmp_path: Path) -> None:
    def run_until_stopped() -> None:
        (tmp_path / "started").touch()
        try:
            wait_for(lambda: False, "that it is stopped", 100)
        finally:
            (tmp_path / "stopped").touch()

    def fail_beside() -> None:
        wait_for((tmp_path / "started").exists, "that the other runs")
        raise OwnError("beside", 1)

    with mh.Session("local", workers=2):
        with pytest.raises(OwnError):
            dask.compute(delayed(run_until_stopped)(), delayed(fail_beside)(), on="workers")
        wait_for((tmp_path / "stopped").exists, "that it is stopped")
        assert delayed(abs)(-1).compute(on="workers") == 1


def die_once(mark: Path, value: int) -> int:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return value
    os.kill(os.getpid(), signal.SIGKILL)
    return -1


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    with mh.Session("local", workers=2) as session:
        parts = [delayed(abs)(-index) for index in range(20)]
        middle = [delayed(die_once)(tmp_path / "mark", part) for part in parts]
        total = delayed(sum)([delayed(abs)(part) for part in middle])
        assert total.compute(retries=1) == sum(range(20))
        assert (tmp_path / "mark").exists()
        assert session.report().deaths == 1


def test_a_worker_that_dies_while_others_hold_their_values(tmp_path: Path) -> None:
    with mh.Session("local", workers=2) as session:
        array = da.ones((400, 400), chunks=100)

        def add(block: object) -> object:
            return block + die_once(tmp_path / "mark", 1)  # type: ignore[operator]

        doubled = array.map_blocks(add, dtype=float, meta=array._meta)
        assert (doubled + doubled.T).sum().compute(on="workers", retries=1) == 400 * 400 * 4
        assert session.report().deaths == 1


def test_a_node_that_kills_its_workers_is_given_up() -> None:
    with mh.Session("local", workers=2):
        with pytest.raises(mh.WorkerDiedError, match="SIGKILL"):
            delayed(os.kill)(delayed(os.getpid)(), signal.SIGKILL).compute(on="workers")
        assert delayed(abs)(-1).compute(on="workers") == 1


PROGRAM = """
import sys, os
from pathlib import Path
import dask
from dask import delayed
import manyhands as mh
from manyhands.testing.checks import wait_for

on, folder = sys.argv[1], Path(sys.argv[2])

def run(index):
    (folder / f"{os.getpid()}-{index}").touch()
    wait_for(lambda: False, "that it is stopped", 100)

with mh.Session("local", workers=2):
    try:
        dask.compute(*(delayed(run)(index) for index in range(10)), on=on)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_ends_it(on: str, tmp_path: Path) -> None:
    folder = tmp_path / "marks"
    folder.mkdir()
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), on, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: len(list(folder.iterdir())) >= 2, "that two nodes run")
        program.send_signal(signal.SIGINT)
        printed, errors = program.communicate(timeout=30)
    finally:
        program.kill()
    assert printed == "interrupted\n", errors
    pids = {int(mark.name.partition("-")[0]) for mark in folder.iterdir()}
    assert len(list(folder.iterdir())) == 2
    wait_for(lambda: not any(map(is_alive, pids)), "that all processes end")
