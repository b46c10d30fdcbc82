"""What is done once another library has been imported."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from manyhands.core.arrivals import when_imported


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "arriving").mkdir()
    (tmp_path / "arriving" / "__init__.py").write_text("")
    (tmp_path / "arriving" / "table.py").write_text("ready = True")
    (tmp_path / "arriving" / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())
    yield "arriving"
    for name in [name for name in sys.modules if name.startswith("arriving")]:
        del sys.modules[name]


def test_a_module_that_is_there_is_told_at_once(package: str) -> None:
    table = importlib.import_module("arriving.table")
    found: list[ModuleType] = []
    finders = sys.meta_path.copy()
    when_imported("arriving.table", found.append)
    assert found == [table]
    assert sys.meta_path == finders


def test_a_module_that_comes_is_told_when_it_is_whole(package: str) -> None:
    found: list[bool] = []
    finders = sys.meta_path.copy()
    when_imported("arriving.table", lambda table: found.append(table.ready))
    importlib.import_module("arriving")
    assert found == []
    table = importlib.import_module("arriving.table")
    assert found == [True]
    assert sys.meta_path == finders
    assert type(table.__spec__.loader).__name__ == type(table.__loader__).__name__ != "_Loader"
    importlib.reload(table)
    assert found == [True]


def test_to_look_for_a_module_is_not_to_import_it(package: str) -> None:
    found: list[ModuleType] = []
    when_imported("arriving.table", found.append)
    spec = importlib.util.find_spec("arriving.table")
    assert spec is not None and spec.loader is not None
    assert spec.loader.get_source("arriving.table") == "ready = True"  # type: ignore[attr-defined]
    assert found == []
    importlib.import_module("arriving.table")
    assert len(found) == 1


def test_several_may_wait_for_the_same(package: str) -> None:
    found: list[str] = []
    when_imported("arriving.table", lambda _: found.append("first"))
    when_imported("arriving.table", lambda _: found.append("second"))
    importlib.import_module("arriving.table")
    assert sorted(found) == ["first", "second"]


def test_a_module_that_fails_or_is_missing_does_so_as_ever(package: str) -> None:
    found: list[ModuleType] = []
    when_imported("arriving.broken", found.append)
    when_imported("arriving.missing", found.append)
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("arriving.broken")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("arriving.missing")
    assert found == []
