"""``manyhands demo``: a real job on real input, beside the plain loop that it replaces.

Both sides are run, not guessed: the same function over the same list of files, after one read of
every file so that the file cache is warm for both. The parallel side's time includes starting
its workers and ending them.
"""

import json
import os
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import manyhands as mh
from manyhands.cli.sourcecode import FileFacts, Summary, examine_file, summarize

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})
"""Names of the folders that hold installed packages; the second is Debian's."""

UNPARSED_SHOWN = 20
"""Files that do not parse are named up to this number; ``--json`` has all of them."""


@dataclass(frozen=True)
class Measurement:
    """Both sides' answers and wall times in seconds."""

    facts: list[FileFacts]
    equal: bool
    """Whether the plain loop gave the same facts."""
    wall_seconds: float
    plain_seconds: float
    report: mh.Report

    @property
    def speedup(self) -> float:
        """How many times shorter the parallel side took."""
        return self.plain_seconds / self.wall_seconds


def run_demo(folder: Path | None, *, workers: int | None, as_json: bool) -> int:
    """Run the demo and print its answer.

    Parameters
    ----------
    folder
        The tree to examine; None is the interpreter's library and its installed packages.
    workers
        None is one for each usable core.
    as_json
        Print data and nothing else, also no progress.

    Returns
    -------
    int
        Exit code: 1 where the two sides differ, 2 where there is nothing to examine.
    """
    roots = find_library_roots() if folder is None else [folder.resolve()]
    paths = list_sources(roots, skip=PACKAGE_FOLDERS if folder is None else frozenset())
    if not paths:
        print(f"manyhands: no Python file below {_join(roots)}", file=sys.stderr)
        return 2
    talk = not as_json
    if talk:
        print(f"Examining {len(paths):,} Python files below {_join(roots)}", file=sys.stderr)
    measurement = measure(paths, workers=workers, talk=talk)
    summary = summarize(paths, measurement.facts)
    if as_json:
        print(json.dumps(describe(roots, summary, measurement), indent=2))
    else:
        show(roots, summary, measurement)
    if not measurement.equal:
        print("manyhands: the plain loop's results differ", file=sys.stderr)
    return 0 if measurement.equal else 1


def find_library_roots() -> list[Path]:
    """Find the folders of the standard library and of installed packages, each once."""
    packages = [entry for entry in sys.path if Path(entry).name in PACKAGE_FOLDERS]
    names = [sysconfig.get_path("stdlib"), *packages]
    roots = dict.fromkeys(Path(name).resolve() for name in names)
    return [root for root in roots if root.is_dir()]


def list_sources(roots: Sequence[Path], *, skip: frozenset[str] = frozenset()) -> list[str]:
    """List the Python files below `roots`, the biggest first, each once.

    The biggest go first because a large file at the very end would be worked on by one worker
    while the others idle. Folders named in `skip` are left out, but not as roots.
    """
    sizes = {path: size for root in roots for path, size in _walk(root, skip)}
    return sorted(sizes, key=lambda path: (-sizes[path], path))


def measure(paths: Sequence[str], *, workers: int | None, talk: bool) -> Measurement:
    """Examine all files by a session and by a plain loop, and time both."""
    read_ahead(paths)
    progress = talk and sys.stderr.isatty()
    start = time.perf_counter()
    with mh.Session(workers=workers) as session:
        facts = session.map(examine_file, paths, progress=progress)
        report = session.report()
    wall = time.perf_counter() - start
    if talk:
        print("And now the same files in a plain loop ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    plain = [examine_file(path) for path in paths]
    plain_seconds = time.perf_counter() - start
    return Measurement(facts, facts == plain, wall, plain_seconds, report)


def read_ahead(paths: Sequence[str]) -> None:
    """Read every file once, so that neither side waits for the disk."""
    for path in paths:
        try:
            Path(path).read_bytes()
        except OSError:
            continue  # examining it will tell


def describe(roots: Sequence[Path], summary: Summary, measurement: Measurement) -> dict[str, Any]:
    """Describe the answer as plain data, as ``--json`` prints it."""
    report = measurement.report
    return {
        "roots": [str(root) for root in roots],
        "files": summary.files,
        "lines": summary.lines,
        "functions": summary.functions,
        "most_complex": [function._asdict() for function in summary.most_complex],
        "most_imported": [
            {"module": module, "files": files} for module, files in summary.most_imported
        ],
        "unparsed": [{"path": path, "reason": reason} for path, reason in summary.unparsed],
        "workers": report.workers,
        "wall_seconds": measurement.wall_seconds,
        "plain_loop_seconds": measurement.plain_seconds,
        "speedup": measurement.speedup,
        "results_equal": measurement.equal,
        "report": report.to_dict(),
    }


def show(roots: Sequence[Path], summary: Summary, measurement: Measurement) -> None:
    """Print the answer for people."""
    from rich.console import Console

    # No markup: names of files may hold square brackets.
    console = Console(markup=False, highlight=False)
    console.print(
        f"\n{summary.files:,} files, {summary.lines:,} lines, {summary.functions:,} functions\n"
    )
    console.print(_tabulate_functions(roots, summary))
    console.print(_tabulate_imports(summary))
    _show_unparsed(console, roots, summary)
    console.print(_tabulate_times(measurement))
    console.print(_tabulate_shares(measurement.report))
    if measurement.equal:
        console.print("Both gave the same results for every file.")


def _tabulate_functions(roots: Sequence[Path], summary: Summary) -> "Table":
    table = _start_table("Most complex functions (McCabe's cyclomatic complexity)")
    table.add_column("complexity", justify="right")
    table.add_column("function", overflow="fold")
    table.add_column("place", overflow="fold")
    for function in summary.most_complex:
        place = f"{_shorten(function.path, roots)}:{function.line}"
        table.add_row(str(function.complexity), function.name, place)
    return table


def _tabulate_imports(summary: Summary) -> "Table":
    table = _start_table("Most used imports")
    table.add_column("module")
    table.add_column("files that import it", justify="right")
    for module, files in summary.most_imported:
        table.add_row(module, f"{files:,}")
    return table


def _tabulate_times(measurement: Measurement) -> "Table":
    table = _start_table("Wall time")
    table.add_column("")
    table.add_column("seconds", justify="right")
    wall = measurement.wall_seconds
    table.add_row("plain loop", f"{measurement.plain_seconds:.2f}")
    workers = _count(measurement.report.workers)
    table.add_row(f"manyhands, {workers}, their start and end included", f"{wall:.2f}")
    table.add_row("speed-up", f"{measurement.speedup:.2f}x")
    return table


def _tabulate_shares(report: mh.Report) -> "Table":
    """Tabulate what the workers' time, from the session's opening on, was spent on."""
    seconds_of = {
        "computing": report.computing_seconds,
        "moving data": report.moving_seconds,
        "waiting": report.waiting_seconds,
        "starting": report.starting_seconds * report.workers,
    }
    total = sum(seconds_of.values())
    table = _start_table(f"Where the time of {_count(report.workers)} went, added up")
    table.add_column("")
    table.add_column("seconds", justify="right")
    table.add_column("share", justify="right")
    for name, seconds in seconds_of.items():
        table.add_row(name, f"{seconds:.2f}", f"{seconds / total:.1%}" if total else "")
    return table


def _show_unparsed(console: "Console", roots: Sequence[Path], summary: Summary) -> None:
    if not summary.unparsed:
        return
    count = len(summary.unparsed)
    console.print(f"{count:,} of these files do{'es' * (count == 1)} not parse:")
    for path, reason in summary.unparsed[:UNPARSED_SHOWN]:
        console.print(f"  {_shorten(path, roots)}: {reason}", soft_wrap=True)
    if count > UNPARSED_SHOWN:
        console.print(f"  and {count - UNPARSED_SHOWN:,} more, which --json names")
    console.print()


def _start_table(title: str) -> "Table":
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold")


def _count(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def _shorten(path: str, roots: Sequence[Path]) -> str:
    """Shorten a path to begin with the name of its root; the innermost where roots are nested."""
    for root in sorted(roots, key=lambda root: len(root.parts), reverse=True):
        if Path(path).is_relative_to(root):
            path = str(Path(path).relative_to(root.parent))
            break
    # A file's name may hold bytes that are no text, which a terminal cannot show.
    return os.fsencode(path).decode("utf-8", "replace")


def _join(roots: Sequence[Path]) -> str:
    return ", ".join(os.fsencode(root).decode("utf-8", "replace") for root in roots)


def _walk(root: Path, skip: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Yield path and size of each Python file below `root`, without following links to folders."""
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name != "__pycache__" and name not in skip]
        for name in names:
            if not name.endswith(".py"):
                continue
            path = os.path.join(folder, name)  # noqa: PTH118 - half the time of pathlib here
            try:
                status = os.stat(path)  # noqa: PTH116 - see above
            except OSError:
                continue  # a link to nowhere, or a file that has just gone
            if stat.S_ISREG(status.st_mode):
                yield path, status.st_size
