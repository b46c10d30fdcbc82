"""Python's own library, measured by a Dask program on our workers.

A bag parses the files, which is Python's work and so goes to the workers. A data frame of what they found is grouped
by package in threads. Only the session knows of manyhands. Needs Dask: pip install 'manyhands[dask]'

    python examples/dask_library.py [FOLDER]
"""

import ast
import sys
import sysconfig
from pathlib import Path
from typing import Any

import dask
import dask.bag as db

import manyhands as mh

PARTITIONS = 8


def measure(path: Path) -> dict[str, Any]:
    """What one file holds."""
    source = path.read_text(encoding="utf-8", errors="replace")
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:  # some are kept to test just that
        nodes = []
    return {
        "package": path.parent.name,
        "lines": source.count("\n"),
        "functions": sum(
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in nodes
        ),
        "nodes": len(nodes),
    }


def main(folder: str) -> None:
    """Measure all files, and print the packages with most lines."""
    paths = [path for path in Path(folder).glob("**/*.py") if "test" not in path.parts]
    with mh.Session():
        files = db.from_sequence(paths, npartitions=PARTITIONS).map(measure).persist()
        frame = files.to_dataframe(
            meta={"package": object, "lines": int, "functions": int, "nodes": int}
        )
        packages, lines = dask.compute(
            frame.groupby("package")[["lines", "functions"]].sum(), frame.lines.sum()
        )
    print(f"{lines} lines in {len(paths)} files of {len(packages)} packages")
    largest = packages.sort_values("lines", ascending=False).head(5)
    for name, row in largest.iterrows():
        print(f"{row.lines:8} lines, {row.functions:6} functions in {name}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib"))
