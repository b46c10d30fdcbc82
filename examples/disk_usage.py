"""The largest folders below one: each call looks at one folder and maps itself over those in it.

Such a tree has no known size and no even shape, so it cannot be cut into parts beforehand. Folders that may not be
read are counted and passed over.

    python examples/disk_usage.py [FOLDER]
"""

import os
import sys
import sysconfig
from typing import NamedTuple

import manyhands as mh


class Usage(NamedTuple):
    """What lies in a folder, with all that is below it."""

    size: int
    files: int
    refused: int
    largest: list[tuple[int, str]]


def measure(folder: str) -> Usage:
    """Look at one folder, and have calls look at those in it."""
    size = files = refused = 0
    folders = []
    try:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                size += entry.stat(follow_symlinks=False).st_size
                files += 1
    except PermissionError:
        refused += 1
    parts = mh.map(measure, folders, retry_on=OSError, retries=1)
    size += sum(part.size for part in parts)
    largest = sorted([(size, folder), *(one for part in parts for one in part.largest)])
    return Usage(
        size,
        files + sum(part.files for part in parts),
        refused + sum(part.refused for part in parts),
        largest[-10:],
    )


def main(folder: str) -> None:
    """Print the ten largest folders."""
    usage = mh.submit(measure, folder).result()
    for size, path in reversed(usage.largest):
        print(f"{size / 1e6:10.1f} MB  {path}")
    print(f"{usage.files} files; {usage.refused} folders could not be read")


main(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_paths()["stdlib"] + "/asyncio")
