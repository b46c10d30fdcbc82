"""The functions that the data rows call, and the values that they are called with.

They import NumPy and pandas when they are called: the program and the workers of the other rows
are measured without.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.work import wait_for_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SEED = 20_260_101

_READ_EVERY = 512
"""Every how many elements of an array one is read, to touch each of its pages: 512 float64 fill one."""


def settle(order: tuple[int, float]) -> None:
    """Make this process ready for calls with arrays: a number of elements to keep, and seconds to sleep.

    Calls that sleep cannot all be taken by the worker that came up first.
    """
    count, seconds = order
    keep_array(count)
    time.sleep(seconds)


def make_array(count: int) -> Floats:
    """`count` random numbers, the same in each process, whose sum is exact in any order of adding."""
    import numpy as np

    return np.random.default_rng(_SEED).integers(0, 2**24, count).astype(np.float64)


def sum_part(array: Floats, part: tuple[int, int]) -> float:
    """Sum a slice."""
    first, last = part
    return float(array[first:last].sum())


@cache
def keep_array(count: int) -> Floats:
    """An array that this process makes once and keeps."""
    return make_array(count)


def sum_kept(count: int) -> float:
    """Sum an array that is here already: the call of `sum_part` without anything to send."""
    return float(keep_array(count).sum())


def give_kept(count: int) -> Floats:
    """Give an array that is here already: nothing but the way back is left to do."""
    return keep_array(count)


def read_pages(array: Floats) -> float:
    """Read one element of each page."""
    return float(array[::_READ_EVERY].sum())


def read_and_hold(array: Floats, directory: str) -> None:
    """Read the whole array, tell so by a file in `directory`, and keep it until there is a gate."""
    array.sum()
    Path(directory, f"read-{os.getpid()}").touch()
    wait_for_file(str(Path(directory, "gate")))


def fill_ones(count: int) -> Floats:
    """An array of ones."""
    import numpy as np

    return np.ones(count)


def add_one(array: Floats) -> Floats:
    """A step of the chain as anybody writes it."""
    return array + 1


def add_one_born_shared(array: Floats) -> Floats:
    """The same step with its result written where the next worker can read it."""
    import numpy as np

    import manyhands as mh

    result: Floats = mh.empty(array.shape)
    np.add(array, 1, out=result)
    return result


def make_bytes(count: int, size: int) -> list[bytes]:
    """`count` different values of `size` bytes."""
    return [number.to_bytes(8, "little") * (size // 8) for number in range(count)]


def read_number(value: bytes) -> int:
    """What `make_bytes` numbered."""
    return int.from_bytes(value[:8], "little")


def make_frame(rows: int) -> Any:
    """A data frame with a column each of floats, integers, dates and texts."""
    import numpy as np
    import pandas as pd

    source = np.random.default_rng(_SEED)
    words = pd.Series([f"customer-{number:05}" for number in range(10_000)], dtype="str")
    names = words.take(source.integers(0, len(words), rows)).reset_index(drop=True)
    days = source.integers(0, 1_000, rows).astype("timedelta64[D]")
    return pd.DataFrame(
        {
            "price": source.integers(0, 100_000, rows) / 4,
            "amount": source.integers(0, 100, rows),
            "day": np.datetime64("2026-01-01") + days,
            "name": names,
        }
    )


def summarize_part(frame: Any, part: tuple[int, int]) -> tuple[float, int, str, int]:
    """One cheap figure of each column over a slice of rows."""
    first, last = part
    rows = frame.iloc[first:last]
    return (
        float(rows["price"].sum()),
        int(rows["amount"].sum()),
        str(rows["day"].max()),
        int(rows["name"].str.len().sum()),
    )
