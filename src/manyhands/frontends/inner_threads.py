"""What sets the number of inner threads in a worker: by itself, since joblib brings NumPy, which would be too early."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def prepare_worker(
    variables: dict[str, str], initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """Set variables of the environment that numeric libraries read when they are loaded, then do as was asked."""
    os.environ.update(variables)
    if initializer is not None:
        initializer(*initargs)
