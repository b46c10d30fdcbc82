"""What an import loads. Seconds are measured by the benchmarks; here modules are counted."""

import json
import subprocess
import sys

import pytest

# Each costs milliseconds or megabytes that a short script should not pay.
HEAVY = {
    "IPython",
    "asyncio",
    "cloudpickle",
    "concurrent.futures.process",
    "concurrent.futures.thread",
    "ctypes",
    "dask",
    "distributed",
    "importlib.metadata",
    "joblib",
    "multiprocessing",
    "numpy",
    "pandas",
    "parsl",
    "ray",
    "rich",
    "tqdm",
    "urllib",
    "zipfile",
}


def modules_after(statements: str) -> list[str]:
    """Names of the modules that `statements` load into a fresh interpreter."""
    script = (
        "import sys; before = set(sys.modules)\n"
        f"{statements}\n"
        "after = set(sys.modules) - before\n"
        "import json; print(json.dumps(sorted(after)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def heavy(loaded: list[str]) -> set[str]:
    return {name for name in HEAVY for module in loaded if (module + ".").startswith(name + ".")}


def test_the_import_does_nothing_else() -> None:
    loaded = modules_after("import manyhands")
    assert heavy(loaded) == set()
    assert {"concurrent.futures", "logging", "socket", "threading"} & set(loaded) == set()
    # What waits for Dask and joblib to be imported is all that is there from the first.
    assert sorted(name for name in loaded if name.startswith("manyhands")) == [
        "manyhands",
        "manyhands.core",
        "manyhands.core.arrivals",
        "manyhands.core.place",
        "manyhands.frontends",
        "manyhands.frontends.arrival",
        "manyhands.frontends.dask",
        "manyhands.frontends.dask.arrival",
    ]
    # Nearly all of them are `typing` and what it brings.
    assert len(loaded) <= 36, loaded


@pytest.mark.parametrize("name", ["map", "submit", "task", "Session", "Future", "gather"])
def test_a_name_loads_no_heavy_module(name: str) -> None:
    assert heavy(modules_after(f"import manyhands as mh; mh.{name}")) == set()


def test_a_first_map_loads_no_heavy_module() -> None:
    loaded = modules_after("import manyhands as mh\nassert mh.map(abs, [-1]) == [1]")
    assert heavy(loaded) == set()


def test_an_error_alone_loads_no_engine() -> None:
    loaded = modules_after("import manyhands as mh; mh.WorkerDiedError")
    assert [name for name in loaded if name.startswith("manyhands.engines")] == []


def test_a_worker_loads_only_what_it_needs() -> None:
    script = (
        "import json, manyhands as mh\n"
        "with mh.Session('local', workers=1) as session:\n"
        "    names = session.submit(eval, 'sorted(__import__(\"sys\").modules)').result()\n"
        "    print(json.dumps(names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout.splitlines()[-1])
    assert heavy(loaded) == set()
    unwelcome = {"concurrent", "dataclasses", "inspect", "logging", "pathlib", "site", "subprocess"}
    assert unwelcome & set(loaded) == set()
    ours = {name for name in loaded if name.startswith("manyhands.")}
    assert not {name for name in ours if name.split(".")[1] in {"api", "cli", "observe", "session"}}
    assert len(loaded) <= 90, loaded
