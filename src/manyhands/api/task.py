"""Tasks: functions that may run elsewhere."""

from __future__ import annotations

import sys
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from manyhands.core.functions import check_callable, name_callable
from manyhands.core.generators import StreamCall
from manyhands.core.model import CallOptions
from manyhands.core.options import TASK_OPTIONS, make_options, reject_unknown
from manyhands.core.serialize import is_sent_by_value

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Unpack

    from manyhands.core.future import Future
    from manyhands.core.options import MapOptions, TaskOptions
    from manyhands.core.refs import Ref
    from manyhands.core.stream import Stream

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
S = TypeVar("S")

STREAM_WINDOW = 16
"""Items of a stream that may be there and not taken, unless the user says how many."""


class Task(Generic[P, R]):
    """A function that still runs here when it is called, and elsewhere when it is submitted.

    Made by `task`.

    Examples
    --------
    >>> import manyhands as mh
    >>> @mh.task(retries=2)
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double(4), double.submit(4).result(), double.map(range(3))
    (8, 8, [0, 2, 4])
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[P, R] = None  # type: ignore[assignment]  # set per task; says that this class wraps

    def __init__(self, fn: Callable[P, R], **options: Unpack[TaskOptions]) -> None:
        check_callable(fn)
        self._call_options = make_options(options)
        self.__name__ = self.__qualname__ = name_callable(fn)  # a partial has no name of its own
        update_wrapper(self, fn)
        self._fn = fn
        self._options: dict[str, Any] = dict(options)
        self._streamer: StreamCall | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, as if it were no task."""
        return self._fn(*args, **kwargs)

    @overload  # of a coroutine function, whose result is what the coroutine returns
    def submit(
        self: Task[P, Coroutine[Any, Any, S]], *args: P.args, **kwargs: P.kwargs
    ) -> Future[S]: ...

    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...

    @overload
    def submit(self: Callable[[A], R], a: A | Future[A] | Ref[A], /) -> Future[R]: ...

    @overload
    # mypy erases the type variables of `self` here, and the result is no task any more.
    def submit(  # type: ignore[misc]
        self: Callable[[list[A]], R], a: list[Future[A]] | list[Ref[A]], /
    ) -> Future[R]: ...

    @overload
    # mypy erases the type variables of `self` here, and the result is no task any more.
    def submit(  # type: ignore[misc]
        self: Callable[[dict[B, A]], R], a: dict[B, Future[A]] | dict[B, Ref[A]], /
    ) -> Future[R]: ...

    @overload
    def submit(
        self: Callable[[A, B], R], a: A | Future[A] | Ref[A], b: B | Future[B] | Ref[B], /
    ) -> Future[R]: ...

    @overload
    def submit(
        self: Callable[[A, B, C], R],
        a: A | Future[A] | Ref[A],
        b: B | Future[B] | Ref[B],
        c: C | Future[C] | Ref[C],
        /,
    ) -> Future[R]: ...

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have the task run by a worker of the current session, and return at once; see `manyhands.submit`."""
        from manyhands.session import get_session

        future: Future[R] = get_session().start_call(
            self._find_traveller(), args, kwargs, self._call_options
        )
        return future

    def stream(self, *args: Any, **kwargs: Any) -> Stream[Any]:
        """Run the task in a worker and get what it yields, item by item, while it goes on.

        Parameters
        ----------
        *args, **kwargs
            As of `submit`.

        Returns
        -------
        Stream
            An iterator, also an asynchronous one. The generator runs at most 16 items ahead of its consumer.

        Examples
        --------
        >>> import manyhands as mh
        >>> @mh.task
        ... def estimate(rounds):
        ...     for step in range(1, rounds + 1):
        ...         yield step / rounds
        >>> with estimate.stream(4) as progress:
        ...     print(next(progress), next(progress))
        0.25 0.5
        """
        from manyhands.session import get_session

        if self._streamer is None:
            self._streamer = StreamCall(self._find_traveller(), self.__qualname__)
        o = self._call_options
        options = CallOptions(
            o.policy,
            timeout=o.timeout,
            priority=o.priority,
            need=o.need,
            window=STREAM_WINDOW,
            name=o.name,
        )
        return get_session().start_stream(self._streamer, args, kwargs, options)

    @overload  # of a coroutine function
    # mypy erases the type variables of `self` here, and the result is no task any more.
    def map(  # type: ignore[misc]
        self: Callable[[A], Coroutine[Any, Any, S]],
        a_items: Iterable[A] | Iterable[Ref[A]],
        /,
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[MapOptions],
    ) -> list[S]: ...

    @overload
    def map(
        self: Callable[[A], R],
        a_items: Iterable[A] | Iterable[Ref[A]],
        /,
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[MapOptions],
    ) -> list[R]: ...

    @overload
    def map(
        self: Callable[[A, B], R],
        a_items: Iterable[A] | Iterable[Ref[A]],
        b_items: Iterable[B] | Iterable[Ref[B]],
        /,
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[MapOptions],
    ) -> list[R]: ...

    @overload
    def map(
        self: Callable[[A, B, C], R],
        a_items: Iterable[A] | Iterable[Ref[A]],
        b_items: Iterable[B] | Iterable[Ref[B]],
        c_items: Iterable[C] | Iterable[Ref[C]],
        /,
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[MapOptions],
    ) -> list[R]: ...

    @overload
    def map(
        self: Callable[..., R],
        a_items: Iterable[Any],
        b_items: Iterable[Any],
        c_items: Iterable[Any],
        d_items: Iterable[Any],
        /,
        *more: Iterable[Any],
        on_error: Literal["raise"] = ...,
        **options: Unpack[MapOptions],
    ) -> list[R]: ...

    @overload
    def map(
        self: Callable[[A], R],
        a_items: Iterable[A] | Iterable[Ref[A]],
        /,
        *,
        on_error: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> list[R | BaseException]: ...

    @overload
    def map(
        self: Callable[[A, B], R],
        a_items: Iterable[A] | Iterable[Ref[A]],
        b_items: Iterable[B] | Iterable[Ref[B]],
        /,
        *,
        on_error: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> list[R | BaseException]: ...

    @overload
    def map(
        self: Callable[[A, B, C], R],
        a_items: Iterable[A] | Iterable[Ref[A]],
        b_items: Iterable[B] | Iterable[Ref[B]],
        c_items: Iterable[C] | Iterable[Ref[C]],
        /,
        *,
        on_error: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> list[R | BaseException]: ...

    @overload
    def map(
        self: Callable[..., R],
        a_items: Iterable[Any],
        b_items: Iterable[Any],
        c_items: Iterable[Any],
        d_items: Iterable[Any],
        /,
        *more: Iterable[Any],
        on_error: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> list[R | BaseException]: ...

    def map(
        self,
        iterable: Iterable[Any],
        /,
        *more: Iterable[Any],
        on_error: str = "raise",
        **options: Unpack[MapOptions],
    ) -> Any:
        """Run the task on every item in parallel; see `manyhands.map`. The task's options hold for each item."""
        from manyhands.session import get_session

        every: Any = {**self._options, **options}
        run: Any = get_session().map
        return run(self._find_traveller(), iterable, *more, on_error=on_error, **every)

    def options(self, **options: Unpack[TaskOptions]) -> Task[P, R]:
        """The same task with other options, as `manyhands.task` has them; those left out stay as they are.

        Examples
        --------
        >>> import manyhands as mh
        >>> mh.task(abs).options(retries=1, timeout=60).submit(-3).result()
        3
        """
        return Task(self._fn, **{**self._options, **options})

    def __get__(self, instance: object, owner: type | None = None) -> Task[..., R]:
        """A task that is a method carries its object along."""
        if instance is None:
            return self
        return Task(MethodType(self._fn, instance), **self._options)

    def __repr__(self) -> str:
        return f"<Task {self.__qualname__}>"

    def __reduce__(self) -> Any:
        if self._is_found_by_name() and not is_sent_by_value(self.__module__):
            return self.__qualname__
        return _rebuild, (self._fn, self._options)

    def _find_traveller(self) -> Callable[..., R]:
        """What workers get: the task where they can find it by its name, else its function."""
        return self if self._is_found_by_name() and self.__module__ != "__main__" else self._fn

    def _is_found_by_name(self) -> bool:
        found: Any = sys.modules.get(self.__module__)
        for part in self.__qualname__.split("."):
            found = getattr(found, part, None)
        return found is self


def _rebuild(fn: Callable[..., Any], options: dict[str, Any]) -> Task[..., Any]:
    return Task(fn, **options)


@overload
def task(fn: Callable[P, R], /, **options: Unpack[TaskOptions]) -> Task[P, R]: ...


@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a `Task`: a decorator, with or without options, and an ordinary function.

    Parameters
    ----------
    fn
        The function; it stays callable as before. A generator function can be run by `Task.stream`; calls of an
        ``async def`` function run on an event loop, many at a time.
    retries : int
        Further attempts at a call that failed.
    retry_on : tuple of exception classes, or callable
        Errors after which another attempt is made, or a function that is given the error and says so; every
        `Exception` by default.
    backoff, backoff_cap : float
        Seconds before the second attempt, 0.1 by default; they double with each further one up to the cap, 30. Chance
        takes up to half of them off.
    worker_retries : int
        Further attempts at a call whose worker died, 1 by default; `retries` has nothing to do with them.
    timeout : float, optional
        Seconds that a call may run in a worker. Past them it is interrupted by `CallInterrupted`, and its worker is
        ended if that does not help within a second; it fails with `CallTimeoutError`, which `retries` cover.
    priority : int
        Of calls that wait, those with more go first; 0 by default.
    cpus : float
        How many of the session's cpus (one for each worker) a call holds while it runs: 1 by default, also 0, or a
        fraction.
    gpus : float
        Devices that a call holds: a whole number, or a fraction of one that it shares. The call sees them alone, by
        ``CUDA_VISIBLE_DEVICES`` and its like.
    memory : str or int, optional
        What a call takes at most, such as "2GB". It starts when the session has that much left, and is ended with
        `OutOfMemoryError` if it takes more.
    resources : dict, optional
        What a call holds of the session's named resources.
    name : str, optional
        What errors and reports call it; the function's own name where left out.

    Examples
    --------
    >>> import manyhands as mh
    >>> @mh.task
    ... def square(x: int) -> int:
    ...     return x * x
    >>> square.map([1, 2, 3])
    [1, 4, 9]
    >>> mh.task(abs, retries=2, timeout=60).submit(-1).result()
    1
    """
    reject_unknown(options, TASK_OPTIONS, "a task")
    if fn is None:
        return lambda function: Task(function, **options)
    return Task(fn, **options)
