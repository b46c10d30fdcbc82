"""What the rows of calls have run: the small functions and servers of Ray's own cases."""

from __future__ import annotations

from pathlib import Path


def small_value() -> bytes:
    """A call that does nothing and says so."""
    return b"ok"


class Server:
    """An actor whose methods do nothing."""

    def small_value(self) -> bytes:
        return b"ok"

    def small_value_arg(self, _: object) -> bytes:
        return b"ok"


class AsyncServer:
    """The same with methods that run on an event loop."""

    async def small_value(self) -> bytes:
        return b"ok"

    async def small_value_arg(self, _: object) -> bytes:
        return b"ok"


def count_nodes(number: int) -> int:
    """Calls that the Fibonacci number `number` takes, with one for each node of the tree."""
    before, last = 1, 1
    for _ in range(number - 1):
        before, last = last, before + last + 1
    return last


def compute_fibonacci(number: int) -> int:
    """The Fibonacci number by addition, to check the others by."""
    before, last = 0, 1
    for _ in range(number):
        before, last = last, before + last
    return before


def locate_library(_: object) -> str:
    """The file that `manyhands` is imported from, where this runs."""
    import manyhands

    return str(Path(manyhands.__file__).resolve())
