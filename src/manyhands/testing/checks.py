"""How cases say what must hold. `assert` would say nothing under ``python -O``."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

E = TypeVar("E", bound=BaseException)

LIMIT = float(os.environ.get("MANYHANDS_CASE_SECONDS", "30"))
"""Seconds that anything may take in a case, on a slow and crowded machine."""

_NAP = 0.002


def check(condition: object, message: str) -> None:
    """Raise AssertionError with `message` unless `condition` is true."""
    if not condition:
        raise AssertionError(message)


def check_equal(found: object, expected: object) -> None:
    """Raise AssertionError unless `found` equals `expected`."""
    if not (found == expected):
        raise AssertionError(f"expected {expected!r}, found {found!r}")


class Caught(Generic[E]):
    """Holds the error that `expect` has caught, after its block."""

    error: E


@contextmanager
def expect(kind: type[E]) -> Iterator[Caught[E]]:
    """Raise AssertionError unless the block raises a `kind`.

    Examples
    --------
    >>> with expect(ValueError) as caught:
    ...     _ = int("x")
    >>> print(caught.error)
    invalid literal for int() with base 10: 'x'
    """
    caught: Caught[E] = Caught()
    try:
        yield caught
    except kind as error:
        caught.error = error
        return
    raise AssertionError(f"expected {kind.__name__}, and nothing was raised")


def wait_for(is_so: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """Look until `is_so`; after `limit` seconds raise AssertionError that `what` did not come about."""
    deadline = monotonic() + limit
    while not is_so():
        if monotonic() > deadline:
            raise AssertionError(f"after {limit} s still not so: {what}")
        sleep(_NAP)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder of its own for a case, which calls can see."""
    with tempfile.TemporaryDirectory(
        prefix="manyhands-case-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
        # A call that was given up goes on for a moment, and may add to it amid its removal.
        wait_for(lambda: _remove(folder), "the folder is gone")


def _remove(folder: str) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not Path(folder).exists()
