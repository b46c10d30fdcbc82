"""What goes with a session, checked before anything begins."""

from pathlib import Path
from typing import Any

import pytest

from manyhands.core.luggage import Luggage, find_among, make_luggage
from manyhands.errors import InvalidArgumentError


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "a.csv").write_text("")
    monkeypatch.chdir(tmp_path)
    luggage = make_luggage(["project"], ["a.csv", Path("project")], {"A": "1"})
    assert luggage.ship == (str(tmp_path / "project"),)
    assert luggage.files == {
        "a.csv": str(tmp_path / "a.csv"),
        "project": str(tmp_path / "project"),
    }
    assert luggage.env == {"A": "1"}
    assert luggage
    assert not Luggage()


def test_files_of_one_name_need_names_of_their_own(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text("")
    one, two = tmp_path / "one" / "a.csv", tmp_path / "two" / "a.csv"
    with pytest.raises(InvalidArgumentError, match=r"have one name, 'a\.csv'"):
        make_luggage([], [one, two], None)
    assert set(make_luggage([], {"first": one, "second": two}, None).files) == {"first", "second"}
    assert list(make_luggage([], [one, one], None).files) == ["a.csv"]


@pytest.mark.parametrize(
    ("ship", "files", "env", "words"),
    [
        (["no such"], [], None, "ship: there is no file or folder"),
        ([], ["no such"], None, "files: there is no file or folder"),
        ("src", [], None, "it is a list of paths"),
        ([], Path("src"), None, "it is a list of paths"),
        ([3], [], None, "ship: 3 is no path"),
        ([], {"..": "."}, None, "no name of a file"),
        ([], {"a/b": "."}, None, "no name of a file"),
        ([], [], {"A": 1}, "names and values are texts"),
        ([], [], {"": "x"}, "cannot name a variable"),
        ([], [], {"A=B": "x"}, "cannot name a variable"),
    ],
)
def test_what_cannot_be_is_told(ship: Any, files: Any, env: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        make_luggage(ship, files, env)


def test_a_file_is_found_by_its_name() -> None:
    files = {"a": "/x/a", "folder": "/y/folder"}
    assert find_among(files, "a") == Path("/x/a")
    assert find_among(files, "folder/b/c") == Path("/y/folder/b/c")
    assert find_among(files, Path("folder")) == Path("/y/folder")


@pytest.mark.parametrize("name", ["b", "", "/x/a"])
def test_a_file_that_is_not_there(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="none of the session's files: a"):
        find_among({"a": "/x/a"}, name)
    with pytest.raises(FileNotFoundError, match="it has none"):
        find_among({}, name)
