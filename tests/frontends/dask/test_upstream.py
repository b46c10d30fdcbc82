"""Dask's own tests, as it is installed, with our scheduler in the place of all of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import dask
import pytest

PACKAGE = Path(dask.__file__).parent
HERE = Path(__file__).parent

WHOLE = [
    "tests/test_threaded.py",
    "tests/test_delayed.py",
    "tests/test_callbacks.py",
    "tests/test_base.py",
    "bag/tests/test_bag.py",
    "diagnostics/tests/test_progress.py",
    "diagnostics/tests/test_profiler.py",
]
SAMPLED = [
    "array/tests/test_array_core.py",
    "array/tests/test_linalg.py",
    "array/tests/test_overlap.py",
    "array/tests/test_reductions.py",
    "array/tests/test_routines.py",
    "array/tests/test_slicing.py",
    "dataframe/tests/test_rolling.py",
    "dataframe/tests/test_shuffle.py",
    "dataframe/dask_expr/tests/test_groupby.py",
    "dataframe/dask_expr/tests/test_merge.py",
    "dataframe/dask_expr/tests/test_reductions.py",
]
"""They are thousands, of the collections more than of schedulers."""


def run_suites(folder: Path, on: str, every: int) -> tuple[int, int]:
    """How many of Dask's tests have passed, all others having been skipped; and computations that were ours."""
    absent = [test for test in (*WHOLE, *SAMPLED) if not (PACKAGE / test).exists()]
    assert not absent, f"Dask {dask.__version__} has no {absent}"
    ini = folder / "pytest.ini"  # Dask's own settings are not installed with it
    ini.write_text("[pytest]\nmarkers =\n    array_expr\n    gpu\n    network\n    slow\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--tb=short", "--timeout=60"),
            *("-c", str(ini), "--rootdir", str(PACKAGE.parent), "-m", "not slow and not network"),
            *("-p", "upstream_plugin", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *(str(PACKAGE / test) for test in (*WHOLE, *SAMPLED)),
            *("--on", on, "--every", str(every)),
            *("--sample", *(str(PACKAGE / test) for test in SAMPLED)),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    computed = re.search(rf"computed on {on}: (\d+)", done.stdout)
    assert passed is not None and computed is not None, done.stdout[-500:]
    return int(passed[1]), int(computed[1])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("on", "every"), [("threads", 50), ("workers", 100)])
def test_the_tests_of_dask_pass(tmp_path: Path, on: str, every: int) -> None:
    passed, computed = run_suites(tmp_path, on, every)
    assert passed >= 350
    assert computed >= 650
