"""What a session stores, in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from manyhands.core.sizes import format_size

if TYPE_CHECKING:
    from manyhands.core.model import MemoryFacts

_SHOWN = 20
"""Values that the text shows."""


@dataclass(frozen=True, slots=True)
class MemoryValue:
    """One value that a session stores.

    Attributes
    ----------
    id : int
        Of a ref, the ref's.
    kind : str
        What it is: its class, and of an array its elements and shape.
    nbytes : int
    place : {"memory", "disk"}
    holders : tuple of str
        Who needs it.
    """

    id: int
    kind: str
    nbytes: int
    place: str
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """What a session stores. Sizes are in bytes.

    Attributes
    ----------
    engine : str
    limit, used : int
        Of shared memory: what values may take before some go to disk (0 for an engine that stores nothing), and what
        they take.
    disk_limit, disk_used : int
        The same of the disk.
    spilled : int
        What has gone to disk so far.
    values : tuple of MemoryValue
        The largest first.

    Examples
    --------
    >>> import manyhands as mh
    >>> with mh.Session(workers=1, store="100MB") as session:
    ...     ref = mh.put(bytes(1_000_000))
    ...     report = session.memory()
    >>> [(value.kind, value.nbytes > 1_000_000, value.holders) for value in report.values]
    [('bytes', True, ('a ref of this program',))]
    """

    engine: str
    limit: int
    used: int
    disk_limit: int
    disk_used: int
    spilled: int
    values: tuple[MemoryValue, ...]

    @classmethod
    def make(cls, engine: str, facts: MemoryFacts) -> MemoryReport:
        """From what an engine tells."""
        values = [MemoryValue(v.id, v.kind, v.nbytes, v.place, v.holders) for v in facts.values]
        return cls(
            engine,
            facts.limit,
            facts.used,
            facts.disk_limit,
            facts.disk_used,
            facts.spilled,
            tuple(sorted(values, key=lambda value: -value.nbytes)),
        )

    def to_dict(self) -> dict[str, Any]:
        """All attributes, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.limit:
            return f"The engine {self.engine!r} stores nothing: its workers use the program's own objects."
        memory = f"{format_size(self.used)} of {format_size(self.limit)} in memory"
        disk = f"{format_size(self.disk_used)} of {format_size(self.disk_limit)} on disk"
        lines = [f"{memory}, {disk}; {len(self.values)} values."]
        lines += [
            f"  {format_size(value.nbytes):>10}  {value.place:<6}  {value.kind} ({', '.join(value.holders)})"
            for value in self.values[:_SHOWN]
        ]
        if len(self.values) > _SHOWN:
            rest = sum(value.nbytes for value in self.values[_SHOWN:])
            lines.append(f"  {format_size(rest):>10}  in {len(self.values) - _SHOWN} more")
        return "\n".join(lines)
