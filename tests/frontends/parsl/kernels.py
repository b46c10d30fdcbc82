"""Loads kernels with our executor, and apps that several tests use."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import parsl

import manyhands as mh

LIMIT = 60
"""Seconds that any result may take, on a slow and crowded machine."""


@contextmanager
def load_kernel(
    folder: Path, executor: mh.ParslExecutor | None = None, **options: Any
) -> Iterator[parsl.DataFlowKernel]:
    config = parsl.Config(
        executors=[executor or mh.ParslExecutor(workers=2)],
        strategy="none",
        run_dir=str(folder / "runinfo"),
        initialize_logging=False,  # Parsl leaves the file of its log open
        **options,
    )
    with parsl.load(config) as kernel:
        yield kernel


@parsl.python_app
def get_pid() -> int:
    return os.getpid()


@parsl.python_app
def add(left: int, right: int) -> int:
    return left + right


@parsl.python_app
def fail(text: str) -> None:
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError(text) from error


@parsl.python_app
def kill_worker(mark: Path) -> str:
    """Kill the worker at the first attempt."""
    if mark.exists():
        return "done"
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@parsl.python_app
def wait_for_file(path: Path) -> str:
    while not path.exists():
        time.sleep(0.005)
    return "there"


@parsl.python_app
def note(path: Path, word: str, parsl_resource_specification: dict[str, Any] | None = None) -> None:
    with path.open("a") as file:
        file.write(word)


@parsl.bash_app
def echo(
    text: str, stdout: str | None = None, stderr: str | None = None, walltime: float | None = None
) -> str:
    return text
