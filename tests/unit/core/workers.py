"""Workers in this process: what each keeps of the globals that came to it."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from manyhands.core import namespaces
from tests.unit.core.shelves import open_payload

if TYPE_CHECKING:
    from manyhands.core.parcels import Payload

STATE = ("_namespaces", "_entered", "_tokens", "_arrived", "_made")
"""What a process knows of globals that came by value."""


class FakeWorker:
    """Takes pickles in as a worker of its own would, which has just started."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {name: {} for name in STATE}

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside the block, this process is the worker."""
        with patch.multiple(namespaces, **self._state):
            yield

    def load(self, payload: "Payload") -> Any:
        """The value behind a pickle."""
        with self.entered():
            return pickle.loads(payload) if isinstance(payload, bytes) else open_payload(payload)
