"""What a process was at when it died."""

import os
from pathlib import Path

import pytest

from manyhands.engines.cluster.marks import Marks, read_marks


def list_calls(session: str, worker: str) -> list[str] | None:
    found = read_marks(session, worker)
    if found is None:
        return None
    assert found[0] == os.getpid()
    return found[1]


def find_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_was_written_is_read() -> None:
    marks = Marks("session", "tcp://10.0.0.1:5/x")
    marks.write(["a-1", "a-2"])
    assert list_calls("session", "tcp://10.0.0.1:5/x") == ["a-1", "a-2"]


def test_what_was_written_last_counts() -> None:
    marks = Marks("session", "w")
    marks.write(["a-1", "a-22222222"])
    marks.write(["a-3"])
    assert list_calls("session", "w") == ["a-3"]


@pytest.mark.parametrize("ids", [None, []])
def test_a_process_that_was_at_nothing(ids: list[str] | None) -> None:
    marks = Marks("session", "w")
    if ids is not None:
        marks.write(["a-1"])
        marks.write(ids)
    found = list_calls("session", "w")
    assert found is not None
    assert "a-1" not in found


def test_each_has_a_file_of_its_own() -> None:
    for session in ("one", "other"):
        for worker in ("w:1", "w:2"):
            Marks(session, worker).write([f"{session} {worker}"])
    assert list_calls("one", "w:2") == ["one w:2"]
    assert list_calls("other", "w:1") == ["other w:1"]


def test_others_cannot_read_it(own_folder: Path) -> None:
    Marks("session", "w")
    assert find_file(own_folder).stat().st_mode & 0o777 == 0o600


def test_whoever_asks_is_told() -> None:
    """The session of the program, and those inside calls."""
    Marks("session", "w").write(["a-1"])
    assert [list_calls("session", "w") for _ in range(2)] == [["a-1"]] * 2


def test_those_of_processes_that_are_gone_go_too(own_folder: Path) -> None:
    """And those of the living stay, as those of other sessions do."""
    for session, worker in (("one", "dead"), ("one", "alive"), ("other", "dead")):
        Marks(session, worker).write(["a-1"])
    for path in own_folder.glob("*dead"):
        path.write_bytes(b"4194305\na-1\0")  # more than the system's largest process id
    Marks("one", "w").close()
    assert {path.name for path in own_folder.iterdir()} == {"one-alive", "other-dead"}


def test_more_than_there_is_room_for() -> None:
    ids = [f"manyhands-{number:07}" for number in range(10_000)]
    Marks("session", "w").write(ids)
    found = list_calls("session", "w")
    assert found is not None
    assert 3000 < len(found) < len(ids)
    assert found[:-1] == ids[: len(found) - 1]


def test_nothing_tells_where_there_is_no_file() -> None:
    assert list_calls("session", "w") is None


def test_nothing_tells_where_it_cannot_be_read(own_folder: Path) -> None:
    Marks("session", "w")
    path = find_file(own_folder)
    path.unlink()
    path.mkdir()
    assert list_calls("session", "w") is None


@pytest.mark.parametrize("content", [b"", b"12\na-1\na-", b"a-1\0"])
def test_nothing_tells_where_it_breaks_off(own_folder: Path, content: bytes) -> None:
    """As one does of a process that died as it made it, or whose disk was full."""
    Marks("session", "w")
    find_file(own_folder).write_bytes(content)
    assert list_calls("session", "w") is None


def test_a_process_that_ends_well_leaves_nothing(own_folder: Path) -> None:
    marks = Marks("session", "w")
    marks.write(["a-1"])
    marks.close()
    assert list(own_folder.iterdir()) == []
    marks.write(["a-2"])
    assert list(own_folder.iterdir()) == []
    marks.close()
