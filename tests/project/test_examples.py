"""The programs in `examples/` run as they are, on every engine."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

SAYS = {
    "compressed_library": "is left",
    "dask_library": "files of",
    "disk_usage": "folders could not be read",
    "fibonacci": "plan(12) = 144",
    "imports": "imported most: sys",
    "pandas_library": "the same as with pandas alone",
    "parsl_word_count": "of them different",
    "quicksort": "20000 values in order",
    "scikit_learn_digits": "the same result",
}
SMALL = str(Path(asyncio.__file__).parent)
GIVEN = {
    "compressed_library": [SMALL],
    "dask_library": [SMALL],
    "imports": [SMALL],
    "pandas_library": [SMALL],
}
"""Less than what they take by themselves."""


def test_every_example_is_tried() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(SAYS)


@pytest.mark.parametrize("engine", ["local", "threads", "inline"])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(path: Path, engine: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path), *GIVEN.get(path.stem, [])],
        cwd=tmp_path,
        env={**os.environ, "MANYHANDS_ENGINE": engine},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAYS[path.stem] in done.stdout
    assert not done.stderr, done.stderr
