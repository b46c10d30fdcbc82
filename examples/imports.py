"""Find which modules Python's library imports most, with a pool of workers that read syntax trees.

python examples/imports.py [FOLDER]
"""

import ast
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import manyhands as mh


def list_imports(path: Path) -> set[str]:
    """The packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def main(folder: Path) -> None:
    """Count over all files of a folder."""
    counts: Counter[str] = Counter()
    with mh.Pool() as pool:
        for imports in pool.imap_unordered(list_imports, sorted(folder.glob("*.py"))):
            counts.update(imports)
    print("imported most:", ", ".join(f"{name} ({count})" for name, count in counts.most_common(5)))


main(Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib")))
