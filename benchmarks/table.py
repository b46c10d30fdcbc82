"""Results as tables for people."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.contenders import OURS, find_entry
from benchmarks.measurement import Against, Metric, RowResult, Unit
from benchmarks.statistics import compute_ratio
from benchmarks.targets import OverallVerdict, Verdict, judge_row


def print_row(console: Console, result: RowResult) -> None:
    """Print a row's figures, then its targets."""
    console.print(make_table(result))
    for name, reason in result.failures.items():
        console.print(Text(f"  {result.row.contenders[name]} failed: {reason}", style="red"))
    for verdict in judge_row(result):
        console.print(describe_verdict(result, verdict))
    console.print()


def make_table(result: RowResult) -> Table:
    """Lay out a section per metric: medians, best first, with spread and our ratio to each."""
    row = result.row
    table = Table(title=f"{row.name}: {row.title}", title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for heading in ("median", "spread", "ours / it", "rounds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for metric in row.metrics:
        _add_section(table, result, metric)
    return table


def _add_section(table: Table, result: RowResult, metric: Metric) -> None:
    found = {name: result.summarize(name, metric.key) for name in result.readings}
    summaries = {name: summary for name, summary in found.items() if summary}
    if len(result.row.metrics) > 1:
        table.add_section()
        table.add_row(Text(metric.title, style="italic"))
    ours = summaries.get(OURS)
    for name, theirs in sorted(
        summaries.items(), key=lambda item: item[1].median, reverse=metric.higher_is_better
    ):
        ratio = compute_ratio(ours.median, theirs.median) if ours and name != OURS else None
        table.add_row(
            result.row.contenders[name],
            format_value(theirs.median, metric.unit),
            format_value(theirs.spread, metric.unit) if theirs.count > 1 else "",
            "" if ratio is None else f"{ratio:.3g}x",
            str(theirs.count),
            result.find_note(name),
            style="bold" if name == OURS else None,
        )


def describe_verdict(result: RowResult, verdict: Verdict) -> Text:
    """One line: the target, the figure, and whether it is reached."""
    wanted = _describe_wanted(result, verdict)
    got = _describe_value(verdict)
    if verdict.alternative is not None:
        wanted += f", or {_describe_wanted(result, verdict.alternative)}"
        got = f"{got or '?'} and {_describe_value(verdict.alternative) or '?'}"
    if verdict.reached is None:
        return Text(f"  ? not measured  {wanted}", style="yellow")
    if verdict.reached:
        return Text(f"  ✓ reached  {wanted}: {got}", style="green")
    return Text(f"  ✗ missed  {wanted}: {got}", style="red")


def describe_overall(verdict: OverallVerdict) -> Text:
    """One line: what the rows must reach in the median, the figure, and whether it is reached."""
    overall = verdict.overall
    wanted = (
        f"median of {len(overall.rows)} rows: at least {format_value(overall.limit, Unit.FACTOR)} "
        f"of {find_entry(overall.peer).title}"
    )
    if verdict.value is None:
        return Text(f"? not measured  {wanted}", style="yellow")
    got = format_value(verdict.value, Unit.FACTOR)
    if verdict.reached is None:
        return Text(f"? not all measured  {wanted}: {got} in {len(verdict.ratios)}", style="yellow")
    if verdict.reached:
        return Text(f"✓ reached  {wanted}: {got}", style="green")
    return Text(f"✗ missed  {wanted}: {got}", style="red")


def _describe_wanted(result: RowResult, verdict: Verdict) -> str:
    target = verdict.target
    bound = "at least" if target.at_least else "at most"
    unit = _choose_unit(verdict)
    whom = f" of {result.row.contenders[target.peer]}" if target.peer else ""
    if target.against is Against.BEST:
        by = f" ({result.row.contenders[verdict.reference]})" if verdict.reference else ""
        whom = f" of the best peer{by}"
    whose = f"{result.row.contenders[target.of]}, " if target.of != OURS else ""
    return f"{whose}{verdict.metric.title}: {bound} {format_value(target.limit, unit)}{whom}"


def _describe_value(verdict: Verdict) -> str:
    return "" if verdict.value is None else format_value(verdict.value, _choose_unit(verdict))


def _choose_unit(verdict: Verdict) -> Unit:
    return verdict.metric.unit if verdict.target.against is Against.NOTHING else Unit.FACTOR


def format_value(value: float, unit: Unit) -> str:
    """`value` with three digits or so, in the multiple of its unit that reads best."""
    if math.isinf(value):
        return "none"
    match unit:
        case Unit.SECONDS:
            return _scale(value, {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9})
        case Unit.RATE:
            return _scale(value, {"M/s": 1e6, "k/s": 1e3, "/s": 1.0})
        case Unit.BYTES:
            return _scale(value, {"GiB": 2.0**30, "MiB": 2.0**20, "KiB": 2.0**10, "B": 1.0})
        case Unit.BANDWIDTH:
            return _scale(value, {"GB/s": 1e9, "MB/s": 1e6, "kB/s": 1e3, "B/s": 1.0})
        case Unit.SHARE:
            return f"{value:.3f}"
        case Unit.FACTOR:
            return f"{value:.3g}x"
        case Unit.COUNT:
            return f"{value:g}"


def _scale(value: float, sizes: dict[str, float]) -> str:
    """`value` in the largest unit of `sizes` that it fills; these go from large to small."""
    fitting = (name for name, size in sizes.items() if abs(value) >= size)
    name = next(fitting, list(sizes)[-1])
    scaled = value / sizes[name]
    return f"{scaled:.0f} {name}" if abs(scaled) >= 100 else f"{scaled:.3g} {name}"
