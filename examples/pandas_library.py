"""The functions of Python's library as a data frame: workers measure each file, and find the extremes of each package.

All of it is done with pandas alone too, and that both come out the same is checked.

    python examples/pandas_library.py [FOLDER]
"""

import ast
import sys
import sysconfig
from pathlib import Path

import pandas as pd

import manyhands  # noqa: F401 - frames have their `mh` by it


def read(folder: Path) -> pd.DataFrame:
    """A row for each file, at most two folders down."""
    paths = sorted({*folder.glob("*.py"), *folder.glob("[a-m]*/*.py")})
    return pd.DataFrame(
        {
            "package": [path.relative_to(folder).parts[0].removesuffix(".py") for path in paths],
            "name": [path.stem for path in paths],
            "text": [path.read_text(encoding="utf-8", errors="replace") for path in paths],
        }
    )


def measure(row: pd.Series) -> pd.Series:
    """How many functions a file has, and how long they are."""
    nodes = ast.walk(ast.parse(row["text"]))
    sizes = [
        node.end_lineno - node.lineno + 1 for node in nodes if isinstance(node, ast.FunctionDef)
    ]
    return pd.Series(
        {"functions": len(sizes), "lines": sum(sizes), "longest": max(sizes, default=0)}
    )


def find_longest(package: pd.DataFrame) -> pd.Series:
    """The file of a package that has the longest function."""
    return package.loc[package["longest"].idxmax(), ["name", "longest"]]


def main(folder: Path) -> None:
    """Measure with pandas alone and with workers, and compare."""
    files = read(folder).drop_duplicates(["package", "name"], ignore_index=True)
    together = files[["package", "name"]].join(files.mh.apply(measure, axis=1))
    alone = files[["package", "name"]].join(files.apply(measure, axis=1))
    pd.testing.assert_frame_equal(together, alone)
    columns = ["name", "longest"]
    longest = together.mh.groupby("package")[columns].apply(find_longest)
    pd.testing.assert_frame_equal(longest, alone.groupby("package")[columns].apply(find_longest))
    name, lines = longest.sort_values("longest", kind="stable").iloc[-1]
    print(f"{together['functions'].sum()} functions; the longest is in {name}.py, {lines} lines")
    print(f"{len(files)} files, the same as with pandas alone")


main(Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib")))
