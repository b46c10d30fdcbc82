"""``manyhands doctor``: what the library sees of this machine, and whether its engine works here."""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import manyhands as mh
from manyhands.core.machine import Memory, SharedMemory, read_memory, read_shared_memory
from manyhands.core.sizes import format_size
from manyhands.engines.local.cpus import THREAD_VARIABLES, CpuLimits, describe_cpus
from manyhands.engines.registry import EngineInfo, list_engines

if TYPE_CHECKING:
    from rich.console import Console

COLD_CALLS = 50
"""No-op calls before those that are timed."""

WARM_CALLS = 300
"""No-op calls that are timed."""

SHARED_BYTES = 1 << 20
"""Of the value that tries the store."""

PATIENCE = 60.0
"""Seconds for the first call, after which the engine is said not to work."""


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker tells of itself."""

    pid: int
    start_method: str
    """"fork" or "spawn"; "unknown" where the system has no ``/proc``."""
    threads: dict[str, str | None]
    """`THREAD_VARIABLES` as it has them; None for those that are not set."""


@dataclass(frozen=True)
class StoreTrial:
    """A try of the store for large values, with the limits that a session has by default; sizes in bytes."""

    limit: int
    disk_limit: int
    folder: str
    problem: str | None
    """Why a value cannot be shared and freed again; None where it can."""


@dataclass(frozen=True)
class Trial:
    """A measured try of the default engine."""

    engine: str
    workers: int
    worker: WorkerFacts
    start_seconds: float
    """From opening the session to the first result."""
    round_trip_seconds: float
    """Median of `WARM_CALLS` calls, submitted one at a time."""
    store: StoreTrial | None
    """None where the engine needs none."""


@dataclass(frozen=True)
class Findings:
    """All that the doctor finds."""

    python: dict[str, Any]
    cpus: CpuLimits
    memory: Memory
    shared_memory: SharedMemory
    engines: list[EngineInfo]
    trial: Trial | None
    """None where the engine does not work at all."""
    problem: str | None
    """What does not work; None where all does."""


def run_doctor(*, as_json: bool) -> int:
    """Look at this machine, try the engine, print what was found; return the exit code."""
    findings = examine()
    if as_json:
        print(json.dumps(describe(findings), indent=2))
    else:
        show(findings)
    if findings.problem is not None:
        print(f"manyhands: the engine does not work here: {findings.problem}", file=sys.stderr)
        return 1
    return 0


def examine() -> Findings:
    """Look at this machine and try the engine; a failing engine is a finding, not an error."""
    trial, problem = None, None
    try:
        trial = try_engine()
        if trial.store is not None and trial.store.problem is not None:
            problem = f"large values cannot be shared: {trial.store.problem}"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    return Findings(
        python=describe_python(),
        cpus=describe_cpus(),
        memory=read_memory(),
        shared_memory=read_shared_memory(),
        engines=list_engines(),
        trial=trial,
        problem=problem,
    )


def try_engine() -> Trial:
    """Start the default engine, look into a worker, and time no-op calls.

    Raises
    ------
    TimeoutError
        If the first call gave no result within `PATIENCE` seconds.
    Exception
        Whatever keeps the engine from working.
    """
    start = time.perf_counter()
    with mh.Session() as session:
        # Of all calls that do nothing, one whose function is in every process already.
        session.submit(os.getpid).result(timeout=PATIENCE)
        start_seconds = time.perf_counter() - start
        worker = session.submit(examine_worker).result(timeout=PATIENCE)
        rounds = [time_round_trip(session) for _ in range(COLD_CALLS + WARM_CALLS)]
        return Trial(
            engine=session.engine,
            workers=session.workers,
            worker=worker,
            start_seconds=start_seconds,
            round_trip_seconds=statistics.median(rounds[COLD_CALLS:]),
            store=try_store(session) if session.capabilities.stores else None,
        )


def time_round_trip(session: mh.Session) -> float:
    """Return the seconds from submitting one no-op call to having its result."""
    start = time.perf_counter()
    session.submit(os.getpid).result(timeout=PATIENCE)
    return time.perf_counter() - start


def try_store(session: mh.Session) -> StoreTrial:
    """Read the limits of the session's store, and share a value by it."""
    try:
        problem = share_value(session)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    report = session.memory()
    return StoreTrial(report.limit or 0, report.disk_limit, tempfile.gettempdir(), problem)


def share_value(session: mh.Session) -> str | None:
    """Store a value, have a worker read it, and let go of it; return what went wrong."""
    value = bytes(range(256)) * (SHARED_BYTES // 256)
    ref: Any = session.put(value)
    number = ref.id
    if session.submit(zlib.crc32, ref).result(timeout=PATIENCE) != zlib.crc32(value):
        return "a worker read another value than was stored"
    del ref
    if any(stored.id == number for stored in session.memory().values):
        return "a value that nobody needs was not freed"
    return None


def examine_worker() -> WorkerFacts:
    """Look at the process that runs this."""
    return WorkerFacts(os.getpid(), read_start_method(), read_thread_settings(os.environ))


def read_start_method() -> str:
    """Tell how this process was made, if a process of manyhands made it.

    A fork keeps its parent's command line, an interpreter started afresh has one of its own.
    """
    try:
        own = Path("/proc/self/cmdline").read_bytes()
        parents = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return "unknown"
    return "fork" if own == parents else "spawn"


def read_thread_settings(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Read what numeric libraries would; None where a variable is not set."""
    return {name: environment.get(name) for name in THREAD_VARIABLES}


def describe_python() -> dict[str, Any]:
    """Describe the running interpreter."""
    is_gil_enabled = getattr(sys, "_is_gil_enabled", None)  # from Python 3.13 on
    return {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "executable": sys.executable,
        "gil": True if is_gil_enabled is None else bool(is_gil_enabled()),
        "platform": platform.platform(),
    }


def describe(findings: Findings) -> dict[str, Any]:
    """Describe the findings as plain data, as ``--json`` prints them."""
    trial = findings.trial
    here = read_thread_settings(os.environ)
    there = {} if trial is None else trial.worker.threads
    return {
        "manyhands": mh.__version__,
        "works": findings.problem is None,
        "problem": findings.problem,
        "python": findings.python,
        "cpus": _list_slots(findings.cpus),
        "memory": asdict(findings.memory),
        "shared_memory": asdict(findings.shared_memory),
        "threads": {
            name: {"here": here[name], "workers": there.get(name)} for name in THREAD_VARIABLES
        },
        "engines": [_list_slots(engine) for engine in findings.engines],
        "trial": None
        if trial is None
        else {
            "engine": trial.engine,
            "workers": trial.workers,
            "start_method": describe_start_method(trial),
            "start_seconds": trial.start_seconds,
            "round_trip_seconds": trial.round_trip_seconds,
            "store": None if trial.store is None else asdict(trial.store),
        },
    }


def describe_start_method(trial: Trial) -> str:
    """Name how workers are made: "fork", "spawn", or "none" where they share this process."""
    return "none" if trial.worker.pid == os.getpid() else trial.worker.start_method


def show(findings: Findings) -> None:
    """Print the findings for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in _list_rows(findings):
        table.add_row(name, words)
    console.print(table)
    _show_threads(console, findings.trial)
    _show_engines(console, findings.engines)


def _list_rows(findings: Findings) -> list[tuple[str, str]]:
    python, trial = findings.python, findings.trial
    gil = "with the GIL" if python["gil"] else "without the GIL"
    rows = [
        ("manyhands", mh.__version__),
        ("Python", f"{python['implementation']} {python['version']}, {gil}"),
        ("system", python["platform"]),
        ("cores", _describe_cores(findings.cpus)),
        ("memory", _describe_memory(findings.memory)),
        ("shared memory", _describe_shared_memory(findings.shared_memory)),
    ]
    if trial is None:
        return [*rows, ("engine", f"does not work: {findings.problem}")]
    start = f"{trial.start_seconds * 1e3:.0f} ms from nothing to the first result"
    median = f"{trial.round_trip_seconds * 1e6:.0f} µs"
    return [
        *rows,
        ("engine in use", f"{trial.engine}, {trial.workers} workers"),
        ("start method", describe_start_method(trial)),
        ("start", start),
        ("round trip", f"{median} for a call that does nothing (median of {WARM_CALLS})"),
        *_list_store_rows(trial),
    ]


def _list_store_rows(trial: Trial) -> list[tuple[str, str]]:
    store = trial.store
    if store is None:
        return [("store", f"none: the engine {trial.engine} hands over the objects themselves")]
    size = format_size(SHARED_BYTES)
    state = f"{size} shared with a worker and freed" if store.problem is None else store.problem
    return [
        ("store", f"{format_size(store.limit)} of memory; {state}"),
        ("spill", f"{format_size(store.disk_limit)} in {store.folder}"),
    ]


def _describe_cores(cpus: CpuLimits) -> str:
    quota = "no limit" if cpus.quota is None else f"{cpus.quota:g}"
    bounds = f"machine {cpus.machine}, affinity {cpus.affinity}, control group {quota}"
    return f"{cpus.usable} to use ({bounds})"


def _describe_memory(memory: Memory) -> str:
    machine, free = _format_size(memory.machine), _format_size(memory.machine_available)
    limit = _format_size(memory.group_limit, none="no limit")
    return (
        f"{_format_size(memory.available)} to use "
        f"(machine {machine}, of which {free} available, control group {limit})"
    )


def _describe_shared_memory(shared: SharedMemory) -> str:
    memfd = "memfd works" if shared.memfd else "no memfd"
    if shared.size is None:
        return f"{memfd}; no /dev/shm"
    return f"{memfd}; /dev/shm {_format_size(shared.size)}, {_format_size(shared.free)} free"


def _show_threads(console: "Console", trial: Trial | None) -> None:
    from rich.table import Table

    table = Table(title="Inner threads of numeric libraries", title_justify="left")
    for heading in ("variable", "here", "in workers"):
        table.add_column(heading)
    for name, here in read_thread_settings(os.environ).items():
        there = "unknown" if trial is None else trial.worker.threads[name] or "not set"
        table.add_row(name, here or "not set", there)
    console.print()
    console.print(table)


def _show_engines(console: "Console", engines: list[EngineInfo]) -> None:
    from rich.table import Table

    table = Table(title="Engines", title_justify="left")
    table.add_column("name")
    table.add_column("installed")
    table.add_column("what it is", overflow="fold")
    for engine in engines:
        state = "yes" if engine.available else f"no: {engine.install_hint}"
        table.add_row(engine.name, state, engine.summary)
    console.print(table)


def _format_size(size: int | None, *, none: str = "unknown") -> str:
    return none if size is None else f"{size / (1 << 30):.1f} GiB"


def _list_slots(value: object) -> dict[str, object]:
    """The attributes of an object that has slots."""
    names: tuple[str, ...] = type(value).__slots__  # type: ignore[attr-defined]
    return {name: getattr(value, name) for name in names}
