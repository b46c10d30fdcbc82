"""Parsl's own tests, held against our executor: those that it ships with its package."""

import os
import re
import subprocess
import sys
from pathlib import Path

import parsl
import pytest

HERE = Path(__file__).parent
SUITE = Path(parsl.__file__).parent / "tests"

# They run on whatever executor is given to them by `--config`.
FOR_ANY_EXECUTOR = [
    "test_bash_apps",
    "test_callables.py",
    "test_docs",
    "test_error_handling",
    "test_python_apps",
    "test_regression",
    "test_staging",
]
# They bring a configuration of their own, in which our executor takes the place of Parsl's. Each file costs half a
# second or more, so of several that ask the same of an executor there is one here.
WITH_THEIR_OWN_CONFIG = [
    "test_checkpointing/test_get_last_checkpoint.py",
    "test_checkpointing/test_regression_232.py",
    "test_checkpointing/test_regression_233.py",
    "test_checkpointing/test_task_exit.py",
    "test_checkpointing/test_task_exit_roundtrip.py",
    "test_error_handling/test_retries.py",
    "test_error_handling/test_retry_handler.py",
    "test_error_handling/test_retry_handler_failure.py",
    "test_error_handling/test_serialization_fail.py",
    "test_python_apps/test_context_manager.py",
    "test_python_apps/test_inputs_default.py",
    "test_python_apps/test_memoize_2.py",
    "test_python_apps/test_memoize_exception.py",
    "test_python_apps/test_memoize_plugin.py",
    "test_python_apps/test_pluggable_future_resolution.py",
    "test_regression/test_1480.py",
    "test_regression/test_1653.py",
    "test_regression/test_221.py",
    "test_staging/test_1316.py",
    "test_staging/test_docs_2.py",
    "test_staging/test_zip_in.py",
    "test_staging/test_zip_out.py",
    "test_threads/test_lazy_errors.py",
]

NETWORK = "it loads files from the network"
LEFT_OUT = {
    "test_error_handling/test_resource_spec.py::test_resource": (
        "it knows by their classes which executors refuse `disk`; ours does, and is none of them"
    ),
    "test_bash_apps/test_stdout.py::test_bad_stdout_file": "it fails for root, who may write anywhere",
    "test_bash_apps/test_stdout.py::test_bad_stderr_file": "it fails for root, who may write anywhere",
    "test_staging/test_docs_1.py::test": NETWORK,
    "test_staging/test_staging_ftp.py::test_staging_ftp": NETWORK,
    "test_staging/test_staging_https.py::test_staging_https_cleannet": NETWORK,
    "test_staging/test_staging_https.py::test_staging_https_kwargs": NETWORK,
    "test_staging/test_staging_https.py::test_staging_https_args": NETWORK,
}
LEFT_OUT_WITH_THEIR_OWN_CONFIG = {
    "test_staging/test_1316.py::test_1316_local_path_setting_preserves_dependency_sp2": "it sleeps ten seconds",
    "test_error_handling/test_retries.py::test_fail_delayed": "it sleeps, and test_fail_nowait says as much",
    "test_error_handling/test_serialization_fail.py::test_serialization_error": (
        "it asks for HighThroughputExecutor's own error; ours is UnpicklableError"
    ),
    "test_python_apps/test_context_manager.py::test_exit_skip": (
        "it gives a threading.Event to an app, which only threads can share"
    ),
    "test_python_apps/test_inputs_default.py::test_default_inputs": (
        "a future is the default of an argument, and travels with the function; HighThroughputExecutor fails as well"
    ),
}


def run_suite(folder: Path, config: str, tests: list[str], left_out: dict[str, str]) -> str:
    """The output of Parsl's tests, which have passed."""
    absent = [test for test in tests if not (SUITE / test).exists()]
    assert not absent, f"Parsl {parsl.__version__} has no {absent}"
    for test in left_out:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (SUITE / path).read_text(), (
            f"{test} is left out and does not exist"
        )
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "MANYHANDS"))
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(HERE), os.environ.get("PYTHONPATH")])
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--tb=short", "--show-capture=no"),
            *("-c", os.devnull, "--rootdir", str(SUITE), "--noconftest", "--config", config),
            *("-p", "parsl_suite_plugin", "-p", "no:cacheprovider", "-p", "no:randomly"),
            *(option for test in left_out for option in ("--deselect", test)),
            *(str(SUITE / test) for test in tests),
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def count_passed(output: str) -> int:
    found = re.search(r"(\d+) passed", output)
    assert found, output
    return int(found[1])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tests_for_any_executor_pass(tmp_path: Path) -> None:
    output = run_suite(tmp_path, str(HERE / "parsl_suite_config.py"), FOR_ANY_EXECUTOR, LEFT_OUT)
    assert count_passed(output) >= 130, output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tests_with_a_configuration_of_their_own_pass(tmp_path: Path) -> None:
    output = run_suite(tmp_path, "local", WITH_THEIR_OWN_CONFIG, LEFT_OUT_WITH_THEIR_OWN_CONFIG)
    assert count_passed(output) >= 40, output
