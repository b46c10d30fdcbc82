"""One warm call to an actor, waited for at once, beside the same call as a task."""

from __future__ import annotations

import time

from benchmarks.contenders import OURS, list_titles, open_contender
from benchmarks.contenders.contender import Step
from benchmarks.measurement import Metric, Reading, Row, Setting, Target, Unit
from benchmarks.rows.ray_perf import make_scale, play
from benchmarks.statistics import compute_median

_BLOCK = 50


def measure_actor_round_trip(contender: str, setting: Setting) -> Reading:
    """Time blocks of calls to a task and to an actor in turn, in one process."""
    blocks, seconds = (4, 1.0) if setting.quick else (100, 6.0)
    scale = make_scale(contender, setting)
    with open_contender(contender, setting.workers) as opened:
        player = play(opened)
        steps = {
            "task": player.make_step("tasks-sync", scale),
            "actor": player.make_step("actor-sync", scale),
        }
        for step in steps.values():
            _time_block(step)
        walls: dict[str, list[float]] = {name: [] for name in steps}
        end = time.perf_counter() + seconds
        while not walls["actor"] or (
            len(walls["actor"]) < blocks * _BLOCK and time.perf_counter() < end
        ):
            for name, step in steps.items():
                walls[name] += _time_block(step)
    medians = {name: compute_median(found) for name, found in walls.items()}
    return Reading(
        medians | {"over": medians["actor"] / medians["task"]},
        f"{len(walls['actor']):,} calls of each",
    )


def _time_block(step: Step) -> list[float]:
    walls = []
    for _ in range(_BLOCK):
        begin = time.perf_counter()
        answer = step()
        walls.append(time.perf_counter() - begin)
        if answer != b"ok":
            raise RuntimeError(f"the call gave {answer!r}")
    return walls


ROW = Row(
    name="actor-round-trip",
    title="Round trip of a no-op call to an actor, beside that of a task",
    metrics=(
        Metric("over", "the actor's over the task's", Unit.FACTOR),
        Metric("actor", "median, actor", Unit.SECONDS),
        Metric("task", "median, task", Unit.SECONDS),
    ),
    targets=(Target("over", 2.0),),
    contenders=list_titles(OURS, "ray", "dask"),
    measure=measure_actor_round_trip,
)
