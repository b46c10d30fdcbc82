"""The words of Python's own library, counted by a Parsl program on our workers.

A bash app lists the files, a join app reads the list and has python apps count the words of each share of the files,
and another app adds the counts up. Only the `Config` knows of manyhands. Needs Parsl: pip install 'manyhands[parsl]'

    python examples/parsl_word_count.py [FOLDER]
"""

import re
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

import parsl
from parsl.data_provider.files import File
from parsl.dataflow.futures import AppFuture

import manyhands as mh

SHARE = 25
"""Files that one app reads: well above the milliseconds that an app costs."""


@parsl.bash_app
def list_sources(folder: str, outputs: tuple[File, ...] = ()) -> str:
    """Write the paths of the modules right below `folder` to the file that is asked for."""
    return f"find '{folder}' -maxdepth 1 -name '*.py' | sort > {outputs[0]}"


@parsl.python_app
def count_words(paths: list[str]) -> Counter[str]:
    """The words of some files, in small letters."""
    counts: Counter[str] = Counter()
    for path in paths:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        counts.update(re.findall(r"[a-z]{4,}", text.lower()))
    return counts


@parsl.python_app
def add_up(inputs: list[Counter[str]]) -> Counter[str]:
    """All counts in one."""
    return sum(inputs, Counter())


@parsl.join_app
def count_listed(listing: File) -> AppFuture:
    """How many apps there are to be depends on what the bash app has found."""
    paths = Path(listing).read_text().splitlines()
    shares = [paths[start : start + SHARE] for start in range(0, len(paths), SHARE)]
    return add_up(inputs=[count_words(share) for share in shares])


def main(folder: str) -> None:
    """Count, and print the most frequent words."""
    with tempfile.TemporaryDirectory() as scratch:
        config = parsl.Config(
            executors=[mh.ParslExecutor()],
            run_dir=f"{scratch}/runs",
            initialize_logging=False,
        )
        with parsl.load(config):
            listed = list_sources(folder, outputs=[File(f"{scratch}/sources.txt")])
            counts = count_listed(listed.outputs[0]).result()
    print(f"{counts.total()} words, {len(counts)} of them different")
    for word, count in counts.most_common(5):
        print(f"{count:8} {word}")


main(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib"))
