"""Where the time went, in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Report:
    """What a session did so far, and what its workers spent their time on.

    Attributes
    ----------
    engine : str
    workers : int
    calls : int
        Calls and items of maps that have ended.
    failed : int
        Those of them that failed.
    retried : int
        Attempts after the first.
    deaths : int
        Workers that died.
    wall_seconds : float
        Since the session opened.
    starting_seconds : float
        Until the first worker was ready.
    computing_seconds, moving_seconds, waiting_seconds : float
        Summed over workers: running calls; unpickling arguments and pickling results; the rest.
    hints : tuple of str
        What the program could do better, as far as a door for another library has seen.

    Examples
    --------
    >>> import manyhands as mh
    >>> with mh.Session("inline") as session:
    ...     session.map(abs, [-1, 2])
    ...     session.report().calls
    [1, 2]
    2
    """

    engine: str
    workers: int
    calls: int
    failed: int
    retried: int
    deaths: int
    wall_seconds: float
    starting_seconds: float
    computing_seconds: float
    moving_seconds: float
    waiting_seconds: float
    hints: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All attributes, ready for JSON."""
        return {**asdict(self), "hints": list(self.hints)}

    def __str__(self) -> str:
        span = f"{self.wall_seconds:.2f} s"
        lines = [
            f"{self.calls:,} calls on {self.workers} workers ({self.engine}) in {span}: {self._describe_ends()}.",
            f"The workers' time, {self.workers} x {span}:",
        ]
        total = max(self.workers * self.wall_seconds, 1e-9)
        for words, seconds in (
            ("computing", self.computing_seconds),
            ("moving data", self.moving_seconds),
            ("waiting", self.waiting_seconds),
            ("starting", self.starting_seconds * self.workers),
        ):
            lines.append(f"  {words:<12} {seconds:9.2f} s  {seconds / total:6.1%}")
        hints = (f"Hint: {hint}." for hint in self.hints)
        return "\n".join([*lines, self._advise(total), *hints])

    def _describe_ends(self) -> str:
        parts = ["none failed" if not self.failed else f"{self.failed:,} failed"]
        if self.retried:
            parts.append(f"{self.retried:,} tries were repeated")
        if self.deaths:
            parts.append(f"{self.deaths:,} workers died and were replaced")
        return ", ".join(parts)

    def _advise(self, total: float) -> str:
        """What to do about the largest share."""
        if not self.calls:
            return "Nothing has run yet."
        if self.moving_seconds > self.computing_seconds:
            return "More time went into moving data than into computing: send less, or more work with each call."
        if self.computing_seconds > 0.8 * total:
            return "The workers computed nearly all the time: only more cores would be faster."
        if self.starting_seconds * self.workers > self.computing_seconds:
            return "Starting took longer than computing: keep the session open for more work."
        if self.waiting_seconds > self.computing_seconds:
            return "The workers mostly waited: for calls, for the program, or for cores that others use."
        return "Computing took the largest share."
