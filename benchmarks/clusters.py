"""Clusters of this machine that contenders share no process with: a scheduler, and workers, started by commands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 60.0
"""Seconds that a cluster has to come up."""

_HOST = "127.0.0.1"


@contextmanager
def open_dask(workers: int) -> Iterator[str]:
    """The address of a Dask scheduler with so many workers of one thread each."""
    from distributed import Client

    file = Path("scheduler.json").absolute()
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--no-dashboard", "--port", "0", "--scheduler-file", str(file)]
    processes = [subprocess.Popen([*scheduler, "--host", _HOST])]
    try:
        address = str(json.loads(_await_file(file))["address"])
        worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--host", _HOST]
        processes += [subprocess.Popen(worker) for _ in range(workers)]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=_PATIENCE)
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(_PATIENCE)


def _await_file(file: Path) -> str:
    """The text of a JSON file that a process is about to write."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if file.exists() and (text := file.read_text()).endswith("}"):
            return text
        time.sleep(0.01)
    raise TimeoutError(f"{file.name} was not written in {_PATIENCE:g} s")
