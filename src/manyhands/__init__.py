"""Heavy Python work on every core of one machine, with nothing to set up.

>>> import manyhands as mh
>>> mh.map(lambda x: x * x, range(4))
[0, 1, 4, 9]

Every name is loaded when it is first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from manyhands.frontends.arrival import await_joblib, await_pandas
from manyhands.frontends.dask.arrival import await_dask

TYPE_CHECKING = False  # as `typing` has it, whose import takes 10 ms
if TYPE_CHECKING:
    from manyhands.api.actor import ActorClass, ActorHandle, actor, find_actor
    from manyhands.api.calls import as_completed, gather, submit, wait
    from manyhands.api.data import array, empty, get, put, zeros
    from manyhands.api.files import find_file
    from manyhands.api.mapping import imap, imap_unordered, map, starmap
    from manyhands.api.reporting import report
    from manyhands.api.task import Task, task
    from manyhands.core.future import Future
    from manyhands.core.refs import Ref
    from manyhands.core.stream import Stream
    from manyhands.errors import (
        ActorDiedError,
        CallInterrupted,
        CallTimeoutError,
        DeadlineError,
        DependencyError,
        DoorNotInstalledError,
        EngineNotInstalledError,
        InvalidArgumentError,
        ManyhandsError,
        NotCallableError,
        OutOfMemoryError,
        RemoteError,
        SessionClosedError,
        StoreFullError,
        UnknownEngineError,
        UnloadableError,
        UnpicklableError,
        UnsupportedError,
        WorkerDiedError,
        WorkerError,
        WorkerStartError,
    )
    from manyhands.frontends.dask.arrival import dask_scheduler
    from manyhands.frontends.dask.bags import bag
    from manyhands.frontends.executor import Executor
    from manyhands.frontends.pandas.door import pandas
    from manyhands.frontends.parsl import ParslExecutor
    from manyhands.frontends.pool import Pool
    from manyhands.observe.actors import ActorFact
    from manyhands.observe.memory import MemoryReport
    from manyhands.observe.report import Report
    from manyhands.session import Session, shutdown

__version__ = "0.1.0"

__all__ = [
    "ActorClass",
    "ActorDiedError",
    "ActorFact",
    "ActorHandle",
    "CallInterrupted",
    "CallTimeoutError",
    "DeadlineError",
    "DependencyError",
    "DoorNotInstalledError",
    "EngineNotInstalledError",
    "Executor",
    "Future",
    "InvalidArgumentError",
    "ManyhandsError",
    "MemoryReport",
    "NotCallableError",
    "OutOfMemoryError",
    "ParslExecutor",
    "Pool",
    "Ref",
    "RemoteError",
    "Report",
    "Session",
    "SessionClosedError",
    "StoreFullError",
    "Stream",
    "Task",
    "UnknownEngineError",
    "UnloadableError",
    "UnpicklableError",
    "UnsupportedError",
    "WorkerDiedError",
    "WorkerError",
    "WorkerStartError",
    "actor",
    "array",
    "as_completed",
    "bag",
    "dask_scheduler",
    "empty",
    "find_actor",
    "find_file",
    "gather",
    "get",
    "imap",
    "imap_unordered",
    "map",
    "pandas",
    "put",
    "report",
    "shutdown",
    "starmap",
    "submit",
    "task",
    "wait",
    "zeros",
]

_HOMES = {
    "api.actor": ("ActorClass", "ActorHandle", "actor", "find_actor"),
    "api.calls": ("as_completed", "gather", "submit", "wait"),
    "api.data": ("array", "empty", "get", "put", "zeros"),
    "api.files": ("find_file",),
    "api.mapping": ("imap", "imap_unordered", "map", "starmap"),
    "api.reporting": ("report",),
    "api.task": ("Task", "task"),
    "core.future": ("Future",),
    "core.refs": ("Ref",),
    "core.stream": ("Stream",),
    "frontends.dask.arrival": ("dask_scheduler",),
    "frontends.dask.bags": ("bag",),
    "frontends.executor": ("Executor",),
    "frontends.pandas.door": ("pandas",),
    "frontends.pool": ("Pool",),
    "frontends.parsl": ("ParslExecutor",),
    "observe.actors": ("ActorFact",),
    "observe.memory": ("MemoryReport",),
    "observe.report": ("Report",),
    "session": ("Session", "shutdown"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = next((home for home, names in _HOMES.items() if name in names), "errors")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


await_dask()
await_joblib()
await_pandas()
