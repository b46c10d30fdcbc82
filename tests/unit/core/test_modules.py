"""Which modules travel by value."""

import importlib
import itertools
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from manyhands.core.modules import ModuleSurvey, find_process_start, needs_site

numbers = itertools.count(1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on `sys.path`."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


SOURCE = """\
import functools

FACTOR = 2

def scale(x):
    return x * FACTOR

def decorate(fn):
    return functools.lru_cache(fn)

@decorate
def cached(x):
    return x + 10

class Thing:
    limit = 100

    def method(self):
        return 20

    @property
    def prop(self):
        return 30

    @staticmethod
    def static():
        return 40

    @classmethod
    def klass(cls):
        return 50

    class Inner:
        def deep(self):
            return 60
"""


def load(folder: Path, source: str = SOURCE) -> ModuleType:
    """A fresh module of the folder, imported."""
    name = f"surveyed_{next(numbers)}"
    (folder / f"{name}.py").write_text(source)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@pytest.mark.parametrize(
    "name", ["builtins", "sys", "json", "os", "importlib", "zipimport", "manyhands.core.modules"]
)
def test_what_every_process_finds_travels_by_name(name: str) -> None:
    importlib.import_module(name)
    assert not ModuleSurvey().travels_by_value(name)


def test_main_travels_by_value() -> None:
    assert ModuleSurvey().travels_by_value("__main__")


def test_an_unknown_module_travels_by_name() -> None:
    assert not ModuleSurvey().travels_by_value("no_such_module_at_all")


def test_a_module_as_it_was_imported_travels_by_name(folder: Path) -> None:
    module = load(folder)
    assert not ModuleSurvey().travels_by_value(module.__name__)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x * FACTOR", "x + FACTOR"),
        ("FACTOR = 2", "FACTOR = 3"),
        ("return x + 10", "return x + 11"),
        ("limit = 100", "limit = 101"),
        ("return 20", "return 21"),
        ("return 30", "return 31"),
        ("return 40", "return 41"),
        ("return 50", "return 51"),
        ("return 60", "return 61"),
        ("def method(", "def renamed("),
    ],
    ids=[
        "function",
        "constant",
        "decorated",
        "class-attribute",
        "method",
        "property",
        "staticmethod",
        "classmethod",
        "inner-class",
        "renamed",
    ],
)
def test_an_edit_is_seen(folder: Path, old: str, new: str) -> None:
    module = load(folder)
    assert old in SOURCE
    Path(str(module.__file__)).write_text(SOURCE.replace(old, new))
    assert ModuleSurvey().travels_by_value(module.__name__)


@pytest.mark.parametrize("source", ["def (", "x = '\0'"], ids=["syntax", "null"])
def test_a_file_that_does_not_compile_any_more_is_changed(folder: Path, source: str) -> None:
    module = load(folder)
    Path(str(module.__file__)).write_text(source)
    assert ModuleSurvey().travels_by_value(module.__name__)


def test_a_file_that_is_gone_is_changed(folder: Path) -> None:
    module = load(folder)
    Path(str(module.__file__)).unlink()
    importlib.invalidate_caches()
    assert ModuleSurvey().travels_by_value(module.__name__)


def test_a_module_that_another_file_shadows_travels_by_value(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(folder)
    nearer = folder / "nearer"
    nearer.mkdir()
    (nearer / f"{module.__name__}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(nearer)
    assert ModuleSurvey().travels_by_value(module.__name__)


def test_a_module_off_the_path_travels_by_value(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    file = elsewhere / "off_the_path.py"
    file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("off_the_path", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules["off_the_path"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        assert ModuleSurvey().travels_by_value("off_the_path")
    finally:
        del sys.modules["off_the_path"]


def test_a_module_that_was_made_by_hand_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_by_hand", ModuleType("made_by_hand"))
    assert ModuleSurvey().travels_by_value("made_by_hand")


def test_packages_travel_by_name(folder: Path) -> None:
    name = f"surveyed_{next(numbers)}"
    for package in (name, f"{name}/regular", f"{name}/namespace"):
        (folder / package).mkdir()
    (folder / name / "__init__.py").touch()
    (folder / name / "regular" / "__init__.py").write_text(SOURCE)
    (folder / name / "namespace" / "leaf.py").write_text(SOURCE)
    importlib.invalidate_caches()
    survey = ModuleSurvey()
    for part in ("", ".regular", ".namespace", ".namespace.leaf"):
        importlib.import_module(name + part)
        assert not survey.travels_by_value(name + part), part


def test_a_submodule_of_a_package_that_is_not_found_travels_by_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("made_package", "made_package.leaf"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert ModuleSurvey().travels_by_value("made_package.leaf")


def test_a_finder_that_fails_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def find_spec(self, *args: object) -> None:
            raise RuntimeError("not me")

    module = load(folder)
    monkeypatch.setattr(sys, "meta_path", [Failing(), object(), *sys.meta_path])
    assert not ModuleSurvey().travels_by_value(module.__name__)


def test_a_module_is_looked_at_once(folder: Path) -> None:
    module = load(folder)
    survey = ModuleSurvey()
    assert not survey.travels_by_value(module.__name__)
    Path(str(module.__file__)).unlink()
    assert not survey.travels_by_value(module.__name__)


def test_the_process_started_a_while_ago() -> None:
    start = find_process_start()
    assert time.time() - 86400 < start <= time.time()


def test_an_editable_installs_finder_needs_site(monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = [finder for finder in sys.meta_path if isinstance(finder, type)]
    monkeypatch.setattr(sys, "meta_path", ordinary[:1])
    assert not needs_site()
    finder = type("Finder", (), {"__module__": "__editable___thing_finder"})
    monkeypatch.setattr(sys, "meta_path", [*ordinary[:1], finder])
    assert needs_site()
    monkeypatch.setattr(sys, "meta_path", [*ordinary[:1], finder()])
    assert needs_site()
