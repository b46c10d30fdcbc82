"""Event loops that calls run in their own threads, and what their cpus do while they have nothing to do."""

from __future__ import annotations

import sys
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def get_running_loop() -> Any:
    """The event loop that this thread is in; None where it is in none, without importing `asyncio`."""
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()


def lend_idle_time(loop: Any, lend: Callable[[Callable[..., Any]], Any]) -> bool:
    """Have a loop's waits for events go through `lend`; whether that is new.

    It is given the wait itself, and returns what that gives; None for no events. The wait takes seconds after which to
    give None though it is not over, if any. Loops that are not of the standard
    library keep their cpus while they wait.
    """
    selector = getattr(loop, "_selector", None)
    if selector is None or "select" in vars(selector):
        return False
    select = selector.select

    def lend_and_select(timeout: float | None = None) -> Any:
        if timeout is not None and timeout <= 0:
            return select(timeout)
        ends_at = None if timeout is None else monotonic() + timeout

        def sleep(longest: float | None = None) -> Any:
            left = timeout if ends_at is None else max(0.0, ends_at - monotonic())
            if longest is None or (left is not None and left <= longest):
                return select(left)
            return select(longest) or None

        return lend(sleep) or []

    selector.select = lend_and_select
    return True
