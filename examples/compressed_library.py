"""Compress the sources of Python's library, by `concurrent.futures`, and tell which are the most repetitive.

python examples/compressed_library.py [FOLDER]
"""

import lzma
import sys
import sysconfig
from concurrent.futures import as_completed
from pathlib import Path

import manyhands as mh


def compress(path: Path) -> tuple[int, int]:
    """Size of a file, in bytes, and what is left of it."""
    content = path.read_bytes()
    return len(content), len(lzma.compress(content))


def main(folder: Path) -> None:
    """Compress what lies in a folder, file by file as they end."""
    with mh.Executor() as executor:
        futures = {executor.submit(compress, path): path for path in sorted(folder.glob("*.py"))}
        sizes = {futures[future]: future.result() for future in as_completed(futures)}
    before, after = map(sum, zip(*sizes.values(), strict=True))
    print(f"{len(sizes)} files: {before} bytes become {after}")
    large = [path for path, (size, _) in sizes.items() if size > 5_000]
    for path in sorted(large, key=lambda path: sizes[path][1] / sizes[path][0])[:3]:
        print(f"  {path.name}: {sizes[path][1] / sizes[path][0]:.0%} is left")


main(Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib")))
