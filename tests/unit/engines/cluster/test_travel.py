"""Which modules a cluster's workers cannot be expected to have."""

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyhands.engines.cluster.travel import TravelSurvey


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's, beside no others."""
    name = "module_of_a_users_own"
    (tmp_path / f"{name}.py").write_text("def work():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module(name)
    yield name
    del sys.modules[name]


@pytest.mark.parametrize("is_near", [True, False])
@pytest.mark.parametrize(
    "name", ["json", "builtins", "sys", "numpy", "manyhands.core.place", "no_such_module"]
)
def test_what_is_installed_does_not_travel(name: str, is_near: bool) -> None:
    assert not TravelSurvey(is_near=is_near).travels_by_value(name)


@pytest.mark.parametrize("is_near", [True, False])
def test_what_nobody_could_import_travels(is_near: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_here", types.ModuleType("made_here"))
    survey = TravelSurvey(is_near=is_near)
    assert survey.travels_by_value("__main__")
    assert survey.travels_by_value("made_here")


def test_a_module_of_the_users_own_travels_to_other_machines(own_module: str) -> None:
    assert TravelSurvey(is_near=False).travels_by_value(own_module)
    assert not TravelSurvey(is_near=True).travels_by_value(own_module)


def test_a_module_is_no_other_of_the_same_beginning(
    own_module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[own_module]
    monkeypatch.setitem(sys.modules, "manyhandsome", module)
    assert TravelSurvey(is_near=False).travels_by_value("manyhandsome")


def test_what_is_shipped_is_imported_there(own_module: str, tmp_path: Path) -> None:
    for shipped in (tmp_path, tmp_path / f"{own_module}.py"):
        survey = TravelSurvey(is_near=False, shipped=[str(shipped)])
        assert not survey.travels_by_value(own_module)
    other = TravelSurvey(is_near=False, shipped=[str(tmp_path / f"{own_module}.py.txt")])
    assert other.travels_by_value(own_module)


def test_what_is_shipped_under_another_name_travels(own_module: str, tmp_path: Path) -> None:
    """Its folder is not where imports begin: there it would have a longer name."""
    survey = TravelSurvey(is_near=False, shipped=[str(tmp_path.parent)])
    assert survey.travels_by_value(own_module)
