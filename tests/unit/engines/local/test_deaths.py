"""Why a worker ended, in words."""

import io
import pickle
import signal
from typing import Any

import pytest

from manyhands.engines.local import deaths
from manyhands.engines.local.deaths import count_oom_kills, describe_death
from manyhands.errors import WorkerDiedError


def describe(status: int, *, stderr: tuple[str, ...] = (), oom: bool = False) -> WorkerDiedError:
    return describe_death("simulate", 7, 4321, status, list(stderr), out_of_memory=oom)


@pytest.mark.parametrize(
    ("number", "name", "cause"),
    [
        (signal.SIGKILL, "SIGKILL (signal 9)", "want of memory"),
        (signal.SIGSEGV, "SIGSEGV (signal 11)", "native code"),
        (signal.SIGABRT, "SIGABRT (signal 6)", "abort"),
        (signal.SIGTERM, "SIGTERM (signal 15)", "asked it to end"),
        (signal.SIGXCPU, "SIGXCPU", "processor time"),
        (signal.SIGUSR1, "SIGUSR1", "unknown"),
    ],
)
def test_a_signal_is_named_with_its_likely_cause(number: int, name: str, cause: str) -> None:
    error = describe(number)
    assert f"the worker process 4321 was ended by {name}" in str(error)
    assert "call 7, simulate" in str(error)
    assert cause in str(error)
    assert (error.signal, error.exit_code) == (number, None)
    assert (error.call, error.pid, error.stderr) == ("simulate", 4321, [])


def test_a_core_dump_does_not_hide_the_signal() -> None:
    assert describe(signal.SIGSEGV | 0x80).signal == signal.SIGSEGV


def test_a_signal_without_a_name() -> None:
    error = describe(signal.SIGRTMIN + 3)
    assert f"ended by signal {signal.SIGRTMIN + 3}" in str(error)


def test_the_kernels_own_count_turns_likely_into_known() -> None:
    assert "likely" in str(describe(signal.SIGKILL))
    known = str(describe(signal.SIGKILL, oom=True))
    assert "likely" not in known
    assert "the kernel counts a kill for want of memory" in known
    assert "kernel" not in str(describe(signal.SIGSEGV, oom=True))


@pytest.mark.parametrize("code", [0, 1, 137])
def test_an_exit_tells_its_code(code: int) -> None:
    error = describe(code << 8)
    assert f"exited with code {code}" in str(error)
    assert (error.signal, error.exit_code) == (None, code)


def test_the_last_words_are_shown() -> None:
    error = describe(9, stderr=("first", "second"))
    assert "    first\n    second\n" in str(error)
    assert error.stderr == ["first", "second"]
    assert "wrote nothing" in str(describe(9))


def test_it_says_the_way_out() -> None:
    assert str(describe(9)).endswith("retries=…")


def test_it_travels_whole() -> None:
    error = describe(9, stderr=("x",))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


V2 = "/sys/fs/cgroup/memory.events"
V1 = "/sys/fs/cgroup/memory/memory.oom_control"


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({}, 0),
        ({V2: "low 0\noom 3\noom_kill 2\n"}, 2),
        ({V1: "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"}, 5),
        ({V1: "oom_kill_disable 0\n"}, 0),
        ({V2: "what is this\n", V1: "oom_kill 1\n"}, 1),
    ],
)
def test_kills_for_want_of_memory_are_counted(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], kills: int
) -> None:
    def open_file(path: str, *args: Any) -> io.StringIO:
        if path not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[path])

    monkeypatch.setattr(deaths, "open", open_file, raising=False)
    assert count_oom_kills() == kills
