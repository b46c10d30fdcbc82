"""The run: rounds in which the contenders take turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from benchmarks.contenders import BEFORE, find_entry, is_installed, is_wanted
from benchmarks.measurement import Row, RowResult, Setting
from benchmarks.turn import TurnFailedError, take_turn


@dataclass(frozen=True)
class Plan:
    """How a row is run.

    Attributes
    ----------
    setting : Setting
    rounds : int
    peers : collection of str or None
        Peers to measure; None is all that are installed.
    limit : float
        Seconds that one turn may take.
    """

    setting: Setting
    rounds: int
    peers: Collection[str] | None
    limit: float


def run_row(row: Row, plan: Plan, tell: Callable[[str], None]) -> RowResult:
    """Measure all contenders in alternation.

    Each round begins one contender later than the round before, so that none always follows
    the same other. A contender that fails takes no further turns.

    Parameters
    ----------
    tell
        Called with a few words before each turn.
    """
    result = RowResult(row)
    rounds = min(plan.rounds, row.most_rounds or plan.rounds)
    names = choose_contenders(row, plan.peers, plan.setting.against)
    for number in range(rounds):
        for name in rotate(names, number):
            if name in result.failures or number >= limit_rounds(name, rounds):
                continue
            tell(f"{row.name}, round {number + 1} of {rounds}: {row.contenders[name]}")
            try:
                reading = take_turn(row.name, name, plan.setting, plan.limit)
            except TurnFailedError as error:
                result.failures[name] = str(error)
            else:
                result.readings.setdefault(name, []).append(reading)
    return result


def choose_contenders(row: Row, peers: Collection[str] | None, against: str = "") -> list[str]:
    """The row's contenders that are installed and wanted; ours and references always are.

    Parameters
    ----------
    against
        The other checkout of ours, which takes part where there is one.
    """
    names = [name for name in row.contenders if is_installed(name) and is_wanted(name, peers)]
    return names if against else [name for name in names if name != BEFORE]


def limit_rounds(name: str, rounds: int) -> int:
    """Rounds of a contender: half of them, rounded up, if it is a heavy one."""
    return math.ceil(rounds / 2) if find_entry(name).heavy else rounds


def rotate(names: Sequence[str], places: int) -> list[str]:
    """`names` beginning `places` later, around the end."""
    start = places % len(names) if names else 0
    return [*names[start:], *names[:start]]
