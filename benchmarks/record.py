"""Results as data, to keep."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.contenders import ENTRIES, OURS, find_version
from benchmarks.measurement import Metric, RowResult
from benchmarks.run import Plan
from benchmarks.statistics import compute_ratio
from benchmarks.targets import OverallVerdict, Verdict, find_best_peer, judge_row

_LIBRARIES = ("numpy", "pandas", "pyarrow")
"""What the data rows' values are made of."""


def describe_machine(cpus: Sequence[int]) -> dict[str, Any]:
    """What the figures depend on: the processor, the CPUs in use, the load, the versions."""
    packages = {name: entry.package for name, entry in ENTRIES.items()}
    packages |= {name: name for name in _LIBRARIES}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.system(),
        "kernel": platform.release(),
        "processor": _read_processor(),
        "cpus": list(cpus),
        "load": os.getloadavg()[0],
        "versions": {name: found for name in packages if (found := find_version(packages[name]))},
    }


def describe_results(
    machine: dict[str, Any],
    plan: Plan,
    results: Sequence[RowResult],
    overall: OverallVerdict | None = None,
) -> dict[str, Any]:
    """Everything that was measured, every value of every round included."""
    return {
        "machine": machine,
        "setting": asdict(plan.setting) | {"rounds": plan.rounds},
        "rows": [_describe_row(result) for result in results],
        "overall": _describe_overall(overall) if overall else None,
    }


def _describe_row(result: RowResult) -> dict[str, Any]:
    return {
        "name": result.row.name,
        "title": result.row.title,
        "metrics": {metric.key: _describe_metric(result, metric) for metric in result.row.metrics},
        "notes": {name: result.find_note(name) for name in result.readings},
        "failures": result.failures,
        "targets": [_describe_verdict(verdict) for verdict in judge_row(result)],
    }


def _describe_metric(result: RowResult, metric: Metric) -> dict[str, Any]:
    ours = result.summarize(OURS, metric.key)
    contenders = {}
    for name in result.readings:
        summary = result.summarize(name, metric.key)
        if summary is None:
            continue
        contenders[name] = {
            "median": _keep_finite(summary.median),
            "low_quartile": _keep_finite(summary.low),
            "high_quartile": _keep_finite(summary.high),
            "ours_over_this": _keep_finite(compute_ratio(ours.median, summary.median))
            if ours
            else None,
            "values": [_keep_finite(value) for value in result.list_values(name, metric.key)],
        }
    return {
        "title": metric.title,
        "unit": metric.unit.value,
        "higher_is_better": metric.higher_is_better,
        "best_peer": find_best_peer(result, metric),
        "contenders": contenders,
    }


def _describe_overall(verdict: OverallVerdict) -> dict[str, Any]:
    overall = verdict.overall
    return {
        "metric": overall.metric,
        "bound": "at least",
        "limit": overall.limit,
        "reference": overall.peer,
        "ratios": {name: _keep_finite(ratio) for name, ratio in verdict.ratios.items()},
        "missing": [name for name in overall.rows if name not in verdict.ratios],
        "value": None if verdict.value is None else _keep_finite(verdict.value),
        "reached": verdict.reached,
    }


def _describe_verdict(verdict: Verdict) -> dict[str, Any]:
    described: dict[str, Any] = {
        "metric": verdict.target.metric,
        "of": verdict.target.of,
        "bound": "at least" if verdict.target.at_least else "at most",
        "limit": verdict.target.limit,
        "against": verdict.target.against.value,
        "reference": verdict.reference,
        "value": None if verdict.value is None else _keep_finite(verdict.value),
        "reached": verdict.reached,
    }
    if verdict.alternative is not None:
        described["alternative"] = _describe_verdict(verdict.alternative)
    return described


def _keep_finite(value: float) -> float | None:
    """`value`, or None for what was not found: JSON has neither infinity nor NaN."""
    return value if math.isfinite(value) else None


def _read_processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
