"""The cases of Ray's own microbenchmark, `ray microbenchmark`, on Ray and on others.

What each case measures and how much of it makes a round is as in Ray's `ray_perf`; the programs
are our own. Two things differ:

- **Clients and servers.** Ray calls from four clients, and to as many servers as half of the
  machine's CPUs, of which it is meant to have dozens. Here both numbers are that of the workers,
  two: with half of two CPUs, "1:n" would be "1:1".
- **Time.** Ray warms each case up for one second and measures four times two. Here a turn warms
  up with at least one round, and takes the median of as many blocks of rounds as begin in three
  seconds, at most 15; the benchmarks' rounds repeat that in fresh processes.

Left out are what has no counterpart: placement groups, and the cases of Ray's client, which
reaches a cluster from afar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.contenders import OURS, list_titles, open_contender
from benchmarks.contenders.contender import CasePlayer, Contender, Scale
from benchmarks.loads import time_step
from benchmarks.measurement import (
    Against,
    Metric,
    Overall,
    Reading,
    Row,
    Setting,
    Target,
    Unit,
)

_CALLS = Metric("rate", "calls", Unit.RATE, higher_is_better=True)
_VALUES = Metric("rate", "values", Unit.RATE, higher_is_better=True)
_ROUNDS = Metric("rate", "rounds", Unit.RATE, higher_is_better=True)
_BYTES = Metric("rate", "bytes", Unit.BANDWIDTH, higher_is_better=True)

_AHEAD = Target("rate", 1.0, at_least=True, against=Against.PEER, peer="ray")

_ENOUGH = Target(
    "rate",
    20_000,
    at_least=True,
    alternative=Target("rate", 10.0, at_least=True, against=Against.PEER, peer="ray"),
)
"""Of asynchronous calls to an actor."""

_MANY_OF_DASK = 1_000
"""Calls of each client of several: enough for a second of Dask's."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes
    ----------
    name : str
        The row's.
    title : str
    count : callable
        What a round counts for in the rate.
    expected : callable or None
        What a round gives; None for handles, which are not looked at.
    metric : Metric
    has_dask : bool
        Whether Dask has a way to do this.
    targets : tuple of Target
    """

    name: str
    title: str
    count: Callable[[Scale], int]
    expected: Callable[[Scale], object] | None
    metric: Metric = _CALLS
    has_dask: bool = False
    targets: tuple[Target, ...] = (_AHEAD,)

    def measure(self, contender: str, setting: Setting) -> Reading:
        """Rate of what a round counts for."""
        scale = make_scale(contender, setting)
        count = self.count(scale)
        with open_contender(contender, setting.workers) as opened:
            step = play(opened).make_step(self.name, scale)
            expected = self.expected(scale) if self.expected else None
            wall = time_step(step, expected, setting)
        unit = "MB" if self.metric is _BYTES else self.metric.title
        amount = count / 1e6 if self.metric is _BYTES else count
        return Reading(
            {"rate": count / wall}, "" if count == 1 else f"{amount:,.0f} {unit} a round"
        )

    def make_row(self) -> Row:
        """The row of the case."""
        others = ("ray", "dask") if self.has_dask else ("ray",)
        return Row(
            name=self.name,
            title=self.title,
            metrics=(self.metric,),
            targets=self.targets,
            contenders=list_titles(OURS, *others),
            measure=self.measure,
        )


def make_scale(contender: str, setting: Setting) -> Scale:
    """Ray's sizes, or small ones to try it out."""
    if setting.quick:
        return Scale(
            clients=setting.workers,
            calls=100,
            many=200,
            refs=1_000,
            elements=10 * 2**20,
            depth=8,
            patience=60.0,
        )
    return Scale(
        clients=setting.workers,
        calls=1_000,
        many=_MANY_OF_DASK if contender == "dask" else 10_000,
        refs=10_000,
        elements=100 * 2**20,
        depth=18,
        patience=300.0,
    )


def play(opened: Contender) -> CasePlayer:
    """The contender, as one that plays cases."""
    if not isinstance(opened, CasePlayer):
        raise TypeError(f"{type(opened).__name__} plays no cases of Ray's")
    return opened


def _answer_each(scale: Scale) -> object:
    return [b"ok"] * scale.calls


def _count_calls(scale: Scale) -> int:
    return scale.calls


def _count_many(scale: Scale) -> int:
    return scale.clients * scale.many


def _count_half(scale: Scale) -> int:
    return scale.clients * (scale.many // 2)


def _one(_: Scale) -> int:
    return 1


def _answer(_: Scale) -> object:
    return b"ok"


def _sum_half(scale: Scale) -> object:
    return _count_half(scale)


def _each_half(scale: Scale) -> object:
    return [scale.many // 2] * scale.clients


CASES = (
    Case("get-small", "The value of one stored integer", _one, lambda _: 0, _VALUES, has_dask=True),
    Case("put-small", "An integer stored", _one, None, _VALUES, has_dask=True),
    Case(
        "put-small-multi",
        "Integers stored by 10 calls, 100 by each",
        _count_calls,
        lambda scale: [scale.calls // 10] * 10,
        _VALUES,
    ),
    Case(
        "put-large",
        "An array of 800 MiB stored",
        lambda scale: scale.elements * 8,
        None,
        _BYTES,
    ),
    Case(
        "put-large-multi",
        "Arrays of 80 MiB made and stored by 10 calls, 10 by each",
        lambda scale: scale.elements // 10 * 8 * 100,
        lambda _: [10] * 10,
        _BYTES,
    ),
    Case(
        "tasks-batch",
        "1,000 calls and their results, as one",
        _one,
        _answer_each,
        _ROUNDS,
        has_dask=True,
    ),
    Case(
        "get-10k-refs",
        "A stored list of 10,000 references to stored values",
        _one,
        lambda scale: scale.refs,
        _ROUNDS,
    ),
    Case(
        "wait-1k",
        "1,000 calls waited for until one after the other is done",
        _one,
        lambda scale: scale.calls,
        _ROUNDS,
        has_dask=True,
    ),
    Case("tasks-sync", "A call, waited for", _one, _answer, has_dask=True),
    Case("tasks-async", "1,000 calls, gathered", _count_calls, _answer_each, has_dask=True),
    Case(
        "tasks-multi",
        "10,000 calls from each of several clients",
        _count_many,
        lambda scale: [scale.many] * scale.clients,
        has_dask=True,
    ),
    Case("actor-sync", "A call to an actor, waited for", _one, _answer, has_dask=True),
    Case(
        "actor-async",
        "1,000 calls to an actor, gathered",
        _count_calls,
        _answer_each,
        has_dask=True,
        targets=(_AHEAD, _ENOUGH),
    ),
    Case(
        "actor-concurrent",
        "1,000 calls to an actor that runs 16 at a time, gathered",
        _count_calls,
        _answer_each,
    ),
    Case(
        "actor-1n",
        "5,000 calls to each of several actors from one client, an actor",
        _count_half,
        _sum_half,
    ),
    Case(
        "actor-nn",
        "5,000 calls from each of several tasks to several actors in turn",
        _count_half,
        _each_half,
    ),
    Case(
        "actor-nn-args",
        "1,000 calls from each of several clients to an actor of its own, with a stored value",
        lambda scale: scale.clients * scale.calls,
        lambda scale: [scale.calls] * scale.clients,
    ),
    Case(
        "async-actor-sync",
        "A call to an actor's async method, waited for",
        _one,
        _answer,
        has_dask=True,
    ),
    Case(
        "async-actor-async",
        "1,000 calls to an actor's async method, gathered",
        _count_calls,
        _answer_each,
        has_dask=True,
    ),
    Case(
        "async-actor-args",
        "1,000 calls to an actor's async method with an integer, gathered",
        _count_calls,
        _answer_each,
        has_dask=True,
    ),
    Case(
        "async-actor-1n",
        "5,000 calls to an async method of each of several actors from one client",
        _count_half,
        _sum_half,
    ),
    Case(
        "async-actor-nn",
        "5,000 calls from each of several tasks to async methods of several actors in turn",
        _count_half,
        _each_half,
    ),
)

ROWS = tuple(case.make_row() for case in CASES)

OVERALL = Overall(tuple(row.name for row in ROWS), "rate", 5.0, peer="ray")
"""What the rows must reach in the median."""
