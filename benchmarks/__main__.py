"""``python -m benchmarks``: arguments in, tables out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.calibration import measure_speed
from benchmarks.contenders import OURS, PEERS, is_installed
from benchmarks.measurement import RowResult, Setting
from benchmarks.processes import become_subreaper, pin_to_cpus
from benchmarks.record import describe_machine, describe_results
from benchmarks.rows import GROUPS, OVERALL
from benchmarks.run import Plan, run_row
from benchmarks.table import describe_overall, print_row
from benchmarks.targets import OverallVerdict, judge_overall

WORKERS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rows that are asked for, print each when it is done, and keep them as JSON."""
    options = parse(argv)
    # A file has no width; 80 columns would wrap every note.
    console = Console(width=None if sys.stdout.isatty() else 120)
    progress = Console(stderr=True)
    become_subreaper()
    cpus = pin_to_cpus(WORKERS)
    machine = describe_machine(cpus)
    plan = _make_plan(options)
    console.print(_introduce(machine["processor"], cpus, plan))
    results: list[RowResult] = []
    try:
        with progress.status("") as status:
            for name in options.only:
                results.append(run_row(options.rows[name], plan, status.update))
                print_row(console, results[-1])
        overall = _judge_overall(options, results)
        if overall is not None:
            console.print(describe_overall(overall))
    except KeyboardInterrupt:
        console.print("Interrupted; the rows before are kept.")
        return 130
    finally:
        if options.json:
            overall = _judge_overall(options, results)
            record = describe_results(machine, plan, results, overall)
            options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


def _judge_overall(
    options: argparse.Namespace, results: Sequence[RowResult]
) -> OverallVerdict | None:
    """The verdict on the group's rows together; None where none of them belongs to it."""
    overall = OVERALL.get(options.group)
    if overall is None or not any(result.row.name in overall.rows for result in results):
        return None
    return judge_overall(results, overall)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Options, with the rows of the group in `rows` and the names of those to run in `only`."""
    parser = _make_parser()
    options = parser.parse_args(argv)
    options.rows = GROUPS[options.group]
    try:
        options.only = _split(options.only, list(options.rows)) if options.only else options.rows
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --only: {error}")
    return options


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run manyhands beside other libraries on the same work, in alternation.",
    )
    peers = [*PEERS, "pool-spawn"]
    parser.add_argument(
        "group",
        nargs="?",
        choices=list(GROUPS),
        default="basics",
        help="which rows: of what every pool of workers does (the default), of the data that "
        "calls take and give, of calls to tasks and actors, Ray's own cases among them, or of the "
        "doors for other libraries",
    )
    parser.add_argument(
        "--only",
        metavar="ROW[,ROW]",
        help="; ".join(f"rows of {group}: {', '.join(rows)}" for group, rows in GROUPS.items()),
    )
    parser.add_argument(
        "--peers",
        type=lambda text: _split(text, peers),
        metavar="NAME[,NAME]",
        help=f"peers to measure, of those installed: {', '.join(peers)}",
    )
    parser.add_argument(
        "--against",
        type=_parse_checkout,
        metavar="PATH",
        help="another checkout of the library, which the row cost-of-unused compares with",
    )
    parser.add_argument("--rounds", type=_parse_count, help="rounds; 5, or 2 with --quick")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to try it out; not for figures"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures in FILE")
    return parser


def _split(text: str, known: Sequence[str]) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds: give 1 or more")
    return int(text)


def _parse_checkout(text: str) -> str:
    path = Path(text).resolve()
    if not (path / "src" / "manyhands" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is no checkout: it has no src/manyhands")
    return str(path)


def _make_plan(options: argparse.Namespace) -> Plan:
    speed = measure_speed(0.5)
    setting = Setting(
        workers=WORKERS,
        quick=options.quick,
        iterations_per_ms=speed.fit(1e-3),
        against=options.against or "",
    )
    rounds = options.rounds or (2 if options.quick else 5)
    return Plan(setting, rounds, options.peers, limit=120.0 if options.quick else 600.0)


def _introduce(processor: str, cpus: Sequence[int], plan: Plan) -> str:
    text = (
        f"{processor}, CPUs {', '.join(map(str, cpus))}, {WORKERS} workers each, "
        f"{plan.rounds} rounds in alternation.\n"
        "Medians over the rounds; spread is the interquartile range. Heavy peers (Ray, Dask, "
        "Parsl) take half of the rounds, and fewer calls where the last column says so.\n"
        f"One busy millisecond is {plan.setting.iterations_per_ms:,} loop iterations, "
        "calibrated alone.\n"
    )
    missing = [name for name in (OURS, *PEERS) if not is_installed(name)]
    return text + (f"Not installed: {', '.join(missing)}.\n" if missing else "")


if __name__ == "__main__":
    raise SystemExit(main())
