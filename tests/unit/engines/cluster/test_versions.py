"""Whether a program and the workers of a cluster can read what they send each other."""

import platform

import pytest

from manyhands.engines.cluster.versions import explain_difference, tell_versions


def test_versions_of_this_process() -> None:
    found = tell_versions()
    assert platform.python_version().startswith(found["Python"] + ".")
    assert found["manyhands"]
    assert found["cloudpickle"]


def test_the_same_versions_are_well() -> None:
    assert explain_difference(tell_versions()) is None
    assert explain_difference({**tell_versions(), "numpy": "0.1"}) is None


@pytest.mark.parametrize("name", ["Python", "cloudpickle", "manyhands"])
def test_another_version_is_named(name: str) -> None:
    own = tell_versions()
    words = explain_difference({**own, name: "0.0.1"})
    assert words is not None
    assert f"it has {name} 0.0.1, and this program {own[name]}" in words
    assert "install the same" in words
    assert words.count("and this program") == 1


def test_all_differences_are_named() -> None:
    words = explain_difference({"Python": "2.7"})
    assert words is not None
    for difference in ("Python 2.7", "cloudpickle None", "manyhands None"):
        assert difference in words


def test_a_worker_without_the_package() -> None:
    words = explain_difference(ModuleNotFoundError("No module named 'manyhands'"))
    assert words is not None
    assert "ModuleNotFoundError: No module named 'manyhands'" in words
    assert f"Install the same version as here ({tell_versions()['manyhands']})" in words
