"""joblib's own tests of `Parallel`, as it is installed, with our backend in loky's place."""

import os
import re
import subprocess
import sys
from pathlib import Path

import joblib
import pytest

TESTS = Path(joblib.__file__).parent / "test" / "test_parallel.py"
HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tests_of_joblib_pass(tmp_path: Path) -> None:
    ini = tmp_path / "pytest.ini"  # joblib's own settings are not installed with it
    ini.write_text("[pytest]\nmarkers =\n    thread_unsafe\n    no_cover\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(TESTS), "-q", "--timeout=60"),
            *("-c", str(ini), "--rootdir", str(tmp_path)),
            *("-p", "upstream_plugin", "-p", "no:cacheprovider", "-p", "no:xdist"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 100, done.stdout[-500:]
