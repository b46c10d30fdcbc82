"""Objects that go wrong on purpose: for tests of what a program does when a worker fails.

Each does its damage at one point of a call's way. An object that acts when it is unpickled leaves the process
that made it alone, so as an argument it acts in the worker, and as a result in the caller.
"""

from __future__ import annotations

import os
import signal
import sys
from enum import Enum
from typing import Any, NoReturn


class FaultError(Exception):
    """What a fault raises that only raises."""


class Damage(Enum):
    """What a fault does."""

    EXIT = "exit"
    """``sys.exit(3)``."""
    OS_EXIT = "os._exit"
    """``os._exit(3)``: the process ends without a word."""
    SEGFAULT = "segfault"
    """Native code reads at address 0."""
    KILL = "kill"
    """SIGKILL to its own process, as the kernel does when memory is short."""
    RAISE = "raise"
    """`FaultError`."""


EXIT_CODE = 3
"""What processes end with that a fault exits."""


def strike(damage: Damage) -> NoReturn:
    """Do the damage, here and now.

    Examples
    --------
    >>> strike(Damage.RAISE)
    Traceback (most recent call last):
    manyhands.testing.faults.FaultError: on purpose
    """
    if damage is Damage.EXIT:
        sys.exit(EXIT_CODE)
    if damage is Damage.OS_EXIT:
        os._exit(EXIT_CODE)
    if damage is Damage.KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if damage is Damage.SEGFAULT:
        _read_address_zero()
    raise FaultError("on purpose")


def _read_address_zero() -> None:
    import ctypes
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would outlive the test
    ctypes.string_at(0)


class _Fault:
    """The damage and when it is done.

    Parameters
    ----------
    damage
        What to do.
    once
        A path. The fault that first makes this file acts, and none after it; where left out all do.
    """

    def __init__(self, damage: Damage, once: str | os.PathLike[str] | None = None) -> None:
        self.damage = damage
        self.once = None if once is None else os.fspath(once)

    def strike(self) -> None:
        """Do the damage, unless it was done and is to be done once."""
        if self.once is not None:
            try:
                os.close(os.open(self.once, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
        strike(self.damage)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), self.damage, self.once))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.damage}, {self.once!r})"


class RunningFault(_Fault):
    """A function that does damage when it is called, and else returns its first argument.

    Examples
    --------
    >>> import manyhands as mh
    >>> with mh.Session("local", workers=1) as session:
    ...     error = session.submit(RunningFault(Damage.KILL), 1).exception()
    >>> type(error).__name__, error.signal
    ('WorkerDiedError', 9)
    """

    def __call__(self, value: Any = None, /, *_: Any) -> Any:
        """Do the damage, or return `value`."""
        self.strike()
        return value


class PicklingFault(_Fault):
    """A value that does damage when it is pickled: as an argument in the caller, as a result in the worker.

    Examples
    --------
    >>> import manyhands as mh
    >>> with mh.Session("local", workers=1) as session:
    ...     print(type(session.submit(abs, PicklingFault(Damage.RAISE)).exception()).__name__)
    UnpicklableError
    """

    def __reduce__(self) -> Any:
        self.strike()
        return type(self), (self.damage, self.once)


class UnpicklingFault(_Fault):
    """A value that does damage when another process than its maker unpickles it.

    As an argument it acts in the worker. Made by a call and returned it acts in the caller, so give it no other
    damage than to raise there.

    Examples
    --------
    >>> import manyhands as mh
    >>> with mh.Session("local", workers=1) as session:
    ...     print(type(session.submit(abs, UnpicklingFault(Damage.RAISE)).exception()).__name__)
    UnloadableError
    """

    def __reduce__(self) -> Any:
        return _unpickle, (self.damage, self.once, os.getpid())


def _unpickle(damage: Damage, once: str | None, maker: int) -> UnpicklingFault:
    fault = UnpicklingFault(damage, once)
    if os.getpid() != maker:
        fault.strike()
    return fault


def make_result(kind: type[_Fault], damage: Damage, once: str | None = None) -> _Fault:
    """A call that returns a fault: it then acts on the result's way home."""
    return kind(damage, once)
