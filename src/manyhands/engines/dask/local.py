"""A Dask cluster of this machine, begun for a session, in a process of its own.

There it takes no time from the program's interpreter, it ends with the program however that ends, and its workers do
not run the program's main module once more, as those do that `multiprocessing` starts in the program itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from select import select

from manyhands.errors import WorkerStartError

START_SECONDS = 60
"""How long scheduler and workers have to come up."""

_END_SECONDS = 20
"""How long they have to end."""

_FOR_EVER = "1000d"

_HOST = "127.0.0.1"
"""Where it listens; no other machine reaches it."""

_BEGIN = """
import json, sys
sys.path[:], workers, answer = json.loads(sys.stdin.readline())
from manyhands.engines.dask.local import serve
serve(workers, answer)
"""


class LocalDask:
    """The cluster's process, from the program.

    Parameters
    ----------
    workers
        How many; 0 for one on each core.

    Attributes
    ----------
    address
        Of the scheduler.

    Raises
    ------
    WorkerStartError
    """

    def __init__(self, workers: int) -> None:
        answer, theirs = os.pipe()
        try:
            # A process group of its own: a terminal's Ctrl-C is for the program.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BEGIN],
                stdin=subprocess.PIPE,
                pass_fds=[theirs],
                process_group=0,
                text=True,
            )
            path = [os.path.abspath(entry) for entry in sys.path]
            self._tell(json.dumps([path, workers, theirs]))
        finally:
            os.close(theirs)
        try:
            self.address = self._hear(answer)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(answer)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self, answer: int) -> str:
        if not select([answer], [], [], START_SECONDS)[0]:
            raise WorkerStartError(
                f"a Dask cluster of this machine has not come up in {START_SECONDS} s"
            )
        with open(answer, encoding="utf-8", closefd=False) as pipe:
            said = json.loads(pipe.read() or "{}")
        if "address" not in said:
            raise WorkerStartError(
                f"no Dask cluster could be begun on this machine: {said.get('error', 'its process has ended')}"
            )
        return str(said["address"])

    def close(self) -> None:
        """End it, and wait until it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its workers see that and end
            self._process.wait()


def serve(workers: int, answer: int) -> None:
    """In the process: be a cluster until nobody holds the other end of the standard input.

    Parameters
    ----------
    workers
        How many; 0 for one on each core.
    answer
        The descriptor of a pipe, which is told where the scheduler is, or what went wrong.
    """
    from dask import config
    from distributed import LocalCluster

    from manyhands.engines.dask.scheduler import Revival

    config.set({"distributed.deploy.lost-worker-timeout": _FOR_EVER})  # see `Revival`
    with open(answer, "w", encoding="utf-8") as pipe:
        try:
            cluster = LocalCluster(
                n_workers=workers or None,
                threads_per_worker=1,
                host=_HOST,
                dashboard_address=f"{_HOST}:0",
            )
        except Exception as cause:
            json.dump({"error": f"{type(cause).__name__}: {cause}"}, pipe)
            return
        json.dump({"address": cluster.scheduler_address}, pipe)
    with cluster:
        cluster.scheduler.add_plugin(Revival(cluster))
        sys.stdin.read()
