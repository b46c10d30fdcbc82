"""Who takes part: names, titles, and where each adapter stands."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import cast

from benchmarks.contenders.contender import Contender
from benchmarks.work import noop, pause

OURS = "manyhands"
BEFORE = "manyhands-before"
"""Ours as it is in another checkout, such as that of an earlier commit."""


@dataclass(frozen=True)
class Entry:
    """What is known of a contender before it is imported.

    Attributes
    ----------
    title : str
        Its name in tables.
    package : str
        The import name that must be found, else the contender is left out.
    adapter : str
        ``module:class`` of the adapter; empty for a reference that a row measures by itself.
    heavy : bool
        Slow to start and to call: it gets fewer rounds and fewer calls.
    peer : bool
        Whether it competes; references such as bare processes do not.
    interpreter : str
        The environment variable that names an interpreter which has it, where it cannot be installed beside the
        others; empty where it can.
    """

    title: str
    package: str
    adapter: str
    heavy: bool = False
    peer: bool = True
    interpreter: str = ""


ENTRIES = {
    OURS: Entry(
        "manyhands",
        "manyhands",
        "benchmarks.contenders.manyhands:ManyhandsContender",
        peer=False,
    ),
    "pool": Entry(
        "multiprocessing.Pool",
        "multiprocessing",
        "benchmarks.contenders.pool:PoolContender",
    ),
    "executor": Entry(
        "ProcessPoolExecutor",
        "concurrent.futures",
        "benchmarks.contenders.executor:ExecutorContender",
    ),
    "joblib": Entry("joblib", "joblib", "benchmarks.contenders.joblib:JoblibContender"),
    "loky": Entry("loky", "loky", "benchmarks.contenders.loky:LokyContender"),
    "mpire": Entry("mpire", "mpire", "benchmarks.contenders.mpire:MpireContender"),
    "ray": Entry("Ray", "ray", "benchmarks.contenders.ray:RayContender", heavy=True),
    "dask": Entry(
        "Dask distributed", "distributed", "benchmarks.contenders.dask:DaskContender", heavy=True
    ),
    "parsl": Entry("Parsl", "parsl", "benchmarks.contenders.parsl:ParslContender", heavy=True),
    "loop": Entry("plain loop", "os", "benchmarks.contenders.loop:LoopContender", peer=False),
    "memcpy": Entry("memcpy", "os", "", peer=False),
    "bare": Entry(
        "bare processes, no library",
        "os",
        "benchmarks.contenders.bare:BareContender",
        peer=False,
    ),
}

VARIANTS = {
    BEFORE: Entry(
        "manyhands of the other checkout",
        OURS,
        "benchmarks.contenders.manyhands:ManyhandsContender",
        peer=False,
    ),
    "manyhands-implicit": Entry(
        "manyhands, without put",
        OURS,
        "benchmarks.contenders.manyhands:ImplicitContender",
        peer=False,
    ),
    "manyhands-empty": Entry(
        "manyhands, mh.empty",
        OURS,
        "benchmarks.contenders.manyhands:BornSharedContender",
        peer=False,
    ),
    "manyhands-none": Entry(
        "manyhands, nothing to send",
        OURS,
        "benchmarks.contenders.manyhands:ManyhandsContender",
        peer=False,
    ),
    "manyhands-executor": Entry(
        "manyhands, by mh.Executor",
        OURS,
        "benchmarks.contenders.executor:DoorContender",
        peer=False,
    ),
    "manyhands-pool": Entry(
        "manyhands, by mh.Pool",
        OURS,
        "benchmarks.contenders.pool:DoorContender",
        peer=False,
    ),
    "manyhands-parsl": Entry(
        "manyhands, by mh.ParslExecutor",
        OURS,
        "benchmarks.contenders.parsl:DoorContender",
        peer=False,
    ),
    "on-dask": Entry("manyhands on Dask", "distributed", "", peer=False, heavy=True),
    "on-ray": Entry("manyhands on Ray", "ray", "", peer=False, heavy=True),
    "on-parsl": Entry("manyhands on Parsl", "parsl", "", peer=False, heavy=True),
    "parsl-threads": Entry(
        "Parsl, ThreadPoolExecutor",
        "parsl",
        "benchmarks.contenders.parsl:ThreadsContender",
    ),
    "dask-threads": Entry("Dask, threads", "dask", ""),
    "dask-processes": Entry("Dask, processes", "dask", "", heavy=True),
    "pandarallel": Entry("pandarallel", "pandarallel", "", interpreter="PANDARALLEL_PYTHON"),
    "pool-segment": Entry(
        "Pool, shared_memory",
        "multiprocessing",
        "benchmarks.contenders.segments:SegmentContender",
    ),
    "pool-kept": Entry(
        "Pool, one kept shared_memory",
        "multiprocessing",
        "benchmarks.contenders.segments:KeptSegmentContender",
    ),
}
"""Other ways to use a contender; who is asked for takes part in all of its ways. And who is in a few rows alone.

The other checkout's takes part where one is given.
"""

PEERS = tuple(name for name, entry in ENTRIES.items() if entry.peer)
EVERYONE = (OURS, *PEERS)


def find_entry(name: str) -> Entry:
    """The entry of `name`; a program such as ``pool-spawn`` has that of its first word."""
    return VARIANTS.get(name) or ENTRIES[name.partition("-")[0]]


def is_wanted(name: str, peers: Collection[str] | None) -> bool:
    """Tell whether `name` is to take part where `peers` are asked for, or None of them in particular.

    Ours and references always are, and a variant is where its library is.
    """
    if peers is None or name in peers or not find_entry(name).peer:
        return True
    return name in VARIANTS and name.partition("-")[0] in peers


def is_installed(name: str) -> bool:
    """Tell whether the contender's package can be imported here, or by an interpreter that is given for it."""
    if find_entry(name).interpreter:
        return bool(os.environ.get(find_entry(name).interpreter))
    spec = find_spec(find_entry(name).package)
    # A folder of that name without a module in it is found too, but has no origin.
    return spec is not None and spec.origin is not None


def find_version(package: str) -> str | None:
    """Version of a package; None for the standard library's and absent ones."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def make_contender(name: str) -> Contender:
    """Import the adapter of `name` and make one, not yet started."""
    module, _, class_name = find_entry(name).adapter.partition(":")
    return cast("Contender", getattr(import_module(module), class_name)())


def list_titles(*names: str) -> dict[str, str]:
    """Titles of these contenders, by name and in this order."""
    return {name: find_entry(name).title for name in names}


@contextmanager
def open_contender(name: str, workers: int) -> Iterator[Contender]:
    """Start a contender, warm every worker of it, and close it in the end."""
    entry = find_entry(name)
    contender = make_contender(name)
    contender.start(workers)
    try:
        if entry.peer or entry.package == OURS:
            # Calls that sleep cannot all be taken by the worker that came up first.
            contender.submit_many(pause, [0.05] * (2 * workers))
            contender.submit_many(noop, range(100))
        yield contender
    finally:
        contender.close()
