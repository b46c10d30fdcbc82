"""The words of a benchmark: what a row measures, what it must reach, what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from benchmarks.statistics import Summary, summarize


class Unit(Enum):
    """What a metric counts, and so how it is printed."""

    SECONDS = "s"
    RATE = "/s"
    BYTES = "B"
    BANDWIDTH = "B/s"
    SHARE = "share"  # 0 to 1
    FACTOR = "x"
    COUNT = "count"


@dataclass(frozen=True)
class Metric:
    """One figure of a row.

    Attributes
    ----------
    key : str
        Its name in readings and in JSON.
    title : str
        Its name in tables.
    unit : Unit
    higher_is_better : bool
    """

    key: str
    title: str
    unit: Unit
    higher_is_better: bool = False


class Against(Enum):
    """What a target's limit refers to."""

    NOTHING = "nothing"  # the metric itself
    BEST = "best"  # its ratio to the best peer's
    PEER = "peer"  # its ratio to one named peer's


@dataclass(frozen=True)
class Target:
    """What a median of ours must reach.

    Attributes
    ----------
    metric : str
        Key of the metric.
    limit : float
        Bound on the ratio, or on the metric where nothing is compared.
    at_least : bool
        Whether `limit` is a lower bound; else an upper one.
    against : Against
    peer : str
        The named peer, for `Against.PEER`.
    best_by : str
        Key of the metric that decides who is best, for `Against.BEST`; `metric` if empty.
    of : str
        The contender that must reach it: manyhands, or a variant of it.
    alternative : Target or None
        Another target: one of the two is enough.
    """

    metric: str
    limit: float
    at_least: bool = False
    against: Against = Against.NOTHING
    peer: str = ""
    best_by: str = ""
    of: str = "manyhands"
    alternative: Target | None = None


@dataclass(frozen=True)
class Overall:
    """What our figures must reach in the median of several rows, each over one peer's.

    Attributes
    ----------
    rows : tuple of str
    metric : str
        Key of the metric, which all of them have.
    limit : float
        Lower bound on the median of the ratios.
    peer : str
    """

    rows: tuple[str, ...]
    metric: str
    limit: float
    peer: str


@dataclass(frozen=True)
class Setting:
    """What every turn of a run has in common.

    Attributes
    ----------
    workers : int
        Worker processes of each contender.
    quick : bool
        Small sizes, to try the benchmarks rather than to report them.
    iterations_per_ms : int
        Iterations of `work.spin` that took one millisecond alone, at the run's start:
        all contenders get the same work.
    against : str
        Another checkout of the library, for the rows that compare with it; empty for none.
    """

    workers: int
    quick: bool
    iterations_per_ms: int
    against: str = ""


@dataclass(frozen=True)
class Reading:
    """What one turn of one contender gave.

    Attributes
    ----------
    values : Mapping[str, float]
        By metric key. A metric that the contender has no way to give is left out.
    note : str
        What a reader of the figure must know, such as a smaller number of calls.
    """

    values: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table of targets: how it is measured and what it must reach.

    Attributes
    ----------
    name : str
        What ``--only`` takes.
    title : str
        What is measured, in a few words.
    metrics : tuple of Metric
        The figures, in the order of the table's columns.
    targets : tuple of Target
        What our figures must reach.
    contenders : Mapping[str, str]
        Who takes part, by name, each with its title in this row's table; ours first.
    measure : callable
        Takes one turn of the named contender, in a process that does nothing else.
    most_rounds : int or None
        Bound on the rounds, where a turn takes minutes.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    targets: tuple[Target, ...]
    contenders: Mapping[str, str]
    measure: Callable[[str, Setting], Reading]
    most_rounds: int | None = None


@dataclass
class RowResult:
    """All turns of one row.

    Attributes
    ----------
    row : Row
    readings : dict of str to list of Reading
        By contender, in the order of the rounds.
    failures : dict of str to str
        Contenders with a failed turn, and why it failed.
    """

    row: Row
    readings: dict[str, list[Reading]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def list_values(self, contender: str, metric: str) -> list[float]:
        """The metric's value in each of the contender's turns that has it."""
        return [
            reading.values[metric]
            for reading in self.readings.get(contender, [])
            if metric in reading.values
        ]

    def summarize(self, contender: str, metric: str) -> Summary | None:
        """Median and spread over the turns; None where nothing was measured."""
        values = self.list_values(contender, metric)
        return summarize(values) if values else None

    def find_note(self, contender: str) -> str:
        """The note of the contender's last turn."""
        readings = self.readings.get(contender, [])
        return readings[-1].note if readings else ""
