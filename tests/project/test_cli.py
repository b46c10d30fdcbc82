"""The ``manyhands`` command, run as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import manyhands
from manyhands.cli.doctor import examine_worker

GOOD = """\
import os, sys
from xml.dom import minidom

def simple(x):
    return x

class Thing:
    def branchy(self, a, b):
        if a and b:
            return [x for x in a if x]
"""


def run(*arguments: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "manyhands", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def run_json(*arguments: str) -> dict[str, Any]:
    """Output of a command that succeeds and prints data alone."""
    done = run(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree [x]"
    (root / "package" / "__pycache__").mkdir(parents=True)
    (root / "good.py").write_text(GOOD)
    (root / "package" / "empty.py").write_text("")
    (root / "package" / "other.py").write_text("import os\n")
    (root / "package" / "broken.py").write_text("x = 1\ndef (:\n")
    (root / "package" / "__pycache__" / "cached.py").write_text("import cached\n")
    (root / "package" / "notes.txt").write_text("import notes\n")
    (root / "package" / "folder.py").mkdir()
    (root / "package" / "nowhere.py").symlink_to(root / "absent.py")
    return root


def test_demo_prints_data(tree: Path) -> None:
    answer = run_json("demo", "--path", str(tree), "--workers", "2")
    assert answer["roots"] == [str(tree)]
    assert (answer["files"], answer["lines"], answer["functions"]) == (4, 13, 2)
    assert answer["most_complex"] == [
        {"complexity": 5, "name": "Thing.branchy", "path": str(tree / "good.py"), "line": 8},
        {"complexity": 1, "name": "simple", "path": str(tree / "good.py"), "line": 4},
    ]
    assert answer["most_imported"] == [
        {"module": "os", "files": 2},
        {"module": "sys", "files": 1},
        {"module": "xml", "files": 1},
    ]
    [unparsed] = answer["unparsed"]
    assert unparsed["path"] == str(tree / "package" / "broken.py")
    assert unparsed["reason"].startswith("SyntaxError: ")
    assert unparsed["reason"].endswith("(line 2)")
    assert answer["workers"] == 2
    assert answer["results_equal"] is True
    assert answer["speedup"] == answer["plain_loop_seconds"] / answer["wall_seconds"]
    assert answer["report"]["failed"] == 0


def test_demo_prints_tables(tree: Path) -> None:
    done = run("demo", "--path", str(tree))
    assert done.returncode == 0, done.stderr
    for words in (
        "4 files, 13 lines, 2 functions",
        "Thing.branchy",
        "tree [x]/good.py:8",
        "1 of these files does not parse:",
        "package/broken.py: SyntaxError: ",
        "plain loop",
        "speed-up",
        "computing",
        "moving data",
        "waiting",
        "starting",
        "the same results for every file",
    ):
        assert words in done.stdout
    assert "Examining 4 Python files" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--path", "no/such/folder"], "no/such/folder does not exist"),
        (["demo", "--path", __file__], "is not a directory"),
        (["demo", "--workers", "0"], "give 1 or more"),
        (["demo", "--workers", "many"], "'many' is not a number of workers"),
        (["dance"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_arguments(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_of_a_folder_without_python_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    done = run("demo", "--path", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"manyhands: no Python file below {tmp_path}\n"


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout == f"manyhands {manyhands.__version__}\n"


def test_doctor_prints_data() -> None:
    answer = run_json("doctor")
    assert answer["works"] is True
    assert answer["problem"] is None
    assert 1 <= answer["cpus"]["usable"] <= answer["cpus"]["machine"]
    assert "local" in {engine["name"] for engine in answer["engines"] if engine["available"]}
    assert answer["threads"]["OMP_NUM_THREADS"]["workers"] is not None
    trial = answer["trial"]
    assert (trial["engine"], trial["start_method"]) == ("local", "fork")
    assert trial["workers"] == answer["cpus"]["usable"]
    assert 0 < trial["round_trip_seconds"] < trial["start_seconds"]
    store = trial["store"]
    assert 0 < store["limit"] < answer["memory"]["machine"]
    assert store["disk_limit"] >= 0
    assert Path(store["folder"]).is_dir()
    assert store["problem"] is None


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_doctor_sees_how_a_worker_was_made(method: str) -> None:
    with manyhands.Session("local", workers=1, start_method=method) as session:
        worker = session.submit(examine_worker).result(timeout=60)
    assert (worker.start_method, worker.pid != os.getpid()) == (method, True)


def test_doctor_prints_words() -> None:
    done = run("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "cores",
        "memory",
        "round trip",
        "start method",
        "1.0 MiB shared with a worker and freed",
        "spill",
        "OMP_NUM_THREADS",
        "local",
    ):
        assert words in done.stdout


def test_doctor_of_an_engine_without_a_store(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from manyhands.cli.main import main

    monkeypatch.setenv("MANYHANDS_ENGINE", "inline")
    assert main(["doctor"]) == 0
    assert "none: the engine inline hands over the objects themselves" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trial"]["store"] is None


def test_doctor_says_when_values_cannot_be_shared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from manyhands.cli.main import main

    def refuse(self: object, value: object) -> None:
        raise manyhands.StoreFullError("no room")

    monkeypatch.setattr(manyhands.Session, "put", refuse)
    assert main(["doctor", "--json"]) == 1
    output = capsys.readouterr()
    answer = json.loads(output.out)
    assert (answer["works"], answer["trial"]["store"]["problem"]) == (
        False,
        "StoreFullError: no room",
    )
    assert output.err == (
        "manyhands: the engine does not work here: large values cannot be shared: StoreFullError: no room\n"
    )


def test_doctor_says_when_the_engine_does_not_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from manyhands.cli import doctor
    from manyhands.cli.main import main

    def fail() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(doctor, "try_engine", fail)
    assert main(["doctor"]) == 1
    output = capsys.readouterr()
    assert "cores" in output.out
    assert output.err == (
        "manyhands: the engine does not work here: OSError: [Errno 24] Too many open files\n"
    )
