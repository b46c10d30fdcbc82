"""The command: runs histories on all cores, or tells one."""

from __future__ import annotations

import argparse
import sys
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Found = list[tuple[int, str]]

_CHUNK = 200
"""Histories that a worker runs in one go."""

_PROGRESS_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status.

    Parameters
    ----------
    arguments
        Those of the command line where left out.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Run sessions in a simulated world, one history for each seed, and see that all that is promised "
        "holds. With --seed alone, tell one history.",
    )
    parser.add_argument("--histories", type=int, help="how many; 10000 unless --seed is given")
    parser.add_argument("--seed", type=int, help="the first seed; 0 where left out")
    parser.add_argument(
        "--processes", type=int, help="how many workers; one for each core where left out"
    )
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None and chosen.histories is None:
        return _tell(chosen.seed)
    histories = 10_000 if chosen.histories is None else chosen.histories
    return _run(chosen.seed or 0, histories, chosen.processes)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _tell(seed: int) -> int:
    from tests.simulation.history import run_history, tell_history

    for line in tell_history(seed):
        _say(line)
    error = run_history(seed)
    _say(f"history {seed}: {'all holds' if error is None else error}")
    return 0 if error is None else 1


def _run(first: int, histories: int, processes: int | None) -> int:
    import manyhands as mh

    seeds = range(first, first + histories)
    chunks = [seeds[start : start + _CHUNK] for start in range(0, histories, _CHUNK)]
    begin = told_at = monotonic()
    done = 0
    failures: Found = []
    with mh.Session(engine="local", workers=processes) as session:
        for chunk, found in zip(chunks, session.imap(_run_chunk, chunks, batch=1), strict=True):
            done += len(chunk)
            for _, text in found:
                _say(text)
            failures += found
            if monotonic() - told_at > _PROGRESS_SECONDS:
                told_at = monotonic()
                _say(f"{done} of {histories} histories, {len(failures)} failed")
    seconds = monotonic() - begin
    _say(
        f"{histories} histories in {seconds:.0f} s, {1000 * seconds / max(1, histories):.2f} ms each"
    )
    if failures:
        _say(f"{len(failures)} failed, seeds: {' '.join(str(seed) for seed, *_ in failures)}")
    return 1 if failures else 0


def _run_chunk(seeds: Sequence[int]) -> Found:
    """In a worker."""
    from tests.simulation.history import run_histories

    return [(error.seed, str(error)) for error in run_histories(seeds)]
