"""What users may ask for with a call, a task or a map, checked before any work begins."""

from __future__ import annotations

from math import isfinite

from manyhands.core.model import DEFAULT_OPTIONS, NO_RETRIES, CallOptions, RetryPolicy
from manyhands.core.resources import ONE_CPU, make_need
from manyhands.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias, TypedDict

    RetryOn: TypeAlias = (
        "tuple[type[BaseException], ...] | type[BaseException] | Callable[[BaseException], object]"
    )

    class TaskOptions(TypedDict, total=False):
        """Keyword options of a task; `manyhands.task` describes them."""

        cpus: float
        gpus: float
        memory: str | int | None
        resources: Mapping[str, float] | None
        retries: int
        retry_on: RetryOn
        worker_retries: int
        backoff: float
        backoff_cap: float
        timeout: float | None
        priority: int
        name: str | None

    class MapOptions(TaskOptions, total=False):
        """Keyword options of a map beside ``on_error``; `manyhands.map` describes them."""

        batch: int | None
        progress: bool
        deadline: float | None

    class RunOptions(MapOptions, total=False):
        """All keyword options of a map."""

        on_error: str


TASK_OPTIONS: dict[str, Any] = {
    "cpus": 1,
    "gpus": 0,
    "memory": None,
    "resources": None,
    "retries": 0,
    "retry_on": (Exception,),
    "worker_retries": 1,
    "backoff": 0.1,
    "backoff_cap": 30.0,
    "timeout": None,
    "priority": 0,
    "name": None,
}
"""The options of a task, and what holds where they are left out."""

MAP_OPTIONS: dict[str, Any] = {**TASK_OPTIONS, "batch": None, "progress": False, "deadline": None}
"""The same of a map, but for ``on_error``."""


def make_options(options: Mapping[str, Any]) -> CallOptions:
    """Checked options of a call, of those in `TASK_OPTIONS`.

    Raises
    ------
    InvalidArgumentError, TypeError
    """
    if not options:
        return DEFAULT_OPTIONS
    reject_unknown(options, TASK_OPTIONS, "a task")
    every = {**TASK_OPTIONS, **options}
    need_options = {name: every[name] for name in ("cpus", "gpus", "memory", "resources")}
    priority = every["priority"]
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise InvalidArgumentError(
            f"priority={priority!r}: it is a whole number, and calls with more go first"
        )
    name = every["name"]
    if name is not None and not isinstance(name, str):
        raise InvalidArgumentError(f"name={name!r}: it is a text, or left out")
    return CallOptions(
        make_policy(
            **{
                name: every[name]
                for name in ("retries", "retry_on", "worker_retries", "backoff", "backoff_cap")
            }
        ),
        timeout=check_seconds(every["timeout"], "timeout"),
        priority=priority,
        need=ONE_CPU if need_options == _PLAIN_NEED else make_need(**need_options),
        name=name,
    )


_PLAIN_NEED = {"cpus": 1, "gpus": 0, "memory": None, "resources": None}


def reject_unknown(options: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    """Raise TypeError for an option that `what` has not."""
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(
            f"{what} has no option {', '.join(unknown)}; it has {', '.join(known)}"
            + (
                ". The number of workers is the session's: Session(workers=...)"
                if what == "a map"
                else ""
            )
        )


def make_policy(
    retries: int = 0,
    retry_on: RetryOn = (Exception,),
    worker_retries: int = 1,
    backoff: float = 0.1,
    backoff_cap: float = 30.0,
) -> RetryPolicy:
    """A checked retry policy; `NO_RETRIES` itself where it asks for nothing."""
    for name, number in (("retries", retries), ("worker_retries", worker_retries)):
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise InvalidArgumentError(
                f"{name}={number!r}: it is the number of attempts after the first, 0 or more"
            )
    for name, seconds in (("backoff", backoff), ("backoff_cap", backoff_cap)):
        if not _is_number(seconds) or seconds < 0:
            raise InvalidArgumentError(
                f"{name}={seconds!r}: it is a number of seconds between attempts, 0 or more"
            )
    kinds = (retry_on,) if isinstance(retry_on, type) else retry_on
    is_classes = isinstance(kinds, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
    )
    if not is_classes and (isinstance(kinds, tuple) or not callable(kinds)):
        raise InvalidArgumentError(
            f"retry_on={retry_on!r}: it is a tuple of exception classes, or a function that is given the error and "
            f"says whether to try again"
        )
    if not retries and worker_retries == NO_RETRIES.worker_retries:
        return NO_RETRIES
    return RetryPolicy(retries, kinds, worker_retries, backoff, backoff_cap)


def check_seconds(seconds: float | None, name: str) -> float | None:
    """A time in seconds, or None."""
    if seconds is not None and (not _is_number(seconds) or seconds <= 0):
        raise InvalidArgumentError(
            f"{name}={seconds!r}: it is a number of seconds above 0, or left out for no limit"
        )
    return seconds


def check_on_error(on_error: str) -> bool:
    """Whether errors become results."""
    if on_error not in ("raise", "return"):
        raise InvalidArgumentError(f"on_error={on_error!r}: it is 'raise' or 'return'")
    return on_error == "return"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
