"""What workers see: the parent's search path, folder, environment and modules, as they are when a session opens."""

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
from manyhands.testing.checks import LIMIT
from tests.local.processes import run_script

START_METHODS = ("fork", "spawn")


def read_environment(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


@pytest.mark.parametrize("start_method", START_METHODS)
def test_changes_before_the_opening_are_seen(
    start_method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "found_by_workers.py").write_text("def answer(x):\n    return x, __name__\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANYHANDS_TEST_NEW", "set")
    monkeypatch.delenv("HOME", raising=False)
    module = __import__("found_by_workers")
    try:
        with mh.Session("local", workers=1, start_method=start_method) as session:
            assert session.submit(module.answer, 3).result(LIMIT) == (3, "found_by_workers")
            assert session.submit(os.getcwd).result(LIMIT) == str(tmp_path)
            found = session.submit(read_environment, "MANYHANDS_TEST_NEW", "HOME").result(LIMIT)
            assert found == ["set", None]
            assert session.submit(lambda: sys.path).result(LIMIT) == sys.path
            assert session.submit(lambda: sys.argv).result(LIMIT) == sys.argv
            assert session.submit(lambda: (sys.prefix, sys.executable)).result(LIMIT) == (
                sys.prefix,
                sys.executable,
            )
    finally:
        del sys.modules["found_by_workers"]


def test_a_relative_search_path_stays_where_it_was(tmp_path: Path) -> None:
    """`sys.path` of a program may hold "" and relative folders; workers find the same files."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    code = """
        import os, sys
        sys.path.insert(0, "lib")
        import helper
        import manyhands as mh
        print(mh.map(helper.double, range(3)))
        mh.shutdown()
        os.makedirs("elsewhere")
        os.chdir("elsewhere")
        print(mh.map(helper.double, range(3)), mh.submit(os.getcwd).result() == os.getcwd())
    """
    assert run_script(tmp_path, code) == "[0, 2, 4]\n[0, 2, 4] True\n"


EDITED = """
    import importlib, os, pathlib, sys, time
    import manyhands as mh

    path = pathlib.Path("edited.py")
    ORIGINAL = {original!r}
    CHANGED = {changed!r}

    def write(text):
        path.write_text(text)
        stamp = time.time() + write.turn
        write.turn += 5
        os.utime(path, (stamp, stamp))  # a cached .pyc is never taken for the new file's

    write.turn = 5
    write(ORIGINAL)
    sys.path.insert(0, os.getcwd())
    import edited

    def ask():
        here = edited.answer(1)
        with mh.Session("local", workers=1, start_method={method!r}) as session:
            there = session.submit(edited.answer, 1).result(30)
            mapped = session.map(edited.answer, [1])[0]
            inside = {inside}
            value = session.submit(edited.Thing.make).result(30)
        assert here == there == mapped == inside, (here, there, mapped, inside)
        assert type(value) is edited.Thing, type(value)
        return here

    print(ask())
    write(CHANGED)
    print(ask())
    importlib.reload(edited)
    print(ask())
"""

THING = """
class Thing:
    @classmethod
    def make(cls):
        return cls()
"""
EDITS = {
    "a function": ("def answer(x):\n    return 'old'\n", "def answer(x):\n    return 'new'\n"),
    "a constant": (
        "VALUE = 'old'\ndef answer(x):\n    return VALUE\n",
        "VALUE = 'new'\ndef answer(x):\n    return VALUE\n",
    ),
    "a default": (
        "def answer(x, y='old'):\n    return y\n",
        "def answer(x, y='new'):\n    return y\n",
    ),
    "a helper": (
        "def helper():\n    return 'old'\ndef answer(x):\n    return helper()\n",
        "def helper():\n    return 'new'\ndef answer(x):\n    return helper()\n",
    ),
    "an attribute of a class": (
        "class A:\n    value = 'old'\ndef answer(x):\n    return A.value\n",
        "class A:\n    value = 'new'\ndef answer(x):\n    return A.value\n",
    ),
    "lines above": (
        "def answer(x):\n    return 'old'\n",
        "# a comment\n\n\ndef answer(x):\n    return 'new'\n",
    ),
}


@pytest.mark.parametrize("method", START_METHODS)
@pytest.mark.parametrize("edit", EDITS)
def test_a_module_edited_between_sessions_is_as_the_parent_has_it(
    edit: str, method: str, tmp_path: Path
) -> None:
    original, changed = (text + THING for text in EDITS[edit])
    code = EDITED.format(original=original, changed=changed, method=method, inside="here")
    assert run_script(tmp_path, code).split() == ["old", "old", "new"]


@pytest.mark.parametrize("method", START_METHODS)
def test_a_function_that_uses_an_edited_module_sees_it_as_the_parent_has_it(
    method: str, tmp_path: Path
) -> None:
    """The commonest use of a module: ``lambda x: module.function(x)``."""
    original, changed = (text + THING for text in EDITS["a function"])
    inside = "session.submit(lambda: edited.answer(1)).result(30)"
    code = EDITED.format(original=original, changed=changed, method=method, inside=inside)
    assert run_script(tmp_path, code).split() == ["old", "old", "new"]


def make_module(name: str, code: str) -> Any:
    module = types.ModuleType(name)
    exec(code, module.__dict__)
    return module


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_module_that_workers_cannot_import_travels(start_method: str) -> None:
    """Such as a notebook's, a plug-in's, or one that a test runner made."""
    code = """
class Point:
    def __init__(self, x):
        self.x = x

class Trouble(Exception):
    pass

offset = 5

def helper(x):
    return x + offset

def work(x):
    if x < 0:
        raise Trouble(x)
    return Point(helper(x))
"""
    module = sys.modules["made_by_hand"] = make_module("made_by_hand", code)
    try:
        with mh.Session("local", workers=2, start_method=start_method) as session:
            point = session.submit(module.work, 1).result(LIMIT)
            assert type(point) is module.Point and point.x == 6
            assert [type(p) for p in session.map(module.work, range(3))] == [module.Point] * 3
            with pytest.raises(module.Trouble):
                session.map(module.work, [-1])
            assert session.submit(lambda p: p.x, module.Point(3)).result(LIMIT) == 3
    finally:
        del sys.modules["made_by_hand"]


def test_a_shadowed_module_travels_as_the_parent_has_it(tmp_path: Path) -> None:
    """Two files of one name: what counts is the one that the parent has loaded."""
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twin.py").write_text(f"def where(x):\n    return {folder!r}\n")
    code = """
        import sys
        sys.path.insert(0, "first")
        import twin
        sys.path.insert(0, "second")
        import manyhands as mh
        print(twin.where(0), mh.map(twin.where, [0])[0])
    """
    assert run_script(tmp_path, code) == "first first\n"


THREADS = """
    import json, os
    import manyhands as mh
    from manyhands.engines.local.cpus import count_cpus

    NAMES = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"]
    before = dict(os.environ)
    with mh.Session("local", workers=2, start_method={method!r}) as session:
        found = session.submit(lambda: [os.environ.get(name) for name in NAMES]).result(30)
    assert dict(os.environ) == before
    print(json.dumps([count_cpus(), found]))
"""


@pytest.mark.parametrize("method", START_METHODS)
def test_inner_threads_are_limited(method: str, tmp_path: Path) -> None:
    code = THREADS.format(method=method).replace(
        "before =", "os.environ.pop('OMP_NUM_THREADS', None); before ="
    )
    cpus, found = json.loads(run_script(tmp_path, code))
    assert found == [str(max(1, cpus // 2))] * 4


@pytest.mark.parametrize("method", START_METHODS)
def test_a_users_thread_settings_are_kept(method: str, tmp_path: Path) -> None:
    code = THREADS.format(method=method)
    _, found = json.loads(run_script(tmp_path, code, OMP_NUM_THREADS="7"))
    assert found == ["7", None, None, None]
    code = code.replace("before =", "os.environ.pop('OMP_NUM_THREADS', None); before =")
    _, found = json.loads(run_script(tmp_path, code, MKL_NUM_THREADS="5"))
    assert found[2] == "5" and found[0] is not None


HASHES = """
    import manyhands as mh

    with mh.Session("local", workers=2, start_method={method!r}) as session:
        found = set(session.map(lambda x: hash("manyhands"), range(200), batch=1))
    print(len(found), found == {{hash("manyhands")}})
"""


@pytest.mark.parametrize("method", START_METHODS)
def test_a_hash_seed_that_the_user_set_holds_in_workers(method: str, tmp_path: Path) -> None:
    code = HASHES.format(method=method)
    assert run_script(tmp_path, code, PYTHONHASHSEED="123") == "1 True\n"


def test_workers_of_a_session_hash_alike(tmp_path: Path) -> None:
    code = HASHES.format(method="fork")
    assert run_script(tmp_path, code, PYTHONHASHSEED="random").startswith("1 ")


def test_workers_are_in_a_process_group_of_their_own() -> None:
    """So that a terminal's Ctrl-C reaches the program, and the program alone."""
    with mh.Session("local", workers=1) as session:
        assert session.submit(os.getpgrp).result(LIMIT) != os.getpgrp()


def test_workers_start_with_no_descriptor_of_the_program(tmp_path: Path) -> None:
    with (tmp_path / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        with mh.Session("local", workers=1) as session:
            names = session.submit(list_open_files).result(LIMIT)
    assert str(tmp_path / "held") not in names


def list_open_files() -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:  # the one that lists the folder
            continue
    return found
