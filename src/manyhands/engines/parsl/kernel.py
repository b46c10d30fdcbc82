"""Which of Parsl's DataFlowKernels a session uses, and how one is started."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import threading
from importlib import util
from pathlib import Path

import parsl
from parsl.config import Config
from parsl.dataflow.dflow import DataFlowKernel
from parsl.errors import NoDataFlowKernelError
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD, HighThroughputExecutor
from parsl.jobs.error_handlers import windowed_error_handler
from parsl.providers import LocalProvider

from manyhands.engines.parsl import guard
from manyhands.errors import InvalidArgumentError, WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any

_HOST = "127.0.0.1"
"""Where a cluster of this machine listens; nobody else reaches it."""

_HEARTBEAT_SECONDS = 1
_LOSS_SECONDS = 20
"""On this machine: how often Parsl looks after its processes, and how long one may be silent."""

_MODULES = "parsl.executors.high_throughput"


class Kernel:
    """A DataFlowKernel, and the executor of it that a session uses.

    Parameters
    ----------
    address
        ``"local"`` for workers of this machine; ``"current"`` for what the program has loaded; else the import path of
        a module, or the path of a file, that has a `config`. One that is not current is the session's own.
    workers
        How many workers those of this machine are to be; 0 for as many as there are cores.

    Raises
    ------
    InvalidArgumentError, WorkerStartError
    """

    def __init__(self, address: str, workers: int) -> None:
        self._is_ours = address != "current"
        self._folder = ""
        if address == "current":
            self._kernel = _find_current()
        else:
            try:
                if address == "local":
                    self._folder = tempfile.mkdtemp(prefix="manyhands-parsl-")
                    config = make_local_config(workers, self._folder)
                else:
                    config = load_config(address)
                _find_executor(config.executors, address)
                self._kernel = DataFlowKernel(config)
            except Exception as cause:
                self._clear()
                if isinstance(cause, InvalidArgumentError):
                    raise
                raise WorkerStartError(
                    f"Parsl could not be started with {address!r}: {type(cause).__name__}: {cause}"
                ) from cause
        self.executor = _find_executor(self._kernel.executors.values(), address)
        self.run_dir = os.path.abspath(self._kernel.run_dir)

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a worker call a function."""
        # Not by the kernel, which would try it again where the program's configuration says so.
        with self._kernel.submitter_lock:
            future: Future[Any] = self.executor.submit(function, {}, *args)
        return future

    def count_workers(self) -> int:
        """How many there are, or can be as far as Parsl knows."""
        executor = self.executor
        provider: Any = executor.provider
        client: Any = executor.command_client
        connected = client.run("MANAGERS", timeout_s=_LOSS_SECONDS)
        there = [manager["worker_count"] for manager in connected]
        most = (
            provider.max_blocks
            * provider.nodes_per_block
            * max([int(executor.workers_per_node), *there])
        )
        return int(max(most, sum(there)))

    def close(self) -> None:
        """End it where it is the session's own."""
        if self._is_ours:
            if not self.has_interchange():
                self._end_without_interchange()
            self._kernel.cleanup()
            self._clear()

    def has_interchange(self) -> bool:
        """Whether Parsl's interchange runs, which all of its messages go by."""
        process = self.executor.interchange_proc
        return process is not None and process.poll() is None

    def _end_without_interchange(self) -> None:
        """Have Parsl's threads not wait for its answers, and end the blocks that it would be asked about."""
        executor: Any = self.executor
        executor.set_bad_state_and_fail_all(ConnectionError("the interchange has ended"))
        # Whoever waits for an answer gets an error; and Parsl's clean-up would end the context a second time, and hang.
        client = executor.command_client
        client.ok = False
        end = threading.Thread(target=client.zmq_context.term, daemon=True)
        end.start()
        with client._lock:
            client.zmq_socket.close()
        end.join(_LOSS_SECONDS)
        del executor.command_client
        executor.provider.cancel(list(executor.blocks_to_job_id.values()))

    def _clear(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def make_local_config(workers: int, folder: str) -> Config:
    """What workers of this machine are started with.

    Parameters
    ----------
    workers
        How many; 0 for as many as there are cores.
    folder
        For all files; it is removed when this program has ended, however it did.
    """
    guarded = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid())]
    python = [sys.executable, "-m"]
    pool = shlex.join([*guarded, folder, *python, f"{_MODULES}.process_worker_pool"])
    # As one of a cluster of Parsl's own would, but that it finds what this process finds.
    init = f"export PYTHONPATH={shlex.quote(os.pathsep.join(map(os.path.abspath, sys.path)))}"
    executor = HighThroughputExecutor(
        label="manyhands",
        address=_HOST,
        loopback_address=_HOST,
        provider=LocalProvider(  # type: ignore[no-untyped-call]
            init_blocks=1, min_blocks=1, max_blocks=1, worker_init=init
        ),
        max_workers_per_node=workers or len(os.sched_getaffinity(0)),
        cores_per_worker=1e-3,  # as many as are asked for
        launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", pool),
        interchange_launch_cmd=[*guarded, "", *python, f"{_MODULES}.interchange"],
        heartbeat_period=_HEARTBEAT_SECONDS,
        heartbeat_threshold=_LOSS_SECONDS,
        block_error_handler=windowed_error_handler,  # a block that is killed once is replaced
        encrypted=True,
    )
    return Config(
        executors=[executor],
        run_dir=folder,
        strategy="simple",
        strategy_period=_HEARTBEAT_SECONDS,
        initialize_logging=False,
        usage_tracking=0,
    )


def load_config(address: str) -> Config:
    """The `config` of a module that is named by its import path, or of a file.

    A fresh one each time: Parsl starts each but once.

    Raises
    ------
    InvalidArgumentError
    """
    try:
        spec = (
            util.spec_from_file_location(Path(address).stem, address)
            if address.endswith(".py")
            else util.find_spec(address)
        )
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"there is no module {address!r}")
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as cause:
        raise InvalidArgumentError(
            f"engine='parsl://{address}': {type(cause).__name__}: {cause}. It is parsl://MODULE or parsl://FILE.py "
            f"with a `config` of Parsl's, parsl://local for workers of this machine, or parsl://current for what is "
            f"loaded"
        ) from cause
    config = getattr(module, "config", None)
    if not isinstance(config, Config):
        raise InvalidArgumentError(
            f"engine='parsl://{address}': {spec.origin} has no `config` that is a parsl.config.Config"
        )
    return config


def _find_current() -> DataFlowKernel:
    try:
        return parsl.dfk()
    except NoDataFlowKernelError as cause:
        raise WorkerStartError(
            "engine='parsl://current': this program has loaded no configuration of Parsl's; call parsl.load(config) "
            "before, or use 'parsl://local'"
        ) from cause


def _find_executor(executors: Any, address: str) -> HighThroughputExecutor:
    for executor in executors:
        if isinstance(executor, HighThroughputExecutor) and not executor.enable_mpi_mode:
            return executor
    there = ", ".join(type(executor).__name__ for executor in executors)
    raise InvalidArgumentError(
        f"engine='parsl://{address}': it needs a HighThroughputExecutor, and there is {there or 'no executor'}"
    )
