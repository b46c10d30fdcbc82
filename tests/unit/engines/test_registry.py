"""Names of engines to engines."""

import re
import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType
from typing import Any

import pytest

from manyhands.engines.inline import InlineEngine
from manyhands.engines.local.engine import LocalEngine
from manyhands.engines.registry import ENTRY_POINTS, create_engine, list_engines
from manyhands.engines.threads import ThreadsEngine
from manyhands.errors import EngineNotInstalledError, InvalidArgumentError, UnknownEngineError


class Foreign:
    """An engine of another package."""


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("other_package")
    module.Foreign = Foreign
    monkeypatch.setitem(sys.modules, "other_package", module)
    points = [
        EntryPoint("foreign", "other_package:Foreign", ENTRY_POINTS),
        EntryPoint("local", "other_package:Foreign", ENTRY_POINTS),
        EntryPoint("else", "other_package:Foreign", "another.group"),
    ]
    monkeypatch.setattr(
        "importlib.metadata.entry_points",
        lambda **wanted: EntryPoints(points).select(**wanted),
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("local", LocalEngine), ("threads", ThreadsEngine), ("inline", InlineEngine)],
)
def test_built_in_engines_are_made_by_name(name: str, kind: type) -> None:
    engine = create_engine(name)
    assert type(engine) is kind
    assert engine.name == name
    assert create_engine(name) is not engine


def test_built_in_engines_are_available() -> None:
    infos = {info.name: info for info in list_engines()}
    assert {"local", "threads", "inline"} <= infos.keys()
    for name in ("local", "threads", "inline"):
        assert infos[name].available
        assert infos[name].summary
        assert infos[name].install_hint == ""


@pytest.mark.parametrize("name", ["", "Local", "rays", "local "])
def test_an_unknown_name_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UnknownEngineError, match=re.escape(repr(name))) as caught:
        create_engine(name)
    assert isinstance(caught.value, ValueError)
    for known in ("'local'", "'threads'", "'inline'"):
        assert known in str(caught.value)


def test_another_package_can_add_an_engine(foreign: None) -> None:
    assert type(create_engine("foreign")) is Foreign
    assert "other_package:Foreign" in {i.name: i for i in list_engines()}["foreign"].summary


def test_another_package_cannot_take_a_built_in_name(foreign: None) -> None:
    assert type(create_engine("local")) is LocalEngine


def test_other_entry_points_are_no_engines(foreign: None) -> None:
    with pytest.raises(UnknownEngineError, match="'foreign'"):
        create_engine("else")


@pytest.mark.parametrize("name", ["dask", "dask://"])
def test_a_cluster_needs_an_address(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"dask://HOST:PORT, or dask://local"):
        create_engine(name)


def test_other_engines_have_none() -> None:
    with pytest.raises(InvalidArgumentError, match="'threads' has no address"):
        create_engine("threads://here")


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EngineNotInstalledError, match=r"distributed.*manyhands\[dask\]"):
        create_engine("dask://local")
    infos = {info.name: info for info in list_engines()}
    assert not infos["dask"].available
    assert "manyhands[dask]" in infos["dask"].install_hint
