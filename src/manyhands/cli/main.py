"""The ``manyhands`` command: arguments in, exit code out.

Exit codes: 0 done, 1 the work failed, 2 wrong arguments or input, 130 interrupted. The answer goes
to standard output, everything else to standard error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from manyhands import __version__
from manyhands.errors import ManyhandsError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Raises
    ------
    SystemExit
        From argparse, for ``--help``, ``--version`` and arguments that cannot be parsed.
    """
    options = build_parser().parse_args(argv)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("manyhands: interrupted", file=sys.stderr)
        return 130
    except ManyhandsError as error:
        print(f"manyhands: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command and its subcommands."""
    parser = argparse.ArgumentParser(
        prog="manyhands", description="Run heavy Python work on every core of this machine."
    )
    parser.add_argument("--version", action="version", version=f"manyhands {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_doctor(commands)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo",
        help="examine all installed Python sources, in parallel and in a plain loop",
        description="Parse all Python sources of this interpreter's standard library and "
        "installed packages on every core, tell what they hold, and measure the speed-up "
        "against a plain loop over the same files.",
    )
    demo.add_argument(
        "--path", metavar="DIR", type=_parse_folder, help="examine the Python files below DIR"
    )
    demo.add_argument(
        "--workers", metavar="N", type=_parse_count, help="workers (default: one for each core)"
    )
    demo.add_argument("--json", action="store_true", help="print data, for programs")


def _add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    doctor = commands.add_parser(
        "doctor",
        help="tell what manyhands sees of this machine",
        description="Tell what manyhands sees of this machine, and try its engine once.",
    )
    doctor.add_argument("--json", action="store_true", help="print data, for programs")


def _run(options: argparse.Namespace) -> int:
    # Imported here: each command pays for its own imports only.
    if options.command == "demo":
        from manyhands.cli.demo import run_demo

        return run_demo(options.path, workers=options.workers, as_json=options.json)
    from manyhands.cli.doctor import run_doctor

    return run_doctor(as_json=options.json)


def _parse_folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        problem = "is not a directory" if path.exists() else "does not exist"
        raise argparse.ArgumentTypeError(f"{text} {problem}")
    return path


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of workers: give 1 or more")
    return int(text)
