"""What the cases of the conformance suite say what must hold with."""

import os
from pathlib import Path
from typing import Any

import pytest

from manyhands.testing.checks import open_folder


def test_a_folder_goes_though_something_is_added_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[Path] = []
    remove = os.rmdir

    def add_and_remove(path: Any, **options: Any) -> None:
        if not late:
            late.append(folder / "late")
            late[0].touch()
        remove(path, **options)

    monkeypatch.setattr(os, "rmdir", add_and_remove)
    with open_folder() as folder:
        (folder / "early").touch()
    assert late
    assert not folder.exists()


def test_a_folder_goes_when_the_case_fails() -> None:
    with pytest.raises(ValueError, match="on purpose"), open_folder() as folder:
        raise ValueError("on purpose")
    assert not folder.exists()
