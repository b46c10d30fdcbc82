"""What a worker needs before it meets joblib: by itself, since joblib brings NumPy, which looks for it at once."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Preparation:
    """An initializer that calls another, and has done its own work when it is unpickled: before that other is.

    Parameters
    ----------
    variables
        For the environment: how many inner threads numeric libraries are to have.
    """

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables

    def __reduce__(self) -> Any:
        return prepare, (self._variables,)

    def __call__(self, initializer: Callable[..., object] | None, *args: Any) -> None:
        """Do what the user wants at a worker's start."""
        if initializer is not None:
            initializer(*args)


def prepare(variables: dict[str, str]) -> Preparation:
    """Undo `Preparation.__reduce__`, in a worker."""
    os.environ.update(variables)
    return Preparation(variables)
