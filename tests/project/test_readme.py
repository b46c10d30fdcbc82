"""The papers are run as printed: the two set-up commands and every block of Python."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
FIRST = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/manyhands demo"
SECOND = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest"
PAPERS = [README, *sorted((ROOT / "docs").glob("**/*.md"))]

# A block is left out only with a reason: this comment, on the line before its fence.
LEFT_OUT = re.compile(r"<!-- not run: \S.* -->")


def block_lines(text: str, language: str) -> list[str]:
    """Lines of the blocks of `language`, every other line blank: line numbers stay true."""
    kept = [""] * len(text.splitlines())
    inside = wanted = False
    before = ""
    for number, line in enumerate(text.splitlines()):
        fence = re.match(r"\s*```\s*(\w*)", line)
        if fence and not inside:
            inside = True
            wanted = fence[1] == language and not LEFT_OUT.fullmatch(before.strip())
        elif fence:
            inside = wanted = False
        elif wanted:
            kept[number] = line
        before = line
    return kept


def test_blocks_keep_their_line_numbers() -> None:
    text = "a\n```python\nx = 1\n```\n<!-- not run: it is a sketch -->\n```python\nboom\n```\n"
    assert block_lines(text, "python") == ["", "", "x = 1", "", "", "", "", ""]
    assert block_lines(text, "pycon") == [""] * 8


def test_the_first_screen_holds_both_commands() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert lines.count(FIRST) == 1
    assert lines.count(SECOND) == 1
    # A screen of 60 lines.
    assert lines.index(FIRST) < 60
    assert lines.index(SECOND) < 60


def test_the_gate_reads_the_second_command_from_the_readme() -> None:
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r'grep -E "(.*)" README\.md', gate)
    assert pattern
    found = subprocess.run(
        ["grep", "-E", pattern[1].replace("\\$", "$"), README.name],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.stdout.splitlines() == [SECOND]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.name)
def test_its_links_inside_the_project_lead_somewhere(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text)
    assert [target for target in targets if not (paper.parent / target).exists()] == []


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.name)
def test_its_python_runs_as_printed(paper: Path, tmp_path: Path) -> None:
    """All blocks of a file, in order, are one program without a `__main__` guard."""
    lines = block_lines(paper.read_text(encoding="utf-8"), "python")
    if not any(lines):
        return
    script = tmp_path / f"{paper.stem}_as_printed.py"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.name)
def test_its_dialogues_are_true(paper: Path, tmp_path: Path) -> None:
    """Blocks with `>>>` give what is printed below them, all of a file in one dialogue."""
    lines = block_lines(paper.read_text(encoding="utf-8"), "pycon")
    if not any(lines):
        return
    (tmp_path / paper.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ["-o", "ELLIPSIS", "-o", "NORMALIZE_WHITESPACE"]
    done = subprocess.run(
        [sys.executable, "-m", "doctest", *options, paper.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def copy_project(target: Path) -> None:
    """What a clone would hold, with the changes of the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:  # a source distribution has no git
        shutil.copytree(
            ROOT, target, ignore=shutil.ignore_patterns(".venv*", ".*_cache", "__pycache__")
        )
        return
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_command_runs_as_printed(tmp_path: Path) -> None:
    """Install into a fresh environment from a fresh copy, then the demo on real input."""
    copy = tmp_path / "clone"
    copy_project(copy)
    # As in a new terminal: no environment of ours, nobody at the keyboard.
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("COVERAGE", "PYTEST", "MANYHANDS")) and key != "VIRTUAL_ENV"
    }
    ours = str(Path(sys.executable).parent)
    env["PATH"] = os.pathsep.join(p for p in env["PATH"].split(os.pathsep) if p != ours)
    for attempt in (1, 2):
        done = subprocess.run(
            ["bash", "-c", FIRST],
            cwd=copy,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
        )
        if done.returncode == 0 or (copy / ".venv/bin/manyhands").exists():
            break
        print(f"install failed, attempt {attempt}: {done.stderr[-2000:]}")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    # The answer, and the wall time beside the plain loop's.
    for word in ("files", "lines", "speed"):
        assert word in done.stdout.lower(), done.stdout
    assert "Traceback" not in done.stderr
