"""Fibonacci numbers with a call per node of the recursion: calls inside calls, to any depth.

The work is a pretext. It shows that a call may wait for its own calls without holding up anybody, also with two
workers, and what a call costs.

    python examples/fibonacci.py [N]
"""

import sys
import time
from typing import Any

import manyhands as mh


@mh.task
def compute(n: int) -> int:
    """Wait for two calls, and add what they return."""
    if n < 2:
        return n
    older = compute.submit(n - 2)
    return compute.submit(n - 1).result() + older.result()


@mh.task
def plan(n: int) -> Any:
    """The same without waiting: a call that returns a future has that future's result."""
    if n < 2:
        return n
    one: mh.Future[int] = plan.submit(n - 1)
    other: mh.Future[int] = plan.submit(n - 2)
    return mh.submit(add, one, other)


def add(one: int, other: int) -> int:
    """What `plan` has the numbers joined by."""
    return one + other


def count_calls(n: int) -> int:
    """How many calls `compute` makes."""
    return 1 if n < 2 else 1 + count_calls(n - 1) + count_calls(n - 2)


def main(n: int) -> None:
    """Compute both ways, and tell what a call took."""
    for task in (compute, plan):
        begin = time.perf_counter()
        result = task.submit(n).result()
        seconds = time.perf_counter() - begin
        each = seconds / count_calls(n) * 1000
        print(f"{task.__name__}({n}) = {result}, in {seconds:.2f} s: {each:.2f} ms a node")


main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
