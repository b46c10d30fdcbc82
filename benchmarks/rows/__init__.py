"""Every row, in the order in which they run."""

from __future__ import annotations

from benchmarks.rows import (
    actor_round_trip,
    busy,
    dask_door,
    dask_shuffle,
    demo,
    engines,
    idle_memory,
    joblib_door,
    lasting,
    mapping,
    nested,
    pandas_door,
    parsl_door,
    ray_perf,
    results,
    round_trip,
    sharing,
    standard_doors,
    storing,
    submission,
    unused,
    whole,
)

_BASICS = (
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

_CALLS = (
    *ray_perf.ROWS,
    actor_round_trip.ROW,
    nested.ROW,
    unused.ROW,
)

_DOORS = (
    standard_doors.EXECUTOR,
    standard_doors.POOL,
    *joblib_door.ROWS,
    *dask_door.ROWS,
    *dask_shuffle.ROWS,
    *pandas_door.ROWS,
    parsl_door.ROW,
)

GROUPS = {
    "basics": {row.name: row for row in _BASICS},
    "data": {row.name: row for row in _DATA},
    "calls": {row.name: row for row in _CALLS},
    "doors": {row.name: row for row in _DOORS},
    "engines": {row.name: row for row in engines.ROWS},
}
"""Rows by name, by what a run of the benchmarks can ask for."""

ROWS = {name: row for rows in GROUPS.values() for name, row in rows.items()}
"""All of them, by name."""

OVERALL = {"calls": ray_perf.OVERALL}
"""What rows must reach together, by group."""
