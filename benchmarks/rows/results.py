"""Large results on their way back, and from call to call."""

from __future__ import annotations

import resource
import time
from typing import Any

from benchmarks.contenders import OURS, list_titles, open_contender
from benchmarks.contenders.contender import Chainer, Contender
from benchmarks.data_work import (
    add_one,
    add_one_born_shared,
    fill_ones,
    give_kept,
    keep_array,
    make_array,
    read_pages,
    settle,
)
from benchmarks.loads import Load, choose_repeats, expect
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median

RESULTS = 16
STEPS = 20


def measure_results(contender: str, setting: Setting) -> Reading:
    """Bytes a second of results that the program reads a part of each page of."""
    size = (2 if setting.quick else 32) * 2**20
    repeats = choose_repeats(contender, setting)
    if contender == "memcpy":
        walls = _time_copies(size, repeats)
    else:
        with open_contender(contender, setting.workers) as opened:
            walls = make_results_load(opened, size, setting.workers).time_rounds(repeats)
    note = f"{RESULTS} of {size // 2**20} MiB, {len(walls)} a round"
    return Reading({"rate": RESULTS * size / compute_median(walls)}, note)


def make_results_load(opened: Contender, size: int, workers: int) -> Load:
    """Calls that each give an array of `size` bytes that their worker keeps; the program reads them."""
    count = size // 8
    opened.submit_many(settle, [(count, 0.05)] * (2 * workers))
    expected = [read_pages(keep_array(count))] * RESULTS

    def run() -> tuple[list[Any], list[float]]:
        arrays = opened.submit_many(give_kept, [count] * RESULTS)
        return arrays, [read_pages(array) for array in arrays]

    return Load(run=run, check=lambda outcome: expect(outcome[1], expected))


def _time_copies(size: int, repeats: int) -> list[float]:
    """Wall seconds of copying one array into as many others as there are results, all of them warm."""
    import numpy as np

    source = make_array(size // 8)
    targets = [source.copy() for _ in range(RESULTS)]

    def run() -> None:
        for target in targets:
            np.copyto(target, source)

    return Load(run=run, check=lambda _: None).time_rounds(repeats)


def measure_chain(contender: str, setting: Setting) -> Reading:
    """Wall of a chain of calls, and what it costs the program that only hands over the results."""
    size = (4 if setting.quick else 64) * 2**20
    repeats = choose_repeats(contender, setting)
    with open_contender(contender, setting.workers) as opened:
        load = make_chain_load(opened, size, is_born_shared=contender == "manyhands-empty")
        make_array(1)  # loads NumPy, which is not to count
        # In the first round nothing is mapped yet: what the program touches is a fault then.
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        load.run_checked()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        computed: list[float] = []

        def run() -> Any:
            begin = time.process_time()
            outcome = load.run()
            computed.append(time.process_time() - begin)
            return outcome

        walls = Load(run, load.check).time_rounds(repeats)
    values = {
        "wall": compute_median(walls),
        "touched": float(faults * resource.getpagesize()),
        "parent": compute_median(computed),
    }
    return Reading(values, f"{STEPS} of {size // 2**20} MiB, {len(walls)} a round")


def make_chain_load(opened: Contender, size: int, *, is_born_shared: bool) -> Load:
    """Calls that each add one to what the call before gave, beginning with an array from a call."""
    if not isinstance(opened, Chainer):
        raise TypeError(f"{type(opened).__name__} has no way to chain calls")
    step = add_one_born_shared if is_born_shared else add_one
    ones = opened.produce(fill_ones, size // 8)

    def run() -> tuple[Any, float]:
        last = opened.chain(step, ones, STEPS)
        return last, float(last[-1])

    return Load(run=run, check=lambda outcome: expect(outcome[1], 1.0 + STEPS))


READ = Row(
    name="results",
    title="16 results of 32 MiB, one element of each page read by the program",
    metrics=(Metric("rate", "read", Unit.BANDWIDTH, higher_is_better=True),),
    targets=tuple(
        Target("rate", limit, at_least=True, against=Against.PEER, peer=peer)
        for peer, limit in {"ray": 1.3, "dask": 5.0, "memcpy": 0.6}.items()
    ),
    contenders=list_titles(OURS, "pool", "ray", "dask", "memcpy"),
    measure=measure_results,
)

CHAIN = Row(
    name="chain",
    title="A chain of 20 calls, each x + 1 on the 64 MiB array of the one before",
    metrics=(
        Metric("wall", "wall", Unit.SECONDS),
        Metric("touched", "touched for the first time by the program", Unit.BYTES),
        Metric("parent", "the program's processor time", Unit.SECONDS),
    ),
    targets=(
        Target("wall", 0.5, against=Against.PEER, peer="ray"),
        Target("wall", 0.5, against=Against.PEER, peer="ray", of="manyhands-empty"),
    ),
    contenders={
        OURS: "manyhands",
        "manyhands-empty": "manyhands, into mh.empty",
        "ray": "Ray",
        "dask": "Dask distributed",
    },
    measure=measure_chain,
)
