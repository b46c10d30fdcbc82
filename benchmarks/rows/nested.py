"""A tree of calls: each node is a call that submits two and waits for both."""

from __future__ import annotations

import time
from dataclasses import replace

from benchmarks.case_work import compute_fibonacci, count_nodes
from benchmarks.contenders import OURS, list_titles, open_contender
from benchmarks.loads import expect
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.rows.ray_perf import make_scale, play

_WARM_DEPTH = 8


def measure_nested(contender: str, setting: Setting) -> Reading:
    """Wall of the recursive Fibonacci number, or how long it was waited for.

    No contender gets a hint, and no call is made but by submission: Ray lends the CPU of a call
    that waits to others and starts processes for them, Dask threads.
    """
    scale = make_scale(contender, setting)
    with open_contender(contender, setting.workers) as opened:
        player = play(opened)
        expect(
            player.make_step("nested", replace(scale, depth=_WARM_DEPTH))(),
            compute_fibonacci(_WARM_DEPTH),
        )
        step = player.make_step("nested", scale)
        begin = time.perf_counter()
        try:
            found = step()
        except TimeoutError:
            note = f"given up after {scale.patience:.0f} s; the true figure is larger"
            return Reading({"wall": scale.patience}, note)
        wall = time.perf_counter() - begin
    expect(found, compute_fibonacci(scale.depth))
    calls = count_nodes(scale.depth)
    return Reading({"wall": wall, "rate": calls / wall}, f"{calls:,} calls")


ROW = Row(
    name="nested",
    title="Recursive Fibonacci of 18 with a call for each node",
    metrics=(
        Metric("wall", "wall", Unit.SECONDS),
        Metric("rate", "calls", Unit.RATE, higher_is_better=True),
    ),
    targets=(Target("wall", 0.1, against=Against.PEER, peer="ray"),),
    contenders=list_titles(OURS, "ray", "dask"),
    measure=measure_nested,
    most_rounds=3,
)
