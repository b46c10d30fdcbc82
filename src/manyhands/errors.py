"""Every error that manyhands raises of its own accord.

A user's exception is never wrapped: it comes back as itself. What stands here is for what the user's code
did not raise. Each class is also a built-in error where a caller would expect to catch that one::

    ManyhandsError
    ├── InvalidArgumentError       (ValueError)           an argument that cannot be meant
    ├── NotCallableError           (TypeError)            something to run that is no function
    ├── SessionClosedError         (RuntimeError)         a session used after its end, or in a forked child
    ├── UnknownEngineError         (ValueError)           an engine's name that nobody registered
    ├── EngineNotInstalledError    (ImportError)          an engine whose library is missing
    ├── DoorNotInstalledError      (ImportError)          a door for a library's programs, and the library is missing
    ├── UnsupportedError           (NotImplementedError)  something that this engine cannot do
    ├── UnpicklableError           (pickle.PicklingError) a value that cannot travel between processes
    ├── UnloadableError            (pickle.UnpicklingError) a value that travelled and cannot be rebuilt
    ├── DependencyError            (RuntimeError)         a call whose input failed; the failure is its cause
    ├── StoreFullError             (MemoryError)          no room in memory and on disk for one more value
    ├── RemoteError                (RuntimeError)         stands in for an exception that could not travel
    ├── CallTimeoutError           (TimeoutError)         a call that ran longer than its time-out
    ├── DeadlineError              (TimeoutError)         a map or gather that was not done in time
    └── WorkerError                (RuntimeError)
        ├── WorkerStartError                              workers cannot start, or their initializer failed
        ├── WorkerDiedError                               the worker ended while it ran this call
        ├── OutOfMemoryError       (MemoryError)          the call was ended for the memory that it took
        └── ActorDiedError                                the actor has ended, and nothing will answer
    CallInterrupted                (BaseException)        raised inside a call that is to end

`CallInterrupted` alone is no `Exception`, so that an ``except Exception`` of the user's does not keep a call alive
that was cancelled or has run out of time.
"""

from __future__ import annotations

from _pickle import (
    PicklingError,
    UnpicklingError,
)  # the classes of `pickle`, without importing all of it


class ManyhandsError(Exception):
    """The base of every error of this package.

    Examples
    --------
    >>> import manyhands as mh
    >>> try:
    ...     mh.Session(workers=0)
    ... except mh.ManyhandsError as error:
    ...     print(type(error).__name__)
    InvalidArgumentError
    """


class InvalidArgumentError(ManyhandsError, ValueError):
    """An argument has a value that cannot be meant; raised at the call, before any work."""


class NotCallableError(ManyhandsError, TypeError):
    """Something that should be run is not a function or another callable."""


class SessionClosedError(ManyhandsError, RuntimeError):
    """The session has ended, or belongs to the process that this one was forked from."""


class UnknownEngineError(ManyhandsError, ValueError):
    """No engine has this name; the message lists those there are."""


class EngineNotInstalledError(ManyhandsError, ImportError):
    """The engine exists but its library is not installed; the message says how to install it."""


class DoorNotInstalledError(ManyhandsError, ImportError):
    """A door for the programs of another library, which is not installed; the message says how to install it."""


class UnsupportedError(ManyhandsError, NotImplementedError):
    """This engine cannot do this; the message names the engines that can."""


class UnpicklableError(ManyhandsError, PicklingError):
    """A function, argument, result or exception cannot be pickled; the message names the offending part.

    Attributes
    ----------
    is_result : bool
        Whether it is what a call gave, which so has run.
    """

    is_result: bool = False


class UnloadableError(ManyhandsError, UnpicklingError):
    """A pickled value arrived but could not be rebuilt; the original error is the cause."""


class DependencyError(ManyhandsError, RuntimeError):
    """A call was not run because a future among its arguments failed; that failure is the cause."""


# MemoryError comes first, as it has a `__new__` of its own: the other way round `StoreFullError.__new__` is refused as
# unsafe, and that is what copies of exceptions are made with.
class StoreFullError(MemoryError, ManyhandsError):
    """A value fits neither into the memory nor onto the disk that the session may use; the message says what does."""


class RemoteError(ManyhandsError, RuntimeError):
    """Stands in for an exception that could not travel from its worker.

    Attributes
    ----------
    type_name : str
        The qualified name of the original class.
    """

    type_name: str = ""


class CallTimeoutError(ManyhandsError, TimeoutError):
    """A call ran longer than its ``timeout``; it was interrupted, or its worker was ended.

    Attributes
    ----------
    call : str
        The call's name.
    seconds : float
        How long it had run.
    stack : str
        Where it stood: the innermost frame last.
    """

    call: str = ""
    seconds: float = 0.0
    stack: str = ""


class DeadlineError(ManyhandsError, TimeoutError):
    """What had to be done by a deadline was not; the rest of it is cancelled."""


class WorkerError(ManyhandsError, RuntimeError):
    """Something is wrong with a worker, not with the call."""


class WorkerStartError(WorkerError):
    """Workers cannot be started, or their initializer failed; the session is of no further use."""


class WorkerDiedError(WorkerError):
    """The worker ended while it ran this call: an exit, a signal, a crash of native code.

    Attributes
    ----------
    call : str
        The call's name.
    key : int or None
        The call's number in its session. A call that passes on what it got from another passes on that one's.
    pid : int or None
        The worker's process id.
    signal : int or None
        The signal that ended it.
    exit_code : int or None
        Its exit code, where no signal ended it.
    stderr : list of str
        The last lines that the worker wrote to its standard error.
    """

    call: str = ""
    key: int | None = None
    pid: int | None = None
    signal: int | None = None
    exit_code: int | None = None
    stderr: list[str] = []  # noqa: RUF012 - replaced per instance, never changed in place


class OutOfMemoryError(WorkerError, MemoryError):
    """The call was ended because of the memory that it took, before the kernel ended something else.

    Attributes
    ----------
    call : str
        The call's name.
    used : int
        Bytes of its own that its worker had.
    limit : int or None
        Bytes that the call was allowed; None where the machine was near its end.
    """

    call: str = ""
    used: int = 0
    limit: int | None = None


class ActorDiedError(WorkerError):
    """The actor was stopped, or its worker died and it is not restarted; its calls get this answer.

    Attributes
    ----------
    actor : str
        The actor's class and, where it has one, its name.
    """

    actor: str = ""


class CallInterrupted(BaseException):
    """Raised inside a running call that was cancelled, or that has run out of time.

    A call may catch it to clean up, and has about a second for that. Then its worker is ended.
    """
