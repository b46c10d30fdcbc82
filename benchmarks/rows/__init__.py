"""Every row, in the order in which they run."""

from __future__ import annotations

from benchmarks.rows import (
    busy,
    demo,
    idle_memory,
    lasting,
    mapping,
    results,
    round_trip,
    sharing,
    storing,
    submission,
    whole,
)

_CALLS = (
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

_DATA = (
    sharing.ARRAY,
    results.READ,
    results.CHAIN,
    storing.ROW,
    sharing.FRAME,
    lasting.ROW,
)

GROUPS = {
    "calls": {row.name: row for row in _CALLS},
    "data": {row.name: row for row in _DATA},
}
"""Rows by name, by what a run of the benchmarks can ask for."""

ROWS = GROUPS["calls"] | GROUPS["data"]
"""All of them, by name."""
