"""pandas' own tests of functions, as it is installed, with our methods in the places of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

TESTS = Path(pd.__file__).parent / "tests"
HERE = Path(__file__).parent
FILES = {
    "frames": ["apply/test_frame_apply.py", "frame/methods/test_map.py"],
    "groups": ["groupby/test_apply.py"],
    "transforms": ["groupby/transform/test_transform.py"],
    "windows": ["window/test_apply.py"],
    "series": ["apply/test_series_apply.py", "series/methods/test_map.py"],
}
LEAST = {"frames": 120, "groups": 90, "transforms": 60, "windows": 50, "series": 80}
"""How often workers are asked at least: so many calls have come to us."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", FILES)
def test_the_tests_of_pandas_pass(kind: str, tmp_path: Path) -> None:
    ini = tmp_path / "pytest.ini"  # pandas' own settings are not installed with it
    ini.write_text("[pytest]\nmarkers =\n    slow\n    single_cpu\n    network\n    db\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *(str(TESTS / name) for name in FILES[kind])),
            *("-q", "--timeout=60", "-c", str(ini), "--rootdir", str(tmp_path), "-W", "ignore"),
            *("-p", "upstream_plugin", "-p", "no:cacheprovider", "-p", "no:xdist"),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
            "MANYHANDS_UPSTREAM_ENGINE": "local",
        },
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    asked = re.search(r"(\d+) times workers were asked", done.stdout)
    assert asked is not None
    assert int(asked[1]) >= LEAST[kind], done.stdout[-500:]
