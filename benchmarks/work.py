"""The functions that contenders call; every contender gets them by reference from here."""

from __future__ import annotations

import time
from itertools import repeat
from pathlib import Path


def noop(value: object) -> object:
    """Give `value` back: a call that costs nothing but its transport."""
    return value


def square(number: int) -> int:
    """Multiply `number` by itself."""
    return number * number


def spin(iterations: int) -> None:
    """Keep one core busy for a fixed number of loop iterations.

    The work is a count, never a deadline: a loop that runs until a deadline does less
    work when it shares its core, and so hides contention. `repeat` makes each iteration
    cost the same, where `range` creates integers, dearer above 256.
    """
    for _ in repeat(None, iterations):
        pass


def pause(seconds: float) -> None:
    """Sleep, so that a second call must go to a second worker."""
    time.sleep(seconds)


def wait_for_file(path: str) -> None:
    """Hold a worker until `path` exists."""
    while not Path(path).exists():
        time.sleep(0.005)
