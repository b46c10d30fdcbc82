"""Judges whether a row's targets are reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.contenders import OURS, find_entry
from benchmarks.measurement import Against, Metric, Overall, RowResult, Target
from benchmarks.statistics import compute_median, compute_ratio


@dataclass(frozen=True)
class Verdict:
    """A target beside what was measured.

    Attributes
    ----------
    target : Target
    metric : Metric
    value : float or None
        The median, or its ratio to the peer's; None where one of the two is missing.
    reference : str
        The contender that it was compared with; empty where none was.
    alternative : Verdict or None
        Of the target's alternative.
    """

    target: Target
    metric: Metric
    value: float | None
    reference: str = ""
    alternative: Verdict | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the target or its alternative is reached; None where nothing was measured."""
        if self.alternative is not None and self.alternative.reached:
            return True
        if self.value is None:
            return None
        if self.target.at_least:
            return self.value >= self.target.limit
        return self.value <= self.target.limit


@dataclass(frozen=True)
class OverallVerdict:
    """What several rows must reach together, beside what was measured.

    Attributes
    ----------
    overall : Overall
    ratios : Mapping of str to float
        Our median over the peer's, by row, of the rows that were measured.
    """

    overall: Overall
    ratios: Mapping[str, float]

    @property
    def value(self) -> float | None:
        """The median of the ratios; None where there is none."""
        return compute_median(list(self.ratios.values())) if self.ratios else None

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where not all rows were measured."""
        if self.value is None or len(self.ratios) < len(self.overall.rows):
            return None
        return self.value >= self.overall.limit


def judge_row(result: RowResult) -> list[Verdict]:
    """Compare our medians with every target of the row."""
    return [_judge(result, target) for target in result.row.targets]


def judge_overall(results: Sequence[RowResult], overall: Overall) -> OverallVerdict:
    """Compare the median of the rows' ratios with what it must be."""
    ratios = {}
    for result in results:
        if result.row.name not in overall.rows:
            continue
        ours = result.summarize(OURS, overall.metric)
        theirs = result.summarize(overall.peer, overall.metric)
        if ours is not None and theirs is not None:
            ratios[result.row.name] = compute_ratio(ours.median, theirs.median)
    return OverallVerdict(overall, ratios)


def find_best_peer(result: RowResult, metric: Metric) -> str | None:
    """The peer with the best median of `metric`; None where no peer has one."""
    medians = {
        name: summary.median
        for name in result.readings
        if find_entry(name).peer
        for summary in [result.summarize(name, metric.key)]
        if summary is not None
    }
    if not medians:
        return None
    pick = max if metric.higher_is_better else min
    return pick(medians, key=medians.__getitem__)


def _judge(result: RowResult, target: Target) -> Verdict:
    verdict = _judge_alone(result, target)
    if target.alternative is None:
        return verdict
    return replace(verdict, alternative=_judge(result, target.alternative))


def _judge_alone(result: RowResult, target: Target) -> Verdict:
    metrics = {metric.key: metric for metric in result.row.metrics}
    metric = metrics[target.metric]
    ours = result.summarize(target.of, metric.key)
    if target.against is Against.NOTHING:
        return Verdict(target, metric, ours.median if ours else None)
    reference: str | None = target.peer
    if target.against is Against.BEST:
        reference = find_best_peer(result, metrics[target.best_by or target.metric])
    theirs = result.summarize(reference, metric.key) if reference else None
    if ours is None or theirs is None:
        return Verdict(target, metric, None, reference or "")
    return Verdict(target, metric, compute_ratio(ours.median, theirs.median), reference or "")
