"""The load of the chaos test: what its calls do in workers.

Each notes that it begins in a log that all processes append to, so that afterwards it is known what ran where, and how
often. Workers import this module again and again, so it imports little.
"""

import fcntl
import os
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from zlib import crc32

import manyhands as mh

BEGIN = struct.Struct("<QIQ")
"""One line of the log: the call, the process, nanoseconds of the monotonic clock."""

PARTS = 1 << 32
"""Calls that belong together (a map's items, a tree's nodes) have the number of the whole times this, and their own."""

_logs: dict[str, int] = {}


class Refused(Exception):
    """What calls raise that are to fail."""


class Excess(Exception):
    """More calls hold something at the same time than there is of it."""


def note(folder: str, number: int) -> None:
    """A call begins."""
    fd = _logs.get(folder)
    if fd is None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = _logs[folder] = os.open(f"{folder}/log", flags)
    os.write(fd, BEGIN.pack(number, os.getpid(), time.monotonic_ns()))


def mix(a: int, b: int) -> int:
    """A number that two others make, and no other two are likely to."""
    return (a * 6364136223846793005 + b * 1442695040888963407 + 1) % (1 << 61)


def fold(start: int, values: Any) -> int:
    """The same of all numbers in lists and dictionaries."""
    if isinstance(values, dict):
        values = [value for _, value in sorted(values.items())]
    for value in values:
        start = mix(start, value if isinstance(value, int) else fold(1, value))
    return start


@contextmanager
def hold(folder: str, name: str, places: int) -> Iterator[None]:
    """Take one of so many places; the kernel gives it back when the process dies."""
    for place in range(places):
        fd = os.open(f"{folder}/{name}-{place}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
            return
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    raise Excess(f"all {places} of {name} are held")


def spin(rounds: int) -> None:
    """Compute for a while."""
    x = 1
    for _ in range(rounds):
        x = x * 3 % 1000003


def compute(folder: str, number: int, rounds: int = 0) -> int:
    note(folder, number)
    spin(rounds)
    return mix(number, 1)


def occupy(folder: str, number: int, name: str, places: int, rounds: int) -> int:
    note(folder, number)
    with hold(folder, name, places):
        spin(rounds)
    return mix(number, 1)


def use_device(folder: str, number: int) -> int:
    """Have a device alone."""
    note(folder, number)
    with hold(folder, f"device-{os.environ['CUDA_VISIBLE_DEVICES']}", 1):
        spin(1000)
    return mix(number, 1)


def combine(folder: str, number: int, values: Any, *, extra: int = 0) -> int:
    note(folder, number)
    return fold(mix(number, extra), values)


def refuse(folder: str, number: int) -> int:
    note(folder, number)
    raise Refused(number)


def stumble(folder: str, number: int, failures: int) -> int:
    """Fail the first times that it is tried."""
    note(folder, number)
    fd = os.open(f"{folder}/tries-{number}", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    try:
        os.write(fd, b"x")
        tries = os.fstat(fd).st_size
    finally:
        os.close(fd)
    if tries <= failures:
        raise Refused(number)
    return mix(number, 1)


def linger(folder: str, number: int, seconds: float, stubborn: bool = False) -> int:
    """Take long; a stubborn one goes on where it is interrupted."""
    note(folder, number)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            time.sleep(left)
        except BaseException:
            if not stubborn:
                raise
    return mix(number, 1)


def answer_block(folder: str, number: int, block: Any, size: int) -> tuple[int, bytes]:
    """What was sent, in short, and as much as was asked for."""
    note(folder, number)
    return crc32(block), make_block(number, size)


def check_block(folder: str, number: int, answer: tuple[int, bytes]) -> tuple[int, int]:
    note(folder, number)
    return answer[0], crc32(answer[1])


def add_arrays(folder: str, number: int, arrays: list[Any]) -> Any:
    note(folder, number)
    return sum(arrays[1:], start=arrays[0])


def make_block(number: int, size: int) -> bytes:
    return (number * 2654435761 % (1 << 64)).to_bytes(8, "little") * (size // 8)


def treat_item(folder: str, first: int, bad: frozenset[int], rounds: int, x: int) -> int:
    """An item of a map."""
    note(folder, first + x)
    spin(rounds)
    if x in bad:
        raise Refused(x)
    return mix(first, x)


def trickle(folder: str, number: int, length: int, fails_at: int | None) -> Iterator[int]:
    note(folder, number)
    for place in range(length):
        if place == fails_at:
            raise Refused(number)
        yield mix(number, place)


async def trickle_async(
    folder: str, number: int, length: int, fails_at: int | None
) -> AsyncIterator[int]:
    note(folder, number)
    for place in range(length):
        if place == fails_at:
            raise Refused(number)
        if place % 4 == 0:
            await pause(0)
        yield mix(number, place)


async def pause(seconds: float) -> None:
    import asyncio

    await asyncio.sleep(seconds)


async def doze(folder: str, number: int, seconds: float) -> int:
    note(folder, number)
    await pause(seconds)
    return mix(number, 1)


def add_up(folder: str, number: int, n: int) -> int:
    """Fibonacci's numbers with a call for each node; the calls of a tree have one number."""
    note(folder, number)
    if n < 2:
        return n
    parts = [mh.submit(add_up, folder, number, n - 1 - side) for side in range(2)]
    return sum(part.result() for part in parts)


STYLES = (
    "gather",
    "gather",
    "chain",
    "map",
    "join",
    "join",
    "stream",
    "cancel",
    "catch",
    "actor",
    "put",
)

SPAN = 4
"""Children of a node at most, and one less than what the numbers of nodes are counted by."""


def plan_node(seed: int, node: int, depth: int) -> tuple[str, list[int]]:
    """What a node of a random tree does, and its children."""
    chance = mix(seed, node)
    if not depth or chance % 7 == 0:
        return "leaf", []
    style = STYLES[chance // 7 % len(STYLES)]
    return style, [node * SPAN + place + 1 for place in range(1 + chance // 70 % (SPAN - 1))]


def grow(folder: str, number: int, seed: int, node: int, depth: int) -> Any:
    """A node of a random tree: a number, or a future of one."""
    note(folder, number * PARTS + node)
    style, children = plan_node(seed, node, depth)
    if style == "leaf":
        return mix(seed, node)
    aside = number * PARTS + PARTS - 1  # calls that are no nodes have this number together
    branch = partial(grow_branch, folder, number, seed, depth - 1)
    start = mix(seed, node)
    if style == "map":
        return fold(start, mh.map(branch, children))
    if style == "catch":
        error = mh.submit(refuse, folder, aside).exception()
        if not isinstance(error, Refused):
            raise error or AssertionError("it should have failed")
    futures = [
        mh.submit(grow, folder, number, seed, child, depth - 1)
        if child % 2
        else mh.submit(branch, child)
        for child in children
    ]
    if style == "chain":
        end = mh.submit(fold, start, [futures[0]])
        for future in futures[1:]:
            end = mh.submit(fold, end, [future])
        return end.result()
    if style == "join":
        return mh.submit(fold, start, futures)
    do_beside(style, folder, aside, node)
    return fold(start, mh.gather(futures))


def do_beside(style: str, folder: str, aside: int, node: int) -> None:
    """What a node does while its children run."""
    if style == "cancel":
        late = mh.submit(time.sleep, 0.3)
        if not late.cancel(running=True) and not late.done():
            raise AssertionError(f"{late!r} was not cancelled")
    if style == "stream":
        with mh.task(trickle).stream(folder, aside, 5, None) as stream:
            if list(stream) != [mix(aside, place) for place in range(5)]:
                raise AssertionError("a stream inside a call is wrong")
    if style == "put":
        block = make_block(node, 50_000)
        if mh.submit(answer_block, folder, aside, mh.put(block), 10).result()[0] != crc32(block):
            raise AssertionError("a value that a call has put is wrong")
    if style == "actor":
        tally = mh.actor(Tally, cpus=0).start()
        if tally.add(folder, aside, 1)[:2] != (0, 1):
            raise AssertionError("an actor inside a call is wrong")
        tally.stop()


def grow_branch(folder: str, number: int, seed: int, depth: int, node: int) -> Any:
    """The same for a map, whose items are no futures."""
    grown = grow(folder, number, seed, node, depth)
    return grown if isinstance(grown, int) else grown.result()


def expect_tree(seed: int, node: int, depth: int) -> tuple[int, int]:
    """What a tree gives, and its size."""
    style, children = plan_node(seed, node, depth)
    if style == "leaf":
        return mix(seed, node), 1
    found = [expect_tree(seed, child, depth - 1) for child in children]
    return fold(mix(seed, node), [value for value, _ in found]), 1 + sum(n for _, n in found)


class Tally:
    """An actor that knows which call came before."""

    def __init__(self) -> None:
        self.last = self.calls = 0

    def add(self, folder: str, number: int, place: int) -> tuple[int, int]:
        """The place of the call before, and how many there were with this one."""
        note(folder, number)
        before, self.last = self.last, place
        self.calls += 1
        return before, self.calls

    def trickle(self, folder: str, number: int, length: int) -> Iterator[int]:
        return trickle(folder, number, length, None)

    def linger(self, folder: str, number: int, seconds: float) -> int:
        return linger(folder, number, seconds)


class KeptTally(Tally):
    """One that is made again as it was."""

    def checkpoint(self) -> tuple[int, int]:
        return self.last, self.calls

    @classmethod
    def restore(cls, kept: tuple[int, int]) -> "KeptTally":
        tally = cls()
        tally.last, tally.calls = kept
        return tally


class AsyncTally(Tally):
    async def doze(self, folder: str, number: int, seconds: float) -> int:
        return await doze(folder, number, seconds)


def add_to_tally(folder: str, number: int, tally: Any, place: int) -> int:
    """A call that uses an actor of its caller's."""
    note(folder, number)
    tally.add(folder, number * PARTS, place)
    return mix(number, 1)
