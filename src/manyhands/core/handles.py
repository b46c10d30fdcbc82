"""Futures and refs among the arguments of a call: each stands for a value."""

from __future__ import annotations

from manyhands.core.refs import Ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future as StandardFuture
    from typing import Any


foreign: list[tuple[Callable[[Any], bool], Callable[[Any], Any]]] = []
"""Of other libraries that are loaded: which of their values stand for others, and what makes a future of one."""


def convert_foreign(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with a future for each that is `foreign`, also inside lists, tuples and dicts."""
    made: dict[int, Any] = {}
    for is_foreign, make in foreign:

        def convert(value: Any, make: Callable[[Any], Any] = make) -> Any:
            future = made.get(id(value))
            if future is None:
                future = made[id(value)] = make(value)
            return future

        args = tuple(replace_handles(arg, convert, is_foreign) for arg in args)
        kwargs = {name: replace_handles(arg, convert, is_foreign) for name, arg in kwargs.items()}
    return args, kwargs


def find_handles(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The futures and refs among the arguments, also inside lists, tuples and dicts."""
    found: list[Any] = []
    for arg in args:
        if type(arg) not in _PLAIN:
            _find_in(arg, found)
    if kwargs:
        for arg in kwargs.values():
            _find_in(arg, found)
    return found


_PLAIN = frozenset({int, float, str, bytes, bool, type(None)})
_CONTAINERS = (list, tuple, dict)


def _is_handle(value: Any) -> bool:
    return type(value) is Ref or (hasattr(value, "add_done_callback") and hasattr(value, "result"))


def _find_in(value: Any, found: list[Any]) -> None:
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind in _CONTAINERS:
        items = list(value.values()) if kind is dict else value
        if not _PLAIN.issuperset(map(type, items)):
            for item in items:
                _find_in(item, found)
    elif _is_handle(value):
        found.append(value)


def replace_handles(
    value: Any,
    hand_on: Callable[[Any], Any],
    is_handle: Callable[[Any], bool] = _is_handle,
) -> Any:
    """The argument `value` with ``hand_on(handle)`` in the place of every handle in it."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {key: replace_handles(item, hand_on, is_handle) for key, item in value.items()}
    if kind in _CONTAINERS:
        if _PLAIN.issuperset(map(type, value)):
            return value
        return kind(replace_handles(item, hand_on, is_handle) for item in value)
    return hand_on(value) if is_handle(value) else value


def has_succeeded(future: StandardFuture[Any]) -> bool:
    """Whether a future has ended well."""
    return future.done() and not future.cancelled() and peek_error(future) is None


def peek_error(future: StandardFuture[Any]) -> BaseException | None:
    """The error of a future that has ended; a result of ours stays where it is, unread."""
    peek: Callable[[], BaseException | None] = getattr(future, "peek_error", future.exception)
    return peek()


def get_failure(future: StandardFuture[Any]) -> BaseException | None:
    """What a future that has not ended well ended with."""
    try:
        return future.exception()
    except BaseException as error:  # CancelledError is what the call's error is caused by
        return error
