"""What a driver drives."""

from __future__ import annotations

from typing import Protocol


class Steps(Protocol):
    """Called by the leading thread alone, but for `is_busy`."""

    def dispatch(self) -> float | None:
        """Send what can be sent; seconds after which to call again though nothing has come, or None."""

    def deliver(self) -> None:
        """Pass on what came, outside all bookkeeping, since users' code may run."""

    def is_busy(self) -> bool:
        """Whether anything is outstanding."""

    def estimate_slack(self) -> float:
        """Seconds for which no worker needs anything, so that the leader can sleep through what comes meanwhile."""

    def has_free_core(self) -> bool:
        """Whether work is outstanding and fewer workers are at it than there are cores."""

    def give_up(self, error: BaseException) -> None:
        """A step failed: nothing that is outstanding will come."""

    def rest(self) -> float | None:
        """Nothing has been outstanding for a while; seconds after which to say so again, or None."""
