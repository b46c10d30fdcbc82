"""Calls on a cluster: by our session on the engine, and by the engine's own library."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import find_entry
from benchmarks.contenders.engines import Caller, open_caller
from benchmarks.loads import Load, expect
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median
from benchmarks.work import noop, pause

ENGINES = ("dask", "ray", "parsl")

MIB = 2**20

_TCP_INFO_BYTES = struct.Struct("=120xQQ")
"""Of Linux's `struct tcp_info` (include/uapi/linux/tcp.h): bytes acknowledged, bytes received."""


def sleep_and_tell(number: int) -> int:
    """A call of 10 ms."""
    time.sleep(0.01)
    return number


def make_block(number: int) -> bytearray:
    """A value of 1 MiB."""
    return bytearray([number % 256]) * MIB


def change_block(block: bytearray) -> bytearray:
    """Another value of 1 MiB, made from one."""
    return bytearray([(block[0] + 1) % 256]) * MIB


def join_blocks(left: bytearray, right: bytearray) -> bytearray:
    """Another value of 1 MiB, made from two."""
    return bytearray([(left[0] + right[0]) % 256]) * MIB


def measure_submission(contender: str, setting: Setting) -> Reading:
    """Calls of 10 ms a second, submitted one by one."""
    calls = 100 if setting.quick else 2_000

    def run(caller: Caller) -> list[int]:
        return caller.gather([caller.submit(sleep_and_tell, x) for x in range(calls)])

    walls, _ = _time(contender, setting, run, list(range(calls)), repeats=1)
    return Reading({"rate": calls / compute_median(walls)}, f"{calls} calls")


def measure_map(contender: str, setting: Setting) -> Reading:
    """Calls that do nothing a second, in a map."""
    calls = 500 if setting.quick else 20_000
    run = partial(_map_noop, calls=calls)
    walls, _ = _time(contender, setting, run, list(range(calls)), repeats=1)
    return Reading({"rate": calls / compute_median(walls)}, f"{calls} calls")


def _map_noop(caller: Caller, calls: int) -> list[Any]:
    return caller.map(noop, range(calls))


def measure_chain(contender: str, setting: Setting) -> Reading:
    """A chain of calls, each of the 1 MiB of the one before."""
    calls = 50 if setting.quick else 1_000

    def run(caller: Caller) -> int:
        block = caller.submit(make_block, 0)
        for _ in range(calls - 1):
            block = caller.submit(change_block, block)
        return int(caller.gather([caller.submit(_tell_first, block)])[0])

    return _measure_blocks(contender, setting, run, (calls - 1) % 256, calls)


def measure_tree(contender: str, setting: Setting) -> Reading:
    """A tree of calls, each of 1 MiB from each of two others."""
    leaves = 32 if setting.quick else 512

    def run(caller: Caller) -> int:
        blocks = [caller.submit(make_block, x) for x in range(leaves)]
        while len(blocks) > 1:
            pairs = zip(blocks[::2], blocks[1::2], strict=True)
            blocks = [caller.submit(join_blocks, *pair) for pair in pairs]
        return int(caller.gather([caller.submit(_tell_first, blocks[0])])[0])

    return _measure_blocks(contender, setting, run, sum(range(leaves)) % 256, 2 * leaves - 1)


def _tell_first(block: bytearray) -> int:
    return block[0]


def _measure_blocks(
    contender: str, setting: Setting, run: Callable[[Caller], int], expected: int, calls: int
) -> Reading:
    walls, traffic = _time(contender, setting, run, expected, repeats=1)
    values = {"wall": compute_median(walls), "traffic": compute_median(traffic) / (calls * MIB)}
    return Reading(values, f"{calls} calls")


def measure_round_trip(contender: str, setting: Setting) -> Reading:
    """One call that does nothing, waited for at once."""
    calls = 50 if setting.quick else 1_000

    def run(caller: Caller) -> float:
        trips = []
        for x in range(calls):
            begin = time.perf_counter()
            caller.gather([caller.submit(noop, x)])
            trips.append(time.perf_counter() - begin)
        return compute_median(trips)

    with open_caller(contender, setting.workers) as caller:
        _warm(caller, setting.workers)
        return Reading({"trip": run(caller)}, f"{calls} calls")


def _time(
    contender: str, setting: Setting, run: Callable[[Caller], Any], expected: Any, *, repeats: int
) -> tuple[list[float], list[float]]:
    """Wall seconds of rounds, and the bytes that this process sent and received in each."""
    traffic: list[float] = []
    with open_caller(contender, setting.workers) as caller:
        _warm(caller, setting.workers)

        def count() -> Any:
            before = count_traffic()
            outcome = run(caller)
            traffic.append(float(count_traffic() - before))
            return outcome

        load = Load(run=count, check=lambda outcome: expect(outcome, expected))
        return load.time_rounds(repeats), traffic


def _warm(caller: Caller, workers: int) -> None:
    caller.gather([caller.submit(pause, 0.05) for _ in range(2 * workers)])
    caller.map(noop, range(100))


def count_traffic() -> int:
    """Bytes that this process has sent and received by the TCP connections that it has now."""
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.fromfd(int(entry.name), socket.AF_INET, socket.SOCK_STREAM) as shared:
                info = shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            total += sum(_TCP_INFO_BYTES.unpack_from(info))
        except (OSError, struct.error):  # closed meanwhile, or no TCP
            continue
    return total


def _make_rows(engine: str) -> tuple[Row, ...]:
    title = find_entry(engine).title
    contenders = {name: find_entry(name).title for name in (f"on-{engine}", engine)}

    def make_row(
        name: str,
        words: str,
        metrics: tuple[Metric, ...],
        limits: dict[str, tuple[float, Against]],
        measure: Callable[[str, Setting], Reading],
    ) -> Row:
        better = {metric.key: metric.higher_is_better for metric in metrics}
        targets = tuple(
            Target(
                key,
                limit,
                at_least=better[key],
                against=against,
                peer=engine if against is Against.PEER else "",
                of=f"on-{engine}",
            )
            for key, (limit, against) in limits.items()
        )
        return Row(
            name=f"{engine}-{name}",
            title=f"{title}: {words}",
            metrics=metrics,
            targets=targets,
            contenders=contenders,
            measure=measure,
        )

    rate = (Metric("rate", "calls", Unit.RATE, higher_is_better=True),)
    blocks = (
        Metric("wall", "wall", Unit.SECONDS),
        Metric("traffic", "of the data through the program", Unit.SHARE),
    )
    on_par = {"wall": (1 / 0.95, Against.PEER), "traffic": (0.05, Against.NOTHING)}
    return (
        make_row(
            "submit",
            "2,000 calls of 10 ms by submit",
            rate,
            {"rate": (0.95, Against.PEER)},
            measure_submission,
        ),
        make_row(
            "map",
            "a map of 20,000 calls that do nothing",
            rate,
            {"rate": (20.0, Against.PEER)},
            measure_map,
        ),
        make_row("chain", "a chain of 1,000 calls with 1 MiB each", blocks, on_par, measure_chain),
        make_row("tree", "a tree of 1,023 calls with 1 MiB each", blocks, on_par, measure_tree),
        make_row(
            "round-trip",
            "one call, submitted and waited for",
            (Metric("trip", "round trip", Unit.SECONDS),),
            {"trip": (1.15, Against.PEER)},
            measure_round_trip,
        ),
    )


ROWS = tuple(row for engine in ENGINES for row in _make_rows(engine))
