"""Quicksort whose halves are sorted by calls of their own, as long as they are large.

Lists of numbers have to be pickled on every level, so this is no fast way to sort. It shows a recursion that stops
submitting where a call would cost more than it saves.

    python examples/quicksort.py [COUNT]
"""

import random
import sys

import manyhands as mh

SMALL = 2_000
"""Values that are sorted in place: well above the tenth of a millisecond that a call costs."""


def quicksort(values: list[float]) -> list[float]:
    """Sort, by calls for what is below and above a pivot."""
    if len(values) <= SMALL:
        return sorted(values)
    pivot = random.choice(values)
    below = mh.submit(quicksort, [value for value in values if value < pivot])
    above = mh.submit(quicksort, [value for value in values if value > pivot])
    middle = [value for value in values if value == pivot]
    return below.result() + middle + above.result()


def main(count: int) -> None:
    """Sort numbers by chance, and check the order."""
    values = [random.random() for _ in range(count)]
    result = mh.submit(quicksort, values).result()
    assert result == sorted(values)
    print(f"{count} values in order, from {result[0]:.6f} to {result[-1]:.6f}")


main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
