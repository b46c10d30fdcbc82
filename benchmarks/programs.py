"""Small whole programs, one per contender, for rows that time or weigh a process.

They are programs as a user writes them, without a line of this package: importing it would
add the same cost to all and so blur their ratio.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.contenders import ENTRIES, EVERYONE, OURS


@dataclass(frozen=True)
class Program:
    """The three parts of a program.

    Attributes
    ----------
    title : str
        Its name in tables.
    opening : str
        Statements that bring up two workers.
    mapping : str
        Expression with the list of ``{function}`` over ``{items}``.
    closing : str
        Statements that end the workers.
    """

    title: str
    opening: str
    mapping: str
    closing: str = ""


def _write_pool(method: str) -> Program:
    return Program(
        f"multiprocessing.Pool, {method}",
        f"import multiprocessing as m; p = m.get_context('{method}').Pool(2)",
        "p.map({function}, {items})",
        "p.close(); p.join()",
    )


PROGRAMS = {
    OURS: Program("manyhands", "import manyhands as mh", "mh.map({function}, {items})"),
    "pool": _write_pool("fork"),
    "pool-spawn": _write_pool("spawn"),
    "executor": Program(
        "ProcessPoolExecutor, fork",
        "import multiprocessing as m; from concurrent.futures import ProcessPoolExecutor as P; "
        "p = P(2, mp_context=m.get_context('fork'))",
        "list(p.map({function}, {items}))",
        "p.shutdown()",
    ),
    "joblib": Program(
        "joblib",
        "from joblib import Parallel, delayed",
        "Parallel(n_jobs=2)(delayed({function})(x) for x in {items})",
    ),
    "loky": Program(
        "loky",
        "import loky; p = loky.ProcessPoolExecutor(2)",
        "list(p.map({function}, {items}))",
        "p.shutdown()",
    ),
    "mpire": Program(
        "mpire",
        "import mpire; p = mpire.WorkerPool(n_jobs=2, keep_alive=True)",
        "p.map({function}, {items})",
        "p.stop_and_join()",
    ),
    "ray": Program(
        "Ray",
        "import ray; ray.init(address='local', num_cpus=2, include_dashboard=False, "
        "log_to_driver=False, logging_level=40, object_store_memory=200 * 2**20, "
        "_node_ip_address='127.0.0.1'); f = ray.remote(lambda g, x: g(x))",
        "ray.get([f.remote({function}, x) for x in {items}])",
        "ray.shutdown()",
    ),
    "dask": Program(
        "Dask distributed",
        "import distributed as d; c = d.Client(d.LocalCluster(n_workers=2, threads_per_worker=1, "
        "host='127.0.0.1', dashboard_address=None))",
        "c.gather(c.map({function}, {items}, pure=False))",
        "c.cluster.close(); c.close()",
    ),
    "parsl": Program(
        "Parsl",
        "import parsl; from parsl.executors import HighThroughputExecutor as H; "
        "from parsl.providers import LocalProvider as L; k = parsl.load(parsl.Config("
        "executors=[H(address='127.0.0.1', max_workers_per_node=2, encrypted=False, "
        "provider=L(init_blocks=1, min_blocks=1, max_blocks=1))], strategy='none', "
        "initialize_logging=False)); f = parsl.python_app(lambda g, x: g(x))",
        "[r.result() for r in [f({function}, x) for x in {items}]]",
        "k.cleanup()",
    ),
}
"""By contender, and ``pool-spawn``."""

IMPORTS = {
    "executor": "concurrent.futures.process",
    "pool": "multiprocessing.pool",
    **{name: ENTRIES[name].package for name in EVERYONE if name not in ("executor", "pool")},
}
"""What a user of each contender imports."""


def list_program_titles(*names: str) -> dict[str, str]:
    """Titles of these programs, by name and in this order."""
    return {name: PROGRAMS[name].title for name in names}


def write_start_command(name: str) -> list[str]:
    """Command of a program that maps one item, prints ``[1]`` and ends."""
    program = PROGRAMS[name]
    mapping = program.mapping.format(function="abs", items="[-1]")
    return _write_command([program.opening, f"print({mapping})", program.closing])


def write_idle_command(name: str) -> list[str]:
    """Command of a program that uses both workers, prints ``idle`` and waits for its input's end.

    The calls sleep, so that the first worker to come up cannot take all of them.
    """
    program = PROGRAMS[name]
    mapping = program.mapping.format(function="time.sleep", items="[0.05] * 4")
    waiting = "print('idle', flush=True); sys.stdin.read()"
    return _write_command(["import sys, time", program.opening, mapping, waiting, program.closing])


def _write_command(statements: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", "\n".join(line for line in statements if line)]
