"""The types that users see: right code is accepted whole, wrong code line by line rejected."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def check(*files: Path) -> dict[str, dict[int, list[str]]]:
    """Run mypy as a user of the installed package would: strict, without our settings."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            "--no-error-summary",
            "--hide-error-context",
            f"--cache-dir={ROOT / '.mypy_cache' / 'tests-typing'}",
            *[path.name for path in files],
        ],
        cwd=HERE,
        env={key: value for key, value in os.environ.items() if key != "MYPYPATH"},
        capture_output=True,
        text=True,
    )
    # 0: accepted, 1: errors found; anything else is mypy's own trouble.
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    errors: dict[str, dict[int, list[str]]] = {path.name: {} for path in files}
    for line in done.stdout.splitlines():
        match = re.match(r"(?P<file>[^:]+):(?P<line>\d+): error: (?P<text>.*)", line)
        if match:
            found = errors.setdefault(match["file"], {})
            found.setdefault(int(match["line"]), []).append(match["text"])
    return errors


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[int, list[str]]]:
    return check(HERE / "user_code.py", HERE / "wrong_code.py")


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.xdist_group("typing")
def test_typical_user_code_is_accepted(errors: dict[str, dict[int, list[str]]]) -> None:
    assert errors["user_code.py"] == {}


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.xdist_group("typing")
def test_exactly_the_marked_lines_are_rejected(errors: dict[str, dict[int, list[str]]]) -> None:
    lines = (HERE / "wrong_code.py").read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    rejected = set(errors["wrong_code.py"])
    accepted = [f"{number}: {lines[number - 1]}" for number in sorted(marked - rejected)]
    surprising = [
        f"{number}: {lines[number - 1]}  {errors['wrong_code.py'][number]}"
        for number in sorted(rejected - marked)
    ]
    assert (accepted, surprising) == ([], [])


def test_the_package_says_that_it_is_typed() -> None:
    import manyhands

    assert (Path(manyhands.__file__).parent / "py.typed").is_file()


def test_typical_user_code_runs() -> None:
    """The file is a program too, so that what is accepted is also what works."""
    names = ["use_map", "use_streams", "use_submit", "use_futures_as_arguments", "use_tasks"]
    names += [
        "use_collections_of_futures",
        "use_sessions",
        "use_actors",
        "use_report",
        "use_errors",
    ]
    calls = "\n".join(f"user_code.{name}()" for name in names)
    script = f"import asyncio, user_code\n{calls}\nasyncio.run(user_code.use_await())\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=HERE, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
