"""The door for Parsl's programs: an executor that runs their apps on the workers of a session."""

from __future__ import annotations

from functools import lru_cache, partial, wraps
from threading import Lock
from weakref import WeakSet

from manyhands.core.options import make_options
from manyhands.errors import DoorNotInstalledError, InvalidArgumentError, SessionClosedError
from manyhands.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future as StandardFuture
    from os import PathLike
    from typing import Any

    from parsl.data_provider.staging import Staging
    from parsl.monitoring.radios.base import RadioConfig

    from manyhands.core.future import Future
    from manyhands.core.model import CallOptions


class _Absent:
    """In the place of Parsl's classes where it is not installed: the name can be imported, and its use says why not."""

    def __init__(self) -> None:
        raise DoorNotInstalledError(
            "mh.ParslExecutor needs Parsl, which is not installed here: pip install 'manyhands[parsl]'"
        )


try:
    from parsl.app.bash import remote_side_bash_executor
    from parsl.app.errors import wrap_error
    from parsl.app.python import timeout
    from parsl.dataflow.errors import DependencyError
    from parsl.executors.base import ParslExecutor as Base
    from parsl.executors.errors import InvalidResourceSpecification
    from parsl.monitoring.radios.filesystem import FilesystemRadio
    from parsl.utils import RepresentationMixin
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "parsl":
        raise  # it is installed, and something that it needs is not
    Base, RepresentationMixin = _Absent, object  # type: ignore[misc, assignment]
else:
    _CATCHER = wrap_error(abs).__code__
    """The code of what Parsl puts around the function of each app; see `_unwrap`."""
    _TIMER = timeout(abs, 1).__code__
    """The same of what it puts around that for a wall time."""

    class _EndedError(SessionClosedError, DependencyError):
        """The executor does not run.

        Parsl tries an app again after any error but one of its dependencies. An app that was under way at the clean-up
        and has attempts left would come back until Parsl's own thread has ended, and then its future never ends.
        """

        def __init__(self, message: str) -> None:
            Exception.__init__(self, message)
            self.dependent_exceptions_tids = ()

        def __str__(self) -> str:
            return str(self.args[0])


_ONCE = {"worker_retries": 0}
"""Whether there is another attempt is Parsl's decision (`Config.retries`), also after the death of a worker."""

_HELD = 128
"""Apps with wall times, and bash apps, whose functions are kept for their next calls."""

_MEGABYTE = 10**6

_PRIORITY = 2**31
"""Ours of an app whose priority is 0, so that it goes before those that have none."""

_TAKEN = ("cores", "cpus", "gpus", "memory", "priority", "resources", "timeout")


class ParslExecutor(Base, RepresentationMixin):
    """Runs the apps of a Parsl program on our workers: one line of its `Config` is another one.

    An executor serves one data-flow kernel at a time: it starts when the `Config` is loaded and ends with
    the kernel's clean-up, which cancels what is still under way. It may then be loaded again.

    What an app may ask for in its ``parsl_resource_specification``: ``cores`` (or ``cpus``), ``gpus``, ``memory`` (a
    number is in megabytes, as in Parsl; or a text such as ``"2GB"``), ``resources``, ``timeout`` (seconds), with the
    meanings that they have in `manyhands.task`; and ``priority``, of which the lower goes first, and any before
    none, as in Parsl's `HighThroughputExecutor`. Anything else is Parsl's `InvalidResourceSpecification`.

    Parameters
    ----------
    label
        Its name in the `Config`.
    workers
        How many; left out, as many as this process may use cores.
    session
        An open `Session` to use in place of one of its own, for all that a session may be asked for; it stays open.
    storage_access
        Parsl's staging providers; left out, Parsl's default ones.
    working_dir
        Where these put files that they fetch; left out, the current folder.
    remote_monitoring_radio
        How apps report to Parsl's monitoring; left out, by files in the run's folder, so that no port is opened.

    Raises
    ------
    DoorNotInstalledError
        Parsl is missing.
    InvalidArgumentError

    Examples
    --------
    >>> import manyhands as mh
    >>> import parsl
    >>> config = parsl.Config(executors=[mh.ParslExecutor(workers=2)])
    >>> config.executors[0].label
    'manyhands'
    """

    def __init__(
        self,
        label: str = "manyhands",
        workers: int | None = None,
        *,
        session: Session | None = None,
        storage_access: list[Staging] | None = None,
        working_dir: str | PathLike[str] | None = None,
        remote_monitoring_radio: RadioConfig | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(label, str) or not label:
            raise InvalidArgumentError(f"label={label!r}: it is the executor's name in the Config")
        if session is not None and not isinstance(session, Session):
            raise InvalidArgumentError(f"session={session!r}: it is an open Session, or left out")
        if session is not None and workers is not None:
            raise InvalidArgumentError(
                f"workers={workers!r} and a session: the session has workers of its own, so leave one of them out"
            )
        self.label = label
        self.workers = workers
        self.session = session
        self.storage_access = storage_access
        self.working_dir = working_dir
        self.remote_monitoring_radio = remote_monitoring_radio or FilesystemRadio()
        self._running: Session | None = None
        self._calls: WeakSet[Future[Any]] = WeakSet()  # in a session that others use too
        self._lock = Lock()  # of those
        self._once = make_options(_ONCE)

    def start(self) -> None:
        """Open the session; Parsl does this when the `Config` is loaded."""
        if self._running is not None:
            raise InvalidArgumentError(
                f"the executor {self.label!r} is in use: give each Config that is loaded an executor of its own"
            )
        self._running = self.session or Session(workers=self.workers)

    def submit(
        self,
        func: Callable[..., Any],
        resource_specification: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> StandardFuture[Any]:
        """Have one attempt at an app run by a worker; Parsl does this when the inputs of the app are there.

        Raises
        ------
        parsl.executors.errors.InvalidResourceSpecification
        SessionClosedError
        """
        session = self._running
        if session is None:
            raise _EndedError(
                f"the executor {self.label!r} is not running: it runs from the loading of its Config to the clean-up"
            )
        options = (
            _read_specification(resource_specification) if resource_specification else self._once
        )
        future = session.start_call(_unwrap(func), args, kwargs, options)
        # Parsl's log names it beside its own number.
        future.parsl_executor_task_id = future.key  # type: ignore[attr-defined]
        if session is self.session:
            with self._lock:
                self._calls.add(future)
        return future

    def shutdown(self) -> None:
        """Cancel what is under way, and end the workers unless they belong to a given session; again does nothing."""
        session, self._running = self._running, None
        if session is None:
            return
        if session is self.session:
            with self._lock:
                calls = list(self._calls)
            session.cancel_calls(calls, running=True)
        else:
            session.close()
        _hold_timer.cache_clear()
        _hold_command.cache_clear()
        super().shutdown()

    def monitor_resources(self) -> bool:
        """Whether an app has a process of its own, whose resources Parsl can watch."""
        return self._running is not None and self._running.capabilities.isolates


def _unwrap(func: Callable[..., Any]) -> Callable[..., Any]:
    """The function of an app, without what Parsl puts around it to carry its exceptions.

    A worker carries these itself, with their tracebacks, and also those that cannot be pickled. Left in place, the
    wrapper would have each worker import Parsl, which takes most of a second. What is returned is one and the same
    object for all calls of an app, as far as possible, so that it is pickled once.
    """
    code = getattr(func, "__code__", None)
    if code is _CATCHER:
        inner: Callable[..., Any] = func.__wrapped__  # type: ignore[attr-defined]
        is_command = isinstance(inner, partial) and inner.func is remote_side_bash_executor
        return _hold_command(inner) if is_command else inner
    if code is _TIMER:
        variables = dict(zip(func.__code__.co_freevars, func.__closure__ or (), strict=True))
        return _hold_timer(variables["f"].cell_contents, variables["seconds"].cell_contents)
    return func  # staging or monitoring has wrapped it once more


@lru_cache(_HELD)
def _hold_timer(func: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """What Parsl puts around an app with a wall time, anew for each call."""
    timer: Callable[..., Any] = timeout(func, seconds)
    return timer


@lru_cache(_HELD)
def _hold_command(inner: partial[Any]) -> Callable[..., Any]:
    """A bash app as a function, of which can be seen whether it has changed."""
    run, (make_command,) = inner.func, inner.args  # in the closure, whose values are watched

    @wraps(make_command)
    def run_command(*args: Any, **kwargs: Any) -> Any:
        return run(make_command, *args, **kwargs)

    return run_command


def _read_specification(specification: dict[str, Any]) -> CallOptions:
    """What Parsl calls a resource specification, as options of a call.

    Raises
    ------
    parsl.executors.errors.InvalidResourceSpecification
    """
    unknown = {name for name in specification if name not in _TAKEN}
    if unknown:
        raise InvalidResourceSpecification(unknown, f"This executor takes {', '.join(_TAKEN)}.")
    if "cores" in specification and "cpus" in specification:
        raise InvalidResourceSpecification(
            {"cores", "cpus"}, "They are one thing: give one of them."
        )
    options = {**_ONCE, **specification}
    if "cores" in options:
        options["cpus"] = options.pop("cores")
    memory = options.get("memory")
    if isinstance(memory, (int, float)) and not isinstance(memory, bool):
        options["memory"] = memory * _MEGABYTE
    priority = options.get("priority")
    if isinstance(priority, int) and not isinstance(priority, bool):
        options["priority"] = _PRIORITY - priority
    try:
        return make_options(options)
    except InvalidArgumentError as error:
        raise InvalidResourceSpecification(set(specification), str(error)) from error
