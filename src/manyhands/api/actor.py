"""Actors: objects that live in a worker, keep their state, and run their methods in order."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from manyhands.core.acting import ActorMethod
from manyhands.core.functions import is_coroutine_function
from manyhands.core.generators import StreamCall
from manyhands.core.model import ActorPlace, CallOptions, RetryPolicy
from manyhands.core.options import check_seconds, reject_unknown
from manyhands.core.resources import make_need
from manyhands.errors import InvalidArgumentError, NotCallableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypedDict, Unpack

    from manyhands.core.future import Future
    from manyhands.core.stream import Stream
    from manyhands.session import Session

    class ActorOptions(TypedDict, total=False):
        """Keyword options of an actor; `actor` describes them."""

        cpus: float | None
        gpus: float
        memory: str | int | None
        resources: Mapping[str, float] | None
        restarts: int
        checkpoint_every: int
        max_concurrency: int | None
        name: str | None


T = TypeVar("T")

_OPTIONS: dict[str, Any] = {
    "cpus": None,
    "gpus": 0,
    "memory": None,
    "resources": None,
    "restarts": 0,
    "checkpoint_every": 1,
    "max_concurrency": None,
    "name": None,
}

_ASYNC_CONCURRENCY = 1000
"""Calls of an actor with ``async`` methods that run at a time, unless it says otherwise."""

_STREAM_WINDOW = 16

_ONE_ATTEMPT = RetryPolicy(worker_retries=0)
"""A method may have changed the actor's state before it failed, so it is not run again unasked."""


class ActorClass(Generic[T]):
    """A class whose instances can live in workers; it still makes ordinary instances when it is called.

    Made by `actor`.

    Examples
    --------
    >>> import manyhands as mh
    >>> @mh.actor
    ... class Counter:
    ...     def __init__(self, start=0):
    ...         self.value = start
    ...     def add(self, amount):
    ...         self.value += amount
    ...         return self.value
    >>> counter = Counter.start(10)
    >>> futures = [counter.add.submit(1) for _ in range(3)]
    >>> mh.gather(futures), counter.add(1)
    ([11, 12, 13], 14)
    >>> counter.stop()
    """

    def __init__(self, cls: type[T], **options: Unpack[ActorOptions]) -> None:
        if not isinstance(cls, type):
            raise NotCallableError(f"expected a class to make actors of, got {cls!r}")
        self._cls = cls
        self._options: dict[str, Any] = {**_OPTIONS, **options}
        _check(cls, self._options)
        self.__name__, self.__qualname__ = cls.__name__, cls.__qualname__
        self.__module__, self.__doc__ = cls.__module__, cls.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        """An ordinary instance, here."""
        return self._cls(*args, **kwargs)

    def options(self, **options: Unpack[ActorOptions]) -> ActorClass[T]:
        """The same class with other options, as `actor` has them; those left out stay as they are."""
        reject_unknown(options, _OPTIONS, "an actor")
        return ActorClass(self._cls, **{**self._options, **options})

    def start(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Have an instance made in a worker, and return at once.

        Parameters
        ----------
        *args, **kwargs
            Of the class. What it raises is the answer to the actor's calls, as the cause of `ActorDiedError`.

        Returns
        -------
        ActorHandle
        """
        o = self._options
        methods = _list_methods(self._cls)
        is_async = "async" in methods.values()
        concurrency = o["max_concurrency"] or (_ASYNC_CONCURRENCY if is_async else 1)
        need = make_need(o["cpus"] or 0, o["gpus"], o["memory"], o["resources"])
        # A process shows the same devices to all that run in it.
        is_light = o["cpus"] == 0 and not o["gpus"]
        place = ActorPlace(need, is_light=is_light, concurrency=concurrency, is_async=is_async)
        every = o["checkpoint_every"] if hasattr(self._cls, "checkpoint") else 0
        session = _find_session()
        life = session.start_actor(
            self._cls,
            args,
            kwargs,
            place,
            methods=methods,
            restarts=o["restarts"],
            every=every if o["restarts"] else 0,
            name=o["name"],
        )
        return ActorHandle(life.number, life.class_name, life.name, methods, session)

    def __reduce__(self) -> Any:
        return _rebuild_class, (self._cls, self._options)

    def __repr__(self) -> str:
        return f"<ActorClass {self.__qualname__}>"


def _rebuild_class(cls: type[Any], options: dict[str, Any]) -> ActorClass[Any]:
    return ActorClass(cls, **options)


class ActorHandle:
    """What calls an actor; it can be handed to calls and to other actors, and means the same actor there.

    Its attributes are the actor's methods: ``handle.add(1)`` calls one and waits, ``handle.add.submit(1)`` returns a
    future, ``handle.watch.stream()`` gives what a generator method yields. Calls from one caller run in their order.
    An actor lives until `stop`, `kill`, or the end of its session.

    Attributes
    ----------
    actor_name : str or None
        By which `find_actor` finds it.

    Examples
    --------
    >>> import manyhands as mh
    >>> numbers = mh.actor(list).start([3, 1])
    >>> numbers.append(2)
    >>> numbers.index.submit(2).result()
    2
    >>> numbers
    <Actor list>
    >>> numbers.stop()
    """

    def __init__(
        self,
        number: int,
        class_name: str,
        name: str | None,
        methods: dict[str, str],
        session: Session | None = None,
    ) -> None:
        self.actor_name = name
        self._session = session  # None where the handle has travelled: then it is the call's
        self._number = number
        self._class_name = class_name
        self._methods = methods
        self._bound: dict[str, BoundMethod] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the actor itself and wait for the result, where its class has a method ``__call__``."""
        if "__call__" not in self._methods:
            raise TypeError(f"the actor {self._class_name} has no method '__call__'")
        return self._bind("__call__")(*args, **kwargs)

    def __getattr__(self, method: str) -> BoundMethod:
        if method.startswith("__") or method not in self._methods:
            known = ", ".join(name for name in self._methods if name != "__call__") or "none"
            raise AttributeError(
                f"the actor {self._class_name} has no method {method!r}; it has {known}. Its attributes stay with it: "
                f"give it a method that returns what you want to know"
            )
        return self._bind(method)

    def _bind(self, method: str) -> BoundMethod:
        bound = self._bound.get(method)
        if bound is None:
            name = f"{self._class_name}.{method}"
            call = ActorMethod(self._number, method, name)
            bound = self._bound[method] = BoundMethod(call, self._session)
        return bound

    def stop(self) -> None:
        """End the actor after the calls that it has been given so far; again does nothing."""
        _find_session(self._session).stop_actor(self._number, kill=False)

    def kill(self) -> None:
        """End the actor at once; its calls fail with `ActorDiedError`. It is not made again."""
        _find_session(self._session).stop_actor(self._number, kill=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._number == self._number

    def __hash__(self) -> int:
        return hash(self._number)

    def __reduce__(self) -> Any:
        return ActorHandle, (self._number, self._class_name, self.actor_name, self._methods)

    def __repr__(self) -> str:
        name = f" {self.actor_name!r}" if self.actor_name else ""
        return f"<Actor {self._class_name}{name}>"


class BoundMethod:
    """One method of an actor: call it and wait, `submit` it, or `stream` it.

    Parameters
    ----------
    method
        Which one.
    session
        That it is called in; None for that of the caller.
    options
        Of its calls.
    """

    def __init__(
        self, method: ActorMethod, session: Session | None, options: CallOptions | None = None
    ) -> None:
        self._method = method
        self._session = session
        self._options = options or CallOptions(_ONE_ATTEMPT, actor=method.number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method and wait for its result."""
        return self.submit(*args, **kwargs).result()

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the method and return at once; futures and refs among the arguments stand for their values."""
        return _find_session(self._session).start_call(self._method, args, kwargs, self._options)

    def stream(self, *args: Any, **kwargs: Any) -> Stream[Any]:
        """Call a generator method and get what it yields; see `Task.stream`."""
        o = self._options
        options = CallOptions(o.policy, timeout=o.timeout, actor=o.actor, window=_STREAM_WINDOW)
        call = StreamCall(self._method, self._method.__qualname__)
        return _find_session(self._session).start_stream(call, args, kwargs, options)

    def options(
        self, *, timeout: float | None = None, worker_retries: int = 0, retries: int = 0
    ) -> BoundMethod:
        """The same method, whose calls have a time-out or are tried again.

        Parameters
        ----------
        timeout
            Seconds that a call may run; then it is interrupted, and if it does not yield, its actor's worker is ended.
        worker_retries
            Further attempts at a call that was running when the actor's worker died, if the actor is made again.
        retries
            Further attempts at a call that failed.
        """
        policy = RetryPolicy(retries, worker_retries=worker_retries)
        seconds = check_seconds(timeout, "timeout")
        options = CallOptions(policy, timeout=seconds, actor=self._method.number)
        return BoundMethod(self._method, self._session, options)

    def __repr__(self) -> str:
        return f"<method {self._method.__qualname__} of an actor>"


def _find_session(known: Session | None = None) -> Session:
    if known is not None:
        return known
    from manyhands.session import get_session

    return get_session()


@overload
def actor(cls: type[T], /, **options: Unpack[ActorOptions]) -> ActorClass[T]: ...


@overload
def actor(**options: Unpack[ActorOptions]) -> Callable[[type[T]], ActorClass[T]]: ...


def actor(cls: type[Any] | None = None, /, **options: Any) -> Any:
    """Make a class an `ActorClass`: a decorator, with or without options, and an ordinary function.

    Parameters
    ----------
    cls
        The class; it still makes ordinary instances when it is called.
    cpus : float, optional
        Left out, an actor has a process of its own, which the system schedules. With 0 it shares one with other such
        actors, so that there can be thousands. More is taken from the session's cpus for as long as the actor lives.
    gpus, memory, resources
        As of `manyhands.task`, for as long as the actor lives.
    restarts : int
        How often it is made again when its worker dies; 0 by default. The call that ran then fails; those that wait
        go on. Its state is that of its last checkpoint, if the class has these two methods, else it starts anew:
        ``checkpoint(self)`` returns a value to be kept, and the class method ``restore(cls, value)`` makes the object
        of it.
    checkpoint_every : int
        Calls between two checkpoints; 1 by default.
    max_concurrency : int, optional
        Calls that run at a time, in threads; 1 by default, and 1000 for a class with ``async`` methods, which run on
        an event loop.
    name : str, optional
        By which `find_actor` finds it; unique in the session.

    Examples
    --------
    >>> import manyhands as mh
    >>> class Greeter:
    ...     def __init__(self, word):
    ...         self.word = word
    ...     def greet(self, name):
    ...         return f"{self.word}, {name}!"
    >>> greeter = mh.actor(Greeter, restarts=1).start("Hello")
    >>> greeter.greet("you")
    'Hello, you!'
    >>> greeter.stop()
    """
    reject_unknown(options, _OPTIONS, "an actor")
    if cls is None:
        return lambda decorated: ActorClass(decorated, **options)
    return ActorClass(cls, **options)


def find_actor(name: str) -> ActorHandle:
    """The actor of the current session that was started under this name.

    Raises
    ------
    InvalidArgumentError
        There is none, or it is dead.

    Examples
    --------
    >>> import manyhands as mh
    >>> log = mh.actor(list, name="log").start()
    >>> log.append("started")
    >>> mh.find_actor("log") == log
    True
    >>> log.stop()
    """
    session = _find_session()
    return ActorHandle(*session.find_actor(name), session)


def _list_methods(cls: type[Any]) -> dict[str, str]:
    """Public methods of a class, and their kinds."""
    methods = {}
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        if (name.startswith("_") and name != "__call__") or not callable(member):
            continue
        methods[name] = "async" if is_coroutine_function(member) else "plain"
    return methods


def _check(cls: type[Any], options: dict[str, Any]) -> None:
    for name, least in (("restarts", 0), ("checkpoint_every", 1), ("max_concurrency", 1)):
        number = options[name]
        if name == "max_concurrency" and number is None:
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise InvalidArgumentError(f"{name}={number!r}: it is a whole number, at least {least}")
    if hasattr(cls, "checkpoint") and options["restarts"] and not hasattr(cls, "restore"):
        raise InvalidArgumentError(
            f"{cls.__qualname__} has a method checkpoint, so it needs a class method restore(cls, value) that makes "
            f"the object again"
        )
    make_need(options["cpus"] or 0, options["gpus"], options["memory"], options["resources"])
