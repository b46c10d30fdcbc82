"""How a value of a Dask cluster is named, in the program, in its workers and on the way between them."""

from __future__ import annotations

from distributed import Future

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from distributed import Client


class Handle:
    """A key of Dask's; it travels as that and nothing more.

    Attributes
    ----------
    key
    future
        Keeps the value in the cluster; None where nobody here does.
    """

    __slots__ = ("future", "key")

    def __init__(self, key: Any, future: Future[Any] | None = None) -> None:
        self.key = key
        self.future = future

    def __reduce__(self) -> Any:
        return Handle, (self.key,)


def hold(client: Client, key: Any) -> Future[Any]:
    """A future of a value that another client has made.

    A client's interest in a key of somebody else's is its own affair in Dask; a task that needs the value is not. It
    runs where the value is, and nothing is copied.
    """
    return client.submit(_pass_on, Future(key, client), pure=False)


def _pass_on(value: Any) -> Any:
    return value
