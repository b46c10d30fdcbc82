"""What the calls of the conformance suite run. Importing it is cheap: workers do.

Calls tell by files what they did, since they may run in another process: it holds for every engine whose workers
see this machine's files.
"""

from __future__ import annotations

import os
import sys
import threading
from time import monotonic, sleep
from typing import Any

_LIMIT = 60.0
_NAP = 0.002

settings: dict[str, Any] = {}
"""What initializers put into a worker."""


class CustomError(Exception):
    """An exception with an attribute, whose ``__init__`` does not take its own ``args``."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.detail = detail


class Mark:
    """Counts, by files of a folder, how often something happened."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)

    def add(self, name: object = "once") -> int:
        """Note that it happened once more; how often by now."""
        number = self.count(name)
        while True:
            number += 1
            path = os.path.join(self.folder, f"{name}.{number}")  # noqa: PTH118 - pathlib is slow to import
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return number

    def count(self, name: object = "once") -> int:
        """How often it happened."""
        return sum(entry.rpartition(".")[0] == str(name) for entry in os.listdir(self.folder))  # noqa: PTH208


class Carrier:
    """An object with a value in an attribute."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Traveller:
    """Notes each process that unpickles it."""

    def __init__(self, size: int) -> None:
        self.content = bytes(size)
        self.travels: list[int] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.travels = [*self.travels, os.getpid()]


class Gate:
    """Holds the calls that come to it until it is opened.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gate = Gate(folder)
    ...     gate.open()
    ...     gate.enter("through")
    'through'
    """

    def __init__(self, folder: str | os.PathLike[str], name: str = "gate") -> None:
        self._mark = Mark(folder)
        self._name = name

    def enter(self, value: Any = None) -> Any:
        """Wait until the gate is open and return `value`."""
        self._mark.add(f"{self._name}-entered")
        deadline = monotonic() + _LIMIT
        while not self._mark.count(f"{self._name}-open"):
            if monotonic() > deadline:
                raise TimeoutError(f"nobody opened the gate for {_LIMIT} s")
            sleep(_NAP)
        return value

    def open(self) -> None:
        """Let all through, now and later."""
        self._mark.add(f"{self._name}-open")

    def count_entered(self) -> int:
        """How many calls have come so far."""
        return self._mark.count(f"{self._name}-entered")


def square(x: int) -> int:
    """An ordinary function."""
    return x * x


def add(a: int, b: int = 0, *, c: int = 0) -> int:
    """One with several kinds of arguments."""
    return a + b + c


def total(values: Any) -> Any:
    """The sum of what a list, a tuple or the values of a dict hold, however deep."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        return sum(total(value) for value in values)
    return values


def echo(value: Any) -> Any:
    """Return the argument."""
    return value


def append(values: list[int]) -> list[int]:
    """Change the argument, and return it."""
    values.append(0)
    return values


def fill(buffer: Any, value: int) -> int:
    """Set all bytes of a buffer, and return their sum."""
    buffer[:] = bytes([value]) * len(buffer)
    return sum(buffer)


def measure(value: Any) -> int:
    """The length of a value, or of all that a list, a set, a carrier or a ref holds."""
    import manyhands as mh

    if isinstance(value, mh.Ref):
        return measure(value.get())
    if isinstance(value, Carrier):
        return measure(value.value)
    if isinstance(value, (list, set)):
        return sum(map(measure, value))
    return len(value)


def unload(carrier: Carrier) -> Any:
    """What a carrier carries."""
    return carrier.value


def count_different(carriers: list[Carrier]) -> int:
    """How many different values they carry."""
    return len({carrier.value for carrier in carriers})


def put_value(value: Any) -> Any:
    """Store a value inside a call."""
    import manyhands as mh

    return mh.put(value)


def put_twice(x: int) -> Any:
    """Store two equal values; the ref of the first, once more, and the ref of the second."""
    first, second = put_value([x] * 9000), put_value([x] * 9000)
    return first, first, second


def make_traveller(size: int) -> Traveller:
    """One that has not travelled."""
    return Traveller(size)


def get_travels(traveller: Traveller) -> list[int]:
    """The processes that have unpickled it."""
    return traveller.travels


def nap(seconds: float) -> float:
    """Take so long."""
    sleep(seconds)
    return seconds


def get_place() -> tuple[int, int]:
    """Process and thread that this runs in."""
    return os.getpid(), threading.get_ident()


def get_pid(_: object = None) -> int:
    """The process that this runs in."""
    return os.getpid()


def fail(message: str) -> int:
    """Raise ValueError."""
    raise ValueError(message)


def fail_with_custom_error(code: int) -> None:
    """Raise CustomError."""
    raise CustomError(code, detail="out of order")


def fail_with_cause() -> None:
    """Raise KeyError because of a ValueError."""
    try:
        fail("the root")
    except ValueError as error:
        raise KeyError("the outcome") from error


def fail_with_local_class() -> None:
    """Raise an error of a class that no other process can import."""

    class LocalError(Exception):
        pass

    raise LocalError("made here")


def fail_unpicklably() -> None:
    """Raise an error that holds what does not pickle."""
    error = ValueError("held", threading.Lock())
    raise error


def fail_at(bad: tuple[int, ...], x: int) -> int:
    """Raise ValueError for some items, square the others."""
    if x in bad:
        raise ValueError(f"item {x} is bad")
    return x * x


def stop_at_three(x: int) -> int:
    """Raise StopIteration for one item."""
    if x == 3:
        raise StopIteration
    return x


def fail_until(folder: str, attempt: int, x: int = 0) -> int:
    """Raise OSError at the first attempts; return x at the one that is asked for."""
    number = Mark(folder).add(x)
    if number < attempt:
        raise OSError(f"attempt {number} at item {x}")
    return x


def note(folder: str, x: int) -> int:
    """Note that item x was run."""
    Mark(folder).add(x)
    return x


def exit_with(code: Any) -> None:
    """End as a program does."""
    sys.exit(code)


def hold_lock(_: object = None) -> Any:
    """Return what does not pickle."""
    return threading.Lock()


def put_setting(name: str, value: Any) -> None:
    """For initializers."""
    settings[name] = value


def get_setting(name: str, _: object = None) -> Any:
    """What the initializer of this worker put."""
    return settings.get(name)


def map_squares(count: int) -> list[int]:
    """Map inside a call."""
    import manyhands as mh

    return mh.map(square, range(count))


def submit_square(x: int) -> int:
    """Submit and wait inside a call."""
    import manyhands as mh

    return mh.submit(square, x).result(timeout=_LIMIT)


def say(text: str, stream: str = "stdout") -> None:
    """Print to a standard stream."""
    print(text, file=getattr(sys, stream))


def log(logger: str, level: int, text: str) -> None:
    """Write to a logger."""
    import logging

    logging.getLogger(logger).log(level, "%s, said %s", text, "worker")


def warn(text: str) -> None:
    """Issue a warning."""
    import warnings

    warnings.warn(text, UserWarning, stacklevel=1)
