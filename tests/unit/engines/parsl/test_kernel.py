"""Which configuration of Parsl's a session's address means."""

from pathlib import Path

import pytest

import manyhands as mh
from manyhands.engines.parsl.kernel import Kernel, load_config, make_local_config

CONFIG = """
from parsl.config import Config
from parsl.executors import HighThroughputExecutor

config = Config(executors=[HighThroughputExecutor(label="here", address="127.0.0.1")])
"""


def test_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "site_of_a_users_own.py").write_text(CONFIG)
    first, second = (load_config("site_of_a_users_own") for _ in range(2))
    assert first.executors[0].label == "here"
    assert first is not second  # Parsl starts each but once


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "site.py"
    path.write_text(CONFIG)
    assert load_config(str(path)).executors[0].label == "here"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("config = 1\n", "no `config` that is a parsl.config.Config"),
        ("\n", "no `config`"),
        ("import nothing_of_the_kind\n", "nothing_of_the_kind"),
        ("config = (\n", "SyntaxError"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / "site.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(mh.InvalidArgumentError, match=reason) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_module", "parsl.no_such_module", "no.such.module"])
def test_a_wrong_module_is_told(name: str) -> None:
    with pytest.raises(
        mh.InvalidArgumentError, match=r"parsl://MODULE or parsl://FILE\.py"
    ) as caught:
        load_config(name)
    assert name in str(caught.value)


def test_other_executors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.py"
    path.write_text("from parsl.configs.local_threads import config\n")
    with pytest.raises(
        mh.InvalidArgumentError, match="HighThroughputExecutor, and there is ThreadPoolExecutor"
    ):
        Kernel(str(path), 1)


def test_nothing_is_loaded() -> None:
    with pytest.raises(mh.WorkerStartError, match=r"parsl\.load"):
        Kernel("current", 1)


def test_workers_of_this_machine_are_reached_by_nobody_else(tmp_path: Path) -> None:
    (executor,) = make_local_config(3, str(tmp_path)).executors
    assert executor.all_addresses == {"127.0.0.1"}  # type: ignore[attr-defined]
    assert executor.loopback_address == "127.0.0.1"  # type: ignore[attr-defined]
    assert executor.encrypted  # type: ignore[attr-defined]
    assert executor.workers_per_node == 3  # type: ignore[attr-defined]
