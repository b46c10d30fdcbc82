"""The handle of a call's result: a `concurrent.futures.Future` that costs a sixteenth of one.

A standard future makes a condition, a lock and a deque when it is born: 1.6 KB and 2 µs. Ours makes them when
somebody who is not one of us first waits for it (`concurrent.futures.wait`, `asyncio.wrap_future`, a callback).
Our own waits need none: they drive the engine, or wait for its progress as a whole.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import CancelledError, InvalidStateError
from concurrent.futures import Future as _StandardFuture
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    LOGGER,
    PENDING,
    RUNNING,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from typing import Any, TypeVar

    from manyhands.core.roles import Owner

    R = TypeVar("R")
else:
    R = None  # `typing` is not loaded for what only type checkers read


_births = threading.Lock()
"""Held while a future gets its listeners, and while a future without listeners ends: so that none is missed."""


def _renew_lock() -> None:
    """In a forked child: a thread that the child does not have may hold the lock."""
    global _births
    _births = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)

_DONE = (FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED)


class _Listeners:
    """What a standard future is born with."""

    __slots__ = ("callbacks", "condition", "waiters")

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.callbacks: list[Callable[[Any], object]] = []
        self.waiters: list[Any] = []


class Future(_StandardFuture[R]):
    """The result of a call, perhaps not there yet.

    It is a `concurrent.futures.Future`, so all that takes one takes it; it can also be awaited. It is made by
    `submit` and never by hand.

    Attributes
    ----------
    name : str
        The name of the function that was called.

    Examples
    --------
    >>> import manyhands as mh
    >>> future = mh.submit(pow, 2, 10)
    >>> future.result(timeout=60)
    1024
    >>> future.done(), future.exception()
    (True, None)
    """

    __slots__ = ("_error", "_listeners", "_load", "_owner", "_state", "_value", "key", "name")

    _state: str
    name: str
    key: int

    def __init__(
        self, owner: Owner, key: int, name: str
    ) -> None:  # no super(): see the module's head
        self._owner = owner
        self._state = PENDING
        self._value: Any = None
        self._error: BaseException | None = None
        self._load: Callable[[Any], tuple[Any, BaseException | None]] | None = None
        self._listeners: _Listeners | None = None
        self.key = key
        self.name = name

    # What the standard library reads of a future that it waits for.

    @property
    def owner(self) -> Owner:
        """The session that the future belongs to."""
        return self._owner

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        return self._get_listeners().condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        return self._get_listeners().waiters

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        return self._get_listeners().callbacks

    def _get_listeners(self) -> _Listeners:
        """For others, who will wait by their own means: somebody has to drive meanwhile."""
        if self._listeners is None and self._state not in _DONE:
            self._owner.attend()
        return self._make_listeners()

    def _make_listeners(self) -> _Listeners:
        listeners = self._listeners
        if listeners is None:
            fresh = (
                _Listeners()
            )  # not under the lock: it may call the garbage collector, and that anything
            with _births:
                if self._listeners is None:
                    self._listeners = fresh
                listeners = self._listeners
        return listeners

    # What callers use.

    def done(self) -> bool:
        """Whether the call has ended: with a result, an error or a cancellation."""
        if self._state in _DONE:
            return True
        self._owner.look()
        return self._state in _DONE

    def cancelled(self) -> bool:
        """Whether the call was withdrawn before it had ended."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Whether a worker is at it right now."""
        return self._state == RUNNING or (
            self._state == PENDING and self._owner.is_call_running(self)
        )

    def cancel(self, *, running: bool = False) -> bool:
        """Withdraw the call if it has not started; what waits for it is withdrawn too.

        Parameters
        ----------
        running
            Also if it has started: it is interrupted by `CallInterrupted`, and its worker is ended where the call does
            not yield to that within a second. The calls that it has made are cancelled as well.

        Returns
        -------
        bool
            Whether it is cancelled now: False where it has ended, or has started and `running` is false. A call that
            waits in a worker's queue has not started.
        """
        if self._state not in _DONE:
            self._owner.cancel_call(self, running=running)
        return self.cancelled()

    def result(self, timeout: float | None = None) -> R:
        """The call's result; waits for it.

        Parameters
        ----------
        timeout
            Seconds to wait; for ever where left out.

        Raises
        ------
        TimeoutError
            The time is over; the call goes on.
        concurrent.futures.CancelledError
        Exception
            Whatever the call raised, with its remote traceback as a note.
        """
        if self._state != FINISHED:
            self._wait(timeout)
        if self._load is not None:
            self._settle()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self = None  # type: ignore[assignment]  # noqa: PLW0642 - a cycle through the traceback
        result: R = self._value
        return result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, or None; waits for its end. `timeout` and errors as in `result`."""
        if self._state != FINISHED:
            self._wait(timeout)
        if self._load is not None:
            self._settle()
        return self._error

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Call ``fn(future)`` once the future is done, in whichever thread sees it; at once if it is done.

        What `fn` raises is logged and goes no further.
        """
        self._get_listeners()
        self.notify(fn)

    def notify(self, fn: Callable[[Future[R]], object]) -> None:
        """`add_done_callback` for one who waits with `owner.wait_until`, and so drives the engine himself."""
        listeners = self._make_listeners()
        with listeners.condition:
            if self._state not in _DONE:
                listeners.callbacks.append(fn)
                return
        self._call_back(fn)

    def unnotify(self, fn: Callable[[Future[R]], object]) -> None:
        """Take back one `notify`; where the future is done that does nothing."""
        listeners = self._listeners
        if listeners is not None:
            with listeners.condition:
                if fn in listeners.callbacks:
                    listeners.callbacks.remove(fn)

    def __await__(self) -> Generator[Any, None, R]:
        import asyncio

        return asyncio.wrap_future(self).__await__()

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled. Pass it as an argument of a call, directly or inside lists, tuples and "
            f"dicts: the call then gets its result."
        )

    def __repr__(self) -> str:
        return f"<Future of {self.name}, call {self.key}: {self._describe_state()}>"

    def _describe_state(self) -> str:
        if self._state != FINISHED:
            return "cancelled" if self.cancelled() else "running" if self.running() else "pending"
        if self._load is not None:
            return "finished"
        return f"raised {type(self._error).__name__}" if self._error is not None else "finished"

    # What the owner calls.

    def set_running_or_notify_cancel(self) -> bool:
        """Part of the standard protocol: the call starts now, unless it was cancelled."""
        with _births:
            if self._state == PENDING:
                self._state = RUNNING
                return True
        if self._state == CANCELLED:
            return False
        raise InvalidStateError(f"{self!r} cannot start")

    def set_result(self, result: R) -> None:
        """Part of the standard protocol: end with `result`."""
        self.settle(result, None, None)

    def set_exception(self, exception: BaseException | None) -> None:
        """Part of the standard protocol: end with `exception`."""
        self.settle(None, exception, None)

    def settle(
        self,
        value: Any,
        error: BaseException | None,
        load: Callable[[Any], tuple[Any, BaseException | None]] | None,
    ) -> None:
        """End the future.

        Parameters
        ----------
        value, error
            The result, or what was raised.
        load
            Where given, ``load(value)`` is called by the first who asks and gives the result and the error, so
            that results are unpickled by those who want them.

        Raises
        ------
        concurrent.futures.InvalidStateError
            It has ended already.
        """
        with _births:
            listeners = self._listeners
            if listeners is None:
                self._set_end(value, error, load)
                return
        with listeners.condition:
            self._set_end(value, error, load)
            for waiter in listeners.waiters:
                if error is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            listeners.condition.notify_all()
        self._call_all_back(listeners)

    @staticmethod
    def settle_all(
        futures: dict[int, Future[Any]],
        results: Iterable[tuple[int, Any]],
        load: Callable[[Any], tuple[Any, BaseException | None]],
    ) -> None:
        """End many futures well, at a quarter of the cost of one by one.

        Parameters
        ----------
        futures
            By key; those that end are taken out. Keys that are not in it are passed over.
        results
            Pairs of key and value.
        load
            As in `settle`.
        """
        heard: list[Future[Any]] = []
        heard_values: list[Any] = []
        pop = futures.pop
        with _births:
            for key, value in results:
                future = pop(key, None)
                if future is None:
                    continue
                if future._listeners is None and future._state not in _DONE:
                    future._value = value
                    future._load = load
                    future._state = FINISHED
                else:
                    heard.append(future)
                    heard_values.append(value)
        interrupt: BaseException | None = None
        for future, value in zip(heard, heard_values, strict=True):
            try:
                future.settle(value, None, load)
            except BaseException as error:  # of a callback: the others have ended all the same
                interrupt = interrupt or error
        if interrupt is not None:
            raise interrupt

    def withdraw(self) -> None:
        """End the future as cancelled; a future that has ended stays as it is."""
        with _births:
            if self._state in _DONE:
                return
            listeners = self._listeners
            if listeners is None:
                self._state = CANCELLED_AND_NOTIFIED
                return
        with listeners.condition:
            if self._state in _DONE:
                return
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in listeners.waiters:
                waiter.add_cancelled(self)
            listeners.condition.notify_all()
        self._call_all_back(listeners)

    def peek_error(self) -> BaseException | None:
        """The error of a future that has ended, as far as it is known without reading the result.

        Raises
        ------
        concurrent.futures.CancelledError
        """
        if self.cancelled():
            raise CancelledError(f"{self!r} was withdrawn")
        return self._error

    def hand_on(self, forward: Callable[[Any], Any]) -> Any:
        """The result for another call: the value, or ``forward`` of what arrived where nobody has asked for the value.

        Only for a future that has ended well.
        """
        with _births:
            is_unread, value = self._load is not None, self._value
        return forward(value) if is_unread else self.result()

    def _set_end(self, value: Any, error: BaseException | None, load: Any) -> None:
        if self._state in _DONE:
            raise InvalidStateError(f"{self!r} has ended already")
        self._value = value
        self._error = error
        self._load = load
        self._state = FINISHED

    def _settle(self) -> None:
        """Unpickle what arrived, once."""
        load, value = self._load, self._value
        if load is None:
            return
        loaded, error = load(value)
        with _births:
            if self._load is not None:  # nobody was quicker
                self._value, self._error, self._load = loaded, error, None

    def _has_ended(self) -> bool:
        return self._state in _DONE

    def _wait(self, timeout: float | None) -> None:
        if not self._has_ended() and not self._owner.wait_until(self._has_ended, timeout, self.key):
            raise TimeoutError(
                f"{self!r} has no result after {timeout} s; it goes on, so ask again, or cancel it"
            )
        if self.cancelled():
            raise CancelledError(
                f"{self!r} was withdrawn, or had not ended when its session closed"
            )

    def _call_all_back(self, listeners: _Listeners) -> None:
        callbacks, listeners.callbacks = listeners.callbacks, []
        interrupt: BaseException | None = None
        for fn in callbacks:
            try:
                self._call_back(fn)
            except BaseException as error:  # Ctrl-C, or an exit: the others are called all the same
                interrupt = interrupt or error
        if interrupt is not None:
            raise interrupt

    def _call_back(self, fn: Callable[[Future[R]], object]) -> None:
        try:
            fn(self)
        except Exception:
            LOGGER.exception("the callback %r of %r failed", fn, self)
