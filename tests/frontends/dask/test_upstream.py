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

ON_SCHEDULERS = [
    "tests/test_threaded.py",
    "tests/test_delayed.py",
    "tests/test_callbacks.py",
    "tests/test_base.py",
    "diagnostics/tests/test_progress.py",
    "diagnostics/tests/test_profiler.py",
]
ON_BAGS = ["bag/tests/test_bag.py", "bag/tests/test_text.py"]
ON_ARRAYS = [
    "array/tests/test_array_core.py",
    "array/tests/test_linalg.py",
    "array/tests/test_overlap.py",
    "array/tests/test_rechunk.py",
    "array/tests/test_reductions.py",
    "array/tests/test_routines.py",
    "array/tests/test_slicing.py",
]
ON_FRAMES = [
    "dataframe/tests/test_dataframe.py",
    "dataframe/tests/test_groupby.py",
    "dataframe/tests/test_multi.py",
    "dataframe/tests/test_shuffle.py",
]


def run_suite(folder: Path, on: str, tests: list[str], every: int) -> tuple[int, int]:
    """How many of Dask's tests have passed, all others having been skipped; and computations that were ours."""
    absent = [test for test in tests if not (PACKAGE / test).exists()]
    assert not absent, f"Dask {dask.__version__} has no {absent}"
    ini = folder / "pytest.ini"  # Dask's own settings are not installed with it
    ini.write_text("[pytest]\nmarkers =\n    array_expr\n    gpu\n    network\n    slow\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--tb=short", "--timeout=60"),
            *("-c", str(ini), "--rootdir", str(PACKAGE.parent), "-m", "not slow and not network"),
            *("-p", "upstream_plugin", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("--on", on, "--every", str(every)),
            *(str(PACKAGE / test) for test in tests),
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
@pytest.mark.parametrize(
    ("on", "tests", "every", "passing", "computing"),
    [
        ("threads", ON_SCHEDULERS, 1, 120, 250),
        ("workers", ON_SCHEDULERS, 1, 120, 250),
        ("threads", ON_BAGS, 1, 150, 150),
        ("workers", ON_BAGS, 1, 150, 150),
        ("threads", ON_ARRAYS, 20, 100, 100),
        ("workers", ON_ARRAYS, 40, 50, 50),
        ("threads", ON_FRAMES, 40, 50, 50),
        ("workers", ON_FRAMES, 80, 25, 25),
    ],
)
def test_the_tests_of_dask_pass(
    tmp_path: Path, on: str, tests: list[str], every: int, passing: int, computing: int
) -> None:
    passed, computed = run_suite(tmp_path, on, tests, every)
    assert passed >= passing
    assert computed >= computing
