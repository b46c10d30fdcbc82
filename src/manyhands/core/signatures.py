"""How the functions that run others are typed: once, for the package's functions and a session's methods.

A function decorated with `typed` keeps its own self at run time; type checkers see the protocol that it names.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable
    from typing import Any, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

    from manyhands.core.future import Future
    from manyhands.core.options import MapOptions
    from manyhands.core.refs import Ref

    P = ParamSpec("P")
    R = TypeVar("R")
    A = TypeVar("A")
    B = TypeVar("B")
    C = TypeVar("C")
    S = TypeVar("S")

    class Submit(Protocol):
        """Submits one call."""

        @overload  # of a coroutine function, whose result is what the coroutine returns
        def __call__(
            self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
        ) -> Future[R]: ...

        @overload
        def __call__(
            self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
        ) -> Future[R]: ...

        @overload
        def __call__(self, fn: Callable[[A], R], a: A | Future[A] | Ref[A], /) -> Future[R]: ...

        @overload
        def __call__(
            self, fn: Callable[[list[A]], R], a: list[Future[A]] | list[Ref[A]], /
        ) -> Future[R]: ...

        @overload
        def __call__(
            self, fn: Callable[[dict[B, A]], R], a: dict[B, Future[A]] | dict[B, Ref[A]], /
        ) -> Future[R]: ...

        @overload
        def __call__(
            self, fn: Callable[[A, B], R], a: A | Future[A] | Ref[A], b: B | Future[B] | Ref[B], /
        ) -> Future[R]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A, B, C], R],
            a: A | Future[A] | Ref[A],
            b: B | Future[B] | Ref[B],
            c: C | Future[C] | Ref[C],
            /,
        ) -> Future[R]: ...

    class ListMap(Protocol):
        """Maps and returns a list."""

        @overload  # of a coroutine function
        def __call__(
            self,
            fn: Callable[[A], Coroutine[Any, Any, R]],
            a_items: Iterable[A] | Iterable[Ref[A]],
            /,
            *,
            on_error: Literal["raise"] = ...,
            **options: Unpack[MapOptions],
        ) -> list[R]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            /,
            *,
            on_error: Literal["raise"] = ...,
            **options: Unpack[MapOptions],
        ) -> list[R]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A, B], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            b_items: Iterable[B] | Iterable[Ref[B]],
            /,
            *,
            on_error: Literal["raise"] = ...,
            **options: Unpack[MapOptions],
        ) -> list[R]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A, B, C], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            b_items: Iterable[B] | Iterable[Ref[B]],
            c_items: Iterable[C] | Iterable[Ref[C]],
            /,
            *,
            on_error: Literal["raise"] = ...,
            **options: Unpack[MapOptions],
        ) -> list[R]: ...

        @overload
        def __call__(
            self,
            fn: Callable[..., R],
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
        def __call__(
            self,
            fn: Callable[[A], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            /,
            *,
            on_error: Literal["return"],
            **options: Unpack[MapOptions],
        ) -> list[R | BaseException]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A, B], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            b_items: Iterable[B] | Iterable[Ref[B]],
            /,
            *,
            on_error: Literal["return"],
            **options: Unpack[MapOptions],
        ) -> list[R | BaseException]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A, B, C], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            b_items: Iterable[B] | Iterable[Ref[B]],
            c_items: Iterable[C] | Iterable[Ref[C]],
            /,
            *,
            on_error: Literal["return"],
            **options: Unpack[MapOptions],
        ) -> list[R | BaseException]: ...

        @overload
        def __call__(
            self,
            fn: Callable[..., R],
            a_items: Iterable[Any],
            b_items: Iterable[Any],
            c_items: Iterable[Any],
            d_items: Iterable[Any],
            /,
            *more: Iterable[Any],
            on_error: Literal["return"],
            **options: Unpack[MapOptions],
        ) -> list[R | BaseException]: ...

    class ListStarMap(Protocol):
        """Maps tuples of arguments and returns a list."""

        @overload
        def __call__(
            self,
            fn: Callable[..., R],
            tuples: Iterable[tuple[Any, ...]],
            /,
            *,
            on_error: Literal["raise"] = ...,
            **options: Unpack[MapOptions],
        ) -> list[R]: ...

        @overload
        def __call__(
            self,
            fn: Callable[..., R],
            tuples: Iterable[tuple[Any, ...]],
            /,
            *,
            on_error: Literal["return"],
            **options: Unpack[MapOptions],
        ) -> list[R | BaseException]: ...

    class StreamMap(Protocol):
        """Maps and returns a generator."""

        @overload
        def __call__(
            self,
            fn: Callable[[A], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            /,
            *,
            on_error: Literal["raise"] = ...,
            **options: Unpack[MapOptions],
        ) -> Generator[R, None, None]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A, B], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            b_items: Iterable[B] | Iterable[Ref[B]],
            /,
            *,
            on_error: Literal["raise"] = ...,
            **options: Unpack[MapOptions],
        ) -> Generator[R, None, None]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A, B, C], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            b_items: Iterable[B] | Iterable[Ref[B]],
            c_items: Iterable[C] | Iterable[Ref[C]],
            /,
            *,
            on_error: Literal["raise"] = ...,
            **options: Unpack[MapOptions],
        ) -> Generator[R, None, None]: ...

        @overload
        def __call__(
            self,
            fn: Callable[..., R],
            a_items: Iterable[Any],
            b_items: Iterable[Any],
            c_items: Iterable[Any],
            d_items: Iterable[Any],
            /,
            *more: Iterable[Any],
            on_error: Literal["raise"] = ...,
            **options: Unpack[MapOptions],
        ) -> Generator[R, None, None]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            /,
            *,
            on_error: Literal["return"],
            **options: Unpack[MapOptions],
        ) -> Generator[R | BaseException, None, None]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A, B], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            b_items: Iterable[B] | Iterable[Ref[B]],
            /,
            *,
            on_error: Literal["return"],
            **options: Unpack[MapOptions],
        ) -> Generator[R | BaseException, None, None]: ...

        @overload
        def __call__(
            self,
            fn: Callable[[A, B, C], R],
            a_items: Iterable[A] | Iterable[Ref[A]],
            b_items: Iterable[B] | Iterable[Ref[B]],
            c_items: Iterable[C] | Iterable[Ref[C]],
            /,
            *,
            on_error: Literal["return"],
            **options: Unpack[MapOptions],
        ) -> Generator[R | BaseException, None, None]: ...

        @overload
        def __call__(
            self,
            fn: Callable[..., R],
            a_items: Iterable[Any],
            b_items: Iterable[Any],
            c_items: Iterable[Any],
            d_items: Iterable[Any],
            /,
            *more: Iterable[Any],
            on_error: Literal["return"],
            **options: Unpack[MapOptions],
        ) -> Generator[R | BaseException, None, None]: ...
else:
    Submit = ListMap = ListStarMap = StreamMap = None


def typed(signature: type[S]) -> Callable[[Callable[..., Any]], S]:  # noqa: ARG001 - for type checkers
    """Let type checkers see a function as `signature`."""

    def keep(function: Any) -> Any:
        return function

    return keep
