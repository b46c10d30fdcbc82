"""What a session ships, packed and unpacked."""

import importlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from manyhands.core.luggage import Luggage
from manyhands.engines.cluster import bundle as bundles
from manyhands.engines.cluster.bundle import pack
from manyhands.engines.cluster.unpack import (
    discard,
    list_roots,
    reset_variables,
    set_variables,
    unpack,
)
from manyhands.errors import InvalidArgumentError, WorkerStartError


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where bundles are unpacked to."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield scratch
    assert [path for path in sys.path if path.startswith(str(scratch))] == []
    assert [name for name in sys.modules if name.startswith("shipped_")] == []


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's folder: a package, a module, and what stays behind."""
    project = tmp_path / "project"
    files = {
        "shipped_package/__init__.py": "VALUE = 1\n",
        "shipped_package/data/table.txt": "3",
        "shipped_module.py": "import shipped_package\nVALUE = shipped_package.VALUE + 1\n",
        ".git/config": "secret",
        ".env": "secret",
        "__pycache__/shipped_module.cpython-311.pyc": "",
        "venv/pyvenv.cfg": "",
        "venv/lib/large.py": "",
    }
    for name, text in files.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return project


def list_shipped(luggage: Luggage) -> set[str]:
    from io import BytesIO

    packed = pack(luggage)
    assert packed is not None
    with ZipFile(BytesIO(packed.archive)) as archive:
        return set(archive.namelist())


def test_of_a_folder_what_is_imported_goes(project: Path) -> None:
    assert list_shipped(Luggage([str(project)])) == {
        "modules/shipped_package/__init__.py",
        "modules/shipped_package/data/table.txt",
        "modules/shipped_module.py",
    }


def test_a_package_and_a_module_keep_their_names(project: Path) -> None:
    ship = [str(project / "shipped_package"), str(project / "shipped_module.py")]
    assert list_shipped(Luggage(ship)) == list_shipped(Luggage([str(project)]))


def test_of_files_all_goes(project: Path) -> None:
    names = list_shipped(Luggage(files={"all": str(project), "one": str(project / ".env")}))
    assert {"files/all/.git/config", "files/all/.env", "files/one"} <= names
    assert len(names) == 9


def test_nothing_is_no_bundle() -> None:
    assert pack(Luggage(env={"A": "1"})) is None


def test_equal_content_has_one_digest(project: Path) -> None:
    first = pack(Luggage([str(project)]))
    os.utime(project / "shipped_module.py", (0, 0))
    second = pack(Luggage([str(project)]))
    (project / "shipped_module.py").write_text("VALUE = 3\n")
    third = pack(Luggage([str(project)]))
    assert first == second
    assert first is not None
    assert third is not None
    assert first.digest != third.digest


def test_two_files_cannot_be_one(project: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "shipped_module.py").write_text("")
    with pytest.raises(InvalidArgumentError, match="would be one file to import"):
        pack(Luggage([str(project), str(tmp_path / "other")]))


def test_what_is_too_large_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MOST_BYTES", 10)
    with pytest.raises(InvalidArgumentError, match=r"in 3 files.*The largest: .*shipped_module"):
        pack(Luggage([str(project)]))


def test_modules_and_files_are_there_until_the_session_ends(project: Path, scratch: Path) -> None:
    script = project / "run.sh"
    script.write_text("")
    script.chmod(0o755)
    bundle = pack(Luggage([str(project)], {"run.sh": str(script)}))
    assert bundle is not None
    assert list_roots(bundle) == []
    unpacked = unpack(bundle)
    module = importlib.import_module("shipped_module")
    assert module.VALUE == 2
    assert str(module.__file__).startswith(list_roots(bundle)[0])
    found = Path(unpacked.list_files()["run.sh"])
    assert found.stat().st_mode & 0o777 == 0o755
    discard(unpacked)
    assert list(scratch.iterdir()) == []


def test_sessions_share_what_is_equal(project: Path) -> None:
    bundle = pack(Luggage([str(project)]))
    assert bundle is not None
    first, second = unpack(bundle), unpack(bundle)
    assert first is second
    discard(first)
    importlib.import_module("shipped_module")
    discard(second)


def test_a_changed_module_is_loaded_anew(project: Path) -> None:
    for value in (2, 5):
        (project / "shipped_module.py").write_text(f"VALUE = {value}\n")
        bundle = pack(Luggage([str(project)]))
        assert bundle is not None
        unpacked = unpack(bundle)
        assert value == importlib.import_module("shipped_module").VALUE
        discard(unpacked)


def test_one_process_has_one_version(project: Path) -> None:
    first = pack(Luggage([str(project)]))
    (project / "shipped_module.py").write_text("VALUE = 3\n")
    second = pack(Luggage([str(project)]))
    assert first is not None
    assert second is not None
    unpacked = unpack(first)
    with pytest.raises(WorkerStartError, match="another session has shipped another 'shipped_"):
        unpack(second)
    discard(unpacked)
    discard(unpack(second))


def test_what_is_installed_and_in_use_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "pytest.py").write_text("")
    bundle = pack(Luggage([str(tmp_path / "pytest.py")]))
    assert bundle is not None
    with pytest.raises(WorkerStartError, match="ships 'pytest', and this worker's process has one"):
        unpack(bundle)


def test_an_archive_is_imported_from_as_it_is(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "lib.whl", "w") as archive:
        archive.writestr("shipped_zipped.py", "VALUE = 7\n")
    bundle = pack(Luggage([str(tmp_path / "lib.whl")]))
    assert bundle is not None
    unpacked = unpack(bundle)
    assert importlib.import_module("shipped_zipped").VALUE == 7
    del sys.modules["shipped_zipped"]
    discard(unpacked)


def test_what_killed_processes_left_is_removed(project: Path, scratch: Path) -> None:
    bundle = pack(Luggage([str(project)]))
    assert bundle is not None
    left = scratch / "manyhands-bundle-left"
    new = scratch / "manyhands-bundle-new"
    for folder in (left, new):
        folder.mkdir()
        (folder / "file").write_text("")
    hour = time.time() - 3600
    os.utime(left, (hour, hour))
    unpacked = unpack(bundle)
    os.utime(unpacked.folder, (hour, hour))
    assert not left.exists()
    assert new.exists()
    another = pack(Luggage(files={"a": str(project)}))
    assert another is not None
    other = unpack(another)
    assert unpacked.folder.exists()  # its owner lives
    discard(unpacked)
    discard(other)


def test_variables_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NEW", "OLD", "CHANGED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OLD", "before")
    env = {"NEW": "1", "OLD": "2", "CHANGED": "3"}
    before = set_variables(env)
    assert {name: os.environ[name] for name in env} == env
    os.environ["CHANGED"] = "by somebody else"
    reset_variables(env, before)
    assert "NEW" not in os.environ
    assert os.environ["OLD"] == "before"
    assert os.environ.pop("CHANGED") == "by somebody else"
