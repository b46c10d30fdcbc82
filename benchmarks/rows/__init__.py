"""Every row, in the order in which they run."""

from __future__ import annotations

from benchmarks.rows import busy, demo, idle_memory, mapping, round_trip, submission, whole

_ALL = (
    round_trip.ROW,
    submission.TEN_THOUSAND,
    submission.MILLION,
    submission.WAITING_MEMORY,
    mapping.HUNDRED_THOUSAND,
    mapping.MILLION,
    busy.UNEVEN,
    busy.ONE_MS,
    busy.SMALLEST,
    whole.START,
    whole.IMPORT,
    idle_memory.ROW,
    demo.ROW,
)

ROWS = {row.name: row for row in _ALL}
"""By name."""
