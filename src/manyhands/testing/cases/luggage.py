"""What goes with a session: files, modules, variables of the environment."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import manyhands as mh
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PACKAGE = "manyhands_case_of_shipping"
_VARIABLE = "MANYHANDS_CASE_LEVEL"


@case()
def files_are_found(open_session: OpenSession) -> None:
    """A call finds the session's files by name, also inside folders, and so do the calls that it makes."""
    with open_folder() as folder:
        (folder / "number.txt").write_text("3")
        (folder / "more").mkdir()
        (folder / "more" / "other.txt").write_text("4")
        with open_session(files=[folder / "number.txt", folder / "more"]) as session:
            check_equal(mh.find_file("number.txt").read_text(), "3")
            check_equal(session.submit(_read, "number.txt").result(LIMIT), "3")
            check_equal(session.submit(_read, "more/other.txt").result(LIMIT), "4")
            check_equal(session.map(_read, ["number.txt"] * 3), ["3"] * 3)
            check_equal(session.submit(_read_in_a_call, "number.txt").result(LIMIT), "3")
            error = session.submit(_read, "none.txt").exception(LIMIT)
            check(isinstance(error, FileNotFoundError), f"it was {error!r}")
            check("number.txt" in str(error), "the error tells which there are")
        with open_session(files={"own name": folder / "number.txt"}) as session:
            check_equal(session.submit(_read, "own name").result(LIMIT), "3")
        with open_session() as session:
            error = session.submit(_read, "number.txt").exception(LIMIT)
            check(isinstance(error, FileNotFoundError), f"it was {error!r}")


@case()
def modules_are_shipped(open_session: OpenSession) -> None:
    """A package that only the program has can be imported in a call, with the data that it brings."""
    with open_folder() as folder, _import_from(folder):
        package = folder / _PACKAGE
        package.mkdir()
        (package / "__init__.py").write_text(
            "from importlib.resources import files\n"
            "def read():\n    return (files(__name__) / 'data.txt').read_text()\n"
        )
        (package / "data.txt").write_text("its data")
        (package / "late.py").write_text("VALUE = 5\n")
        module = importlib.import_module(_PACKAGE)
        with open_session(ship=[folder]) as session:
            check_equal(session.submit(module.read).result(LIMIT), "its data")
            check_equal(session.submit(_import_late).result(LIMIT), 5)


@case("isolates")
def variables_are_set(open_session: OpenSession) -> None:
    """Workers have the session's variables of the environment before its initializer runs; the program has not."""
    with open_session(env={_VARIABLE: "3"}, initializer=_keep_variable) as session:
        check_equal(session.submit(os.getenv, _VARIABLE).result(LIMIT), "3")
        check_equal(session.submit(os.getenv, f"{_VARIABLE}_THEN").result(LIMIT), "3")
    check(_VARIABLE not in os.environ, "the program's own environment was changed")


@case()
def what_is_not_there_is_not_shipped(open_session: OpenSession) -> None:
    """Paths that do not exist, and names that cannot be, are refused before anything begins."""
    with open_folder() as folder:
        (folder / "a").write_text("")
        with expect(mh.InvalidArgumentError):
            open_session(files=[folder / "none"])
        with expect(mh.InvalidArgumentError):
            open_session(ship=[folder / "none"])
        with expect(mh.InvalidArgumentError):
            open_session(files=str(folder / "a"))
        with expect(mh.InvalidArgumentError):
            open_session(files={"a/b": folder / "a"})
        with expect(mh.InvalidArgumentError):
            open_session(env={"A=B": "x"})
        with expect(mh.InvalidArgumentError):
            open_session(env={"A": 3})


def _read(name: str) -> str:
    return mh.find_file(name).read_text()


def _read_in_a_call(name: str) -> str:
    return mh.submit(_read, name).result(LIMIT)


def _import_late() -> int:
    value: int = importlib.import_module(f"{_PACKAGE}.late").VALUE
    return value


def _keep_variable() -> None:
    os.environ[f"{_VARIABLE}_THEN"] = os.environ[_VARIABLE]


@contextmanager
def _import_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]
