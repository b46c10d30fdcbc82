"""Many small values, each stored by itself and read by one call."""

from __future__ import annotations

from benchmarks.contenders import OURS, find_entry, open_contender
from benchmarks.contenders.contender import Contender, Storer
from benchmarks.data_work import make_bytes, read_number
from benchmarks.loads import Load, choose_repeats, expect
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median

SIZE = 1024


def measure_storing(contender: str, setting: Setting) -> Reading:
    """Values a second, from the first that is stored to the last result."""
    count = 1_000 if setting.quick else 10_000
    if find_entry(contender).heavy:
        count //= 5
    with open_contender(contender, setting.workers) as opened:
        walls = make_storing_load(opened, count).time_rounds(choose_repeats(contender, setting))
    return Reading({"rate": count / compute_median(walls)}, f"{count:,} values")


def make_storing_load(opened: Contender, count: int) -> Load:
    """Values of one kilobyte, each read by a call of its own."""
    if not isinstance(opened, Storer):
        raise TypeError(f"{type(opened).__name__} has no way to store a value")
    values = make_bytes(count, SIZE)
    return Load(
        run=lambda: opened.store_each(read_number, values),
        check=lambda results: expect(results, list(range(count))),
    )


ROW = Row(
    name="put-10k",
    title="10,000 values of 1 KiB, each put and read by one call",
    metrics=(Metric("rate", "values", Unit.RATE, higher_is_better=True),),
    targets=(Target("rate", 10.0, at_least=True, against=Against.PEER, peer="ray"),),
    contenders={OURS: "manyhands, put", "pool": "Pool, pickled arguments", "ray": "Ray, put"},
    measure=measure_storing,
)
