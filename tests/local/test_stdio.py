"""What workers print, log and warn reaches the parent's streams: whole lines, before the result."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import manyhands as mh
from manyhands.testing.checks import LIMIT
from tests.local.processes import run_python, run_script, write_script


def write_raw(fd: int, text: str) -> int:
    return os.write(fd, text.encode())


def say(text: str, stream: str = "stdout", end: str = "\n") -> None:
    print(text, file=getattr(sys, stream), end=end)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_pytest_sees_lines_before_the_result_is_there(
    capsys: pytest.CaptureFixture[str], start_method: str
) -> None:
    with mh.Session("local", workers=2, start_method=start_method) as session:
        for number in range(50):
            session.submit(say, f"line {number}").result(LIMIT)
            assert capsys.readouterr().out == f"line {number}\n"
            session.submit(say, f"line {number}", "stderr").result(LIMIT)
            assert capsys.readouterr().err == f"line {number}\n"
        session.map(say, ["a", "b", "c"])
        assert sorted(capsys.readouterr().out.split()) == ["a", "b", "c"]


def test_what_native_code_writes_arrives_too(capsys: pytest.CaptureFixture[str]) -> None:
    with mh.Session("local", workers=1) as session:
        session.submit(write_raw, 1, "to 1\n").result(LIMIT)
        session.submit(write_raw, 2, "to 2\n").result(LIMIT)
        session.submit(subprocess.run, "echo of a child", shell=True).result(LIMIT)
        # Nothing tells when another program's output is complete, but the end of the session does.
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("to 1\nof a child\n", "to 2\n")


def test_an_unfinished_line_waits_for_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with mh.Session("local", workers=1) as session:
        session.submit(say, "one, ", end="").result(LIMIT)
        assert capsys.readouterr().out == ""
        session.submit(say, "two").result(LIMIT)
        assert capsys.readouterr().out == "one, two\n"
        session.submit(say, "the last", end="").result(LIMIT)
    assert capsys.readouterr().out == "the last\n"


def test_the_last_line_of_a_dying_worker_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    def fall() -> None:
        print("falling", file=sys.stderr, end="", flush=True)
        os._exit(1)

    with mh.Session("local", workers=1) as session:
        once = mh.task(fall, worker_retries=0)
        assert isinstance(once.submit().exception(LIMIT), mh.WorkerDiedError)
        assert capsys.readouterr().err == "falling\n"
        assert isinstance(session.submit(fall).exception(LIMIT), mh.WorkerDiedError)
        assert capsys.readouterr().err == "falling\n" * 2, "of both attempts"


def test_lines_of_many_workers_stay_whole(tmp_path: Path) -> None:
    code = """
        import sys
        import manyhands as mh

        def talk(x):
            for part in range(20):
                print(f"<{x}.{part}", "-" * (37 * x % 211), end=">\\n")
                print(f"<{x}.{part}>", file=sys.stderr)

        with mh.Session("local", workers=4) as session:
            session.map(talk, range(100))
    """
    done = run_python(write_script(tmp_path, code), folder=tmp_path)
    assert done.returncode == 0
    expected = {f"{x}.{part}" for x in range(100) for part in range(20)}
    lines = [re.fullmatch(r"<(\S+) -*>", line) for line in done.stdout.splitlines()]
    assert all(lines) and {line[1] for line in lines if line} == expected
    lines = [re.fullmatch(r"<(\S+)>", line) for line in done.stderr.splitlines()]
    assert all(lines) and {line[1] for line in lines if line} == expected


def test_text_of_any_kind_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    with mh.Session("local", workers=1) as session:
        session.submit(say, "äöü 漢字 \U0001f41d \r in one line").result(LIMIT)
        assert capsys.readouterr().out == "äöü 漢字 \U0001f41d \r in one line\n"
        session.submit(say, "x" * 3_000_000).result(LIMIT)
        assert capsys.readouterr().out == "x" * 3_000_000 + "\n"


def test_a_call_cannot_take_the_parents_input(tmp_path: Path) -> None:
    code = """
        import sys
        import manyhands as mh

        with mh.Session("local", workers=1) as session:
            print(session.submit(sys.stdin.read if False else input).exception())
            print(input())
    """
    done = run_python(write_script(tmp_path, code), folder=tmp_path, stdin="for the parent\n")
    assert (done.stdout, done.stderr) == ("EOF when reading a line\nfor the parent\n", "")


LOGGING = """
    import logging, sys, warnings
    import manyhands as mh

    {setup}

    def work(x):
        log = logging.getLogger("app.part")
        log.debug("debug %s", x)
        log.info("info %s", x)
        log.warning("warning %s", x)
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("failed")

    with mh.Session("local", workers=1) as session:
        session.submit(work, 5).result()
"""

SETUPS = {
    "root at info": "logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(name)s: %(message)s')",
    "a logger of its own": (
        "app = logging.getLogger('app'); app.setLevel(logging.INFO);"
        "handler = logging.StreamHandler(sys.stdout); app.addHandler(handler);"
        "handler.setFormatter(logging.Formatter('%(name)s: %(message)s')); app.propagate = False"
    ),
}


@pytest.mark.parametrize("setup", SETUPS)
def test_records_reach_the_parents_handlers(setup: str, tmp_path: Path) -> None:
    out = run_script(tmp_path, LOGGING.format(setup=SETUPS[setup]))
    assert out.splitlines()[:4] == [
        "app.part: info 5",
        "app.part: warning 5",
        "app.part: failed",
        "Traceback (most recent call last):",
    ]
    assert "ZeroDivisionError: division by zero" in out
    assert "debug" not in out


def test_logging_that_was_not_set_up_warns_on_stderr(tmp_path: Path) -> None:
    script = write_script(tmp_path, LOGGING.format(setup=""))
    done = run_python(script, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("warning 5\nfailed\nTraceback (most recent call last):\n")


def test_warnings_arrive_once_and_follow_the_command_line(tmp_path: Path) -> None:
    script = write_script(
        tmp_path,
        """
        import warnings
        import manyhands as mh

        def work(x):
            warnings.warn("mind the gap", UserWarning)
            return x

        with mh.Session("local", workers=1) as session:
            print(type(session.submit(work, 1).exception()).__name__)
            session.map(work, range(10), on_error="return")
        """,
    )
    done = run_python(script, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "NoneType\n")
    assert done.stderr.count("UserWarning: mind the gap") == 1
    silent = run_python("-W", "ignore", script, folder=tmp_path)
    assert (silent.stdout, silent.stderr) == ("NoneType\n", "")
    strict = run_python("-W", "error", script, folder=tmp_path)
    assert (strict.stdout, strict.stderr) == ("UserWarning\n", "")


def test_streams_closed_by_the_program_harm_nothing(tmp_path: Path) -> None:
    code = """
        import os, sys
        import manyhands as mh

        with mh.Session("local", workers=1) as session:
            out, sys.stdout = sys.stdout, None
            session.submit(print, "to nobody").result()
            sys.stdout = open(os.devnull, "w")
            sys.stdout.close()
            session.submit(print, "to nobody").result()
            sys.stdout = out
            print(session.submit(abs, -1).result())
    """
    assert run_script(tmp_path, code) == "1\n"
