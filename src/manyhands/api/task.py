"""Tasks: functions that may run elsewhere."""

from __future__ import annotations

import sys
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from manyhands.core.functions import check_callable, name_callable
from manyhands.core.serialize import is_sent_by_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Unpack

    from manyhands.core.future import Future
    from manyhands.core.options import MapOptions
    from manyhands.core.refs import Ref

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

RetryOn = tuple[type[BaseException], ...] | type[BaseException]


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

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        retries: int = 0,
        retry_on: RetryOn = Exception,
        name: str | None = None,
    ) -> None:
        from manyhands.session import make_policy

        check_callable(fn)
        make_policy(retries, retry_on)
        self.__name__ = self.__qualname__ = name_callable(fn)  # a partial has no name of its own
        update_wrapper(self, fn)
        self._fn = fn
        self._options: dict[str, Any] = {"retries": retries, "retry_on": retry_on, "name": name}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, as if it were no task."""
        return self._fn(*args, **kwargs)

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

    def submit(self, *args: Any, **kwargs: Any) -> Future[R]:
        """Have the task run by a worker of the current session, and return at once; see `manyhands.submit`."""
        from manyhands.session import get_session, make_policy

        policy = make_policy(self._options["retries"], self._options["retry_on"])
        future: Future[R] = get_session().start_call(self._find_traveller(), args, kwargs, policy)
        if self._options["name"] is not None:
            future.name = self._options["name"]
        return future

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
        """Run the task on every item in parallel; see `manyhands.map`. The task's retries count for each item."""
        from manyhands.session import get_session

        own = {"retries": self._options["retries"], "retry_on": self._options["retry_on"]}
        every: Any = {**own, **options}
        run: Any = get_session().map
        return run(self._find_traveller(), iterable, *more, on_error=on_error, **every)

    def options(
        self,
        *,
        retries: int | None = None,
        retry_on: RetryOn | None = None,
        name: str | None = None,
    ) -> Task[P, R]:
        """The same task with other options; those left out stay as they are.

        Examples
        --------
        >>> import manyhands as mh
        >>> mh.task(abs).options(retries=1).submit(-3).result()
        3
        """
        changed = {"retries": retries, "retry_on": retry_on, "name": name}
        merged = self._options | {
            option: value for option, value in changed.items() if value is not None
        }
        return Task(self._fn, **merged)

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
def task(
    fn: Callable[P, R], /, *, retries: int = ..., retry_on: RetryOn = ..., name: str | None = ...
) -> Task[P, R]: ...


@overload
def task(
    *, retries: int = ..., retry_on: RetryOn = ..., name: str | None = ...
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    retries: int = 0,
    retry_on: RetryOn = Exception,
    name: str | None = None,
) -> Any:
    """Make a function a `Task`: a decorator, with or without options, and an ordinary function.

    Parameters
    ----------
    fn
        The function; it stays callable as before.
    retries
        Further attempts at a call that failed, or whose worker died.
    retry_on
        Exception classes after which another attempt is made; every `Exception` by default.
    name
        What errors and reports call it; the function's own name where left out.

    Examples
    --------
    >>> import manyhands as mh
    >>> @mh.task
    ... def square(x: int) -> int:
    ...     return x * x
    >>> square.map([1, 2, 3])
    [1, 4, 9]
    >>> mh.task(abs, retries=2).submit(-1).result()
    1
    """
    if fn is None:
        return lambda function: Task(function, retries=retries, retry_on=retry_on, name=name)
    return Task(fn, retries=retries, retry_on=retry_on, name=name)
