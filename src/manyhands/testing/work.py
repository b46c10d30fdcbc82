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
    getattr(sys, stream).write(f"{text}\n")  # at once: other threads write too


def log(logger: str, level: int, text: str) -> None:
    """Write to a logger."""
    import logging

    logging.getLogger(logger).log(level, "%s, said %s", text, "worker")


def warn(text: str) -> None:
    """Issue a warning."""
    import warnings

    warnings.warn(text, UserWarning, stacklevel=1)


class Diary:
    """A file that calls write lines into; they stand in the order in which they were written."""

    def __init__(self, folder: str | os.PathLike[str], name: str = "diary") -> None:
        self._path = os.path.join(os.fspath(folder), name)  # noqa: PTH118 - pathlib is slow to import

    def write(self, line: object) -> None:
        """Add a line."""
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(fd, f"{line}\n".encode())
        finally:
            os.close(fd)

    def read(self) -> list[str]:
        """All lines so far."""
        try:
            with open(self._path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib is slow to import
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def stay(self, seconds: float, name: object = "") -> object:
        """Be here so long, which two lines say; return `name`."""
        self.write(f"+{name}")
        sleep(seconds)
        self.write(f"-{name}")
        return name

    def count_most(self, beginning: str = "") -> int:
        """How many were here at once at most, of those whose names begin so."""
        most = present = 0
        for line in self.read():
            if line[1:].startswith(beginning):
                present += 1 if line[0] == "+" else -1
                most = max(most, present)
        return most


def spin(folder: str, name: str = "spin") -> None:
    """Compute in Python until interrupted; marks tell that it began, by what it was interrupted, and that it ended."""
    mark = Mark(folder)
    deadline = monotonic() + _LIMIT
    try:
        mark.add(f"{name}-began")
        # Not `while monotonic() < deadline`: since Python 3.13 an interrupt that comes as such a loop jumps back passes
        # by the handlers of the `try` around it.
        while True:
            if monotonic() >= deadline:
                break
    except BaseException as error:
        mark.add(f"{name}-{type(error).__name__}")
        raise
    finally:
        mark.add(f"{name}-ended")


def doze(folder: str, name: str = "doze") -> None:
    """Sleep until interrupted; marks tell of it as those of `spin` do."""
    mark = Mark(folder)
    try:
        mark.add(f"{name}-began")
        sleep(_LIMIT)
    except BaseException as error:
        mark.add(f"{name}-{type(error).__name__}")
        raise
    finally:
        mark.add(f"{name}-ended")


def defy(folder: str, name: str = "defy") -> None:
    """Compute, whatever interrupts it."""
    mark = Mark(folder)
    deadline = monotonic() + _LIMIT
    mark.add(f"{name}-began")
    while monotonic() < deadline:
        try:
            while True:  # as in `spin`
                if monotonic() >= deadline:
                    break
        except BaseException:  # noqa: S112 - that is what it is for
            continue


def freeze(folder: str, name: str = "freeze") -> None:
    """Hang in native code, which keeps Python's lock and never looks at signals."""
    from itertools import repeat

    Mark(folder).add(f"{name}-began")
    all(repeat(object(), 10**10))


def misbehave(folder: str, plan: tuple[str, ...], value: Any = None) -> Any:
    """Do at the n-th attempt what the n-th word says: "raise" OSError, "die", "spin", or return `value` at another."""
    from manyhands.testing.faults import Damage, strike

    number = Mark(folder).add(f"attempt-{value}")
    word = plan[min(number, len(plan)) - 1]
    if word == "raise":
        raise OSError(f"attempt {number} of {value}")
    if word == "die":
        strike(Damage.KILL)
    if word == "spin":
        spin(folder)
    return value


def count_attempts(folder: str | os.PathLike[str], value: Any = None) -> int:
    """How often `misbehave` was run."""
    return Mark(folder).count(f"attempt-{value}")


def descend(depth: int, way: str) -> int:
    """The depth, by as many calls in calls, each of which waits in that way for the next ones."""
    import manyhands as mh

    if depth == 0:
        return 0
    arguments = [depth - 1] * 2, [way] * 2
    if way == "map":
        return 1 + max(mh.map(descend, *arguments))
    if way == "starmap":
        return 1 + max(mh.starmap(descend, zip(*arguments, strict=True)))
    if way == "imap":
        return 1 + max(mh.imap(descend, *arguments))
    if way == "imap_unordered":
        return 1 + max(mh.imap_unordered(descend, *arguments))
    futures = [mh.submit(descend, *pair) for pair in zip(*arguments, strict=True)]
    if way == "gather":
        mh.gather(futures)
    elif way == "wait":
        mh.wait(futures)
    elif way == "as_completed":
        futures = list(mh.as_completed(futures))
    return 1 + max(future.result(_LIMIT) for future in futures)


def compute_fibonacci(n: int) -> int:
    """With a call for each number."""
    import manyhands as mh

    if n < 2:
        return n
    one, two = (mh.submit(compute_fibonacci, n - less) for less in (1, 2))
    return one.result(_LIMIT) + two.result(_LIMIT)


def sort_quickly(values: list[int]) -> list[int]:
    """With a call for each part."""
    import manyhands as mh

    if len(values) < 8:
        return sorted(values)
    pivot = values[len(values) // 2]
    less = mh.submit(sort_quickly, [value for value in values if value < pivot])
    more = mh.submit(sort_quickly, [value for value in values if value > pivot])
    return [
        *less.result(_LIMIT),
        *[value for value in values if value == pivot],
        *more.result(_LIMIT),
    ]


def measure_folder(path: str) -> int:
    """The bytes of all files in a folder, with a call for each folder."""
    import manyhands as mh

    with os.scandir(path) as found:
        entries = list(found)
    folders = [mh.submit(measure_folder, entry.path) for entry in entries if entry.is_dir()]
    size = sum(entry.stat().st_size for entry in entries if entry.is_file())
    return size + sum(mh.gather(folders, timeout=_LIMIT))
