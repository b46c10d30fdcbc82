"""Whole programs: how joblib learns our name, and that nothing is left of them."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from manyhands.testing.checks import wait_for
from tests.local.processes import is_alive

LIMIT = 60.0

CALL = """
from joblib import Parallel, delayed
with joblib.parallel_config("manyhands", n_jobs=2):
    assert Parallel()(delayed(abs)(-i) for i in range(3)) == [0, 1, 2]
assert Parallel(n_jobs=2, backend="manyhands")(delayed(abs)(-i) for i in range(3)) == [0, 1, 2]
"""


def run(program: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    "imports",
    [
        "import manyhands\nimport joblib",
        "import joblib\nimport manyhands",
        "import joblib.logger\nimport manyhands",
    ],
)
def test_joblib_knows_our_name_in_every_order_of_imports(imports: str, tmp_path: Path) -> None:
    run(imports + CALL, tmp_path)


def test_what_waits_for_joblib_goes_when_it_has_come(tmp_path: Path) -> None:
    run(
        """
        import importlib.util, sys
        import manyhands
        from manyhands.core.arrivals import _Finder
        names = {finder._name for finder in sys.meta_path if isinstance(finder, _Finder)}
        assert "joblib.parallel" in names and "joblib" not in sys.modules
        assert importlib.util.find_spec("joblib") is not None
        import joblib
        left = {finder._name for finder in sys.meta_path if isinstance(finder, _Finder)}
        assert left == names - {"joblib.parallel"}
        loader = joblib.parallel.__spec__.loader
        assert type(loader).__module__ != "manyhands.core.arrivals", loader
        assert joblib.parallel.__loader__ is loader
        assert "manyhands.frontends.joblib" not in sys.modules
        """,
        tmp_path,
    )


def test_who_only_looks_for_joblib_may_import_it_later(tmp_path: Path) -> None:
    program = """
    import manyhands, joblib._utils, importlib.util, sys
    spec = importlib.util.find_spec("joblib.parallel")
    assert "def delayed" in spec.loader.get_source("joblib.parallel")
    import joblib
    """
    run(textwrap.dedent(program) + CALL, tmp_path)


def test_without_joblib_nothing_happens(tmp_path: Path) -> None:
    run(
        """
        import sys
        sys.modules["joblib"] = None
        import manyhands as mh
        assert mh.map(abs, [-1]) == [1]
        """,
        tmp_path,
    )


def test_functions_of_a_script_need_no_guard_and_nothing_is_left(tmp_path: Path) -> None:
    done = run(
        """
        import os, time
        import manyhands
        from joblib import Parallel, delayed

        SCALE = 3

        class Point:
            def __init__(self, x):
                self.x = x

        def work(point):
            time.sleep(0.02)
            return Point(point.x * SCALE), os.getpid(), os.getppid()

        found = Parallel(n_jobs=2, backend="manyhands")(delayed(work)(Point(i)) for i in range(6))
        assert [point.x for point, _, _ in found] == [0, 3, 6, 9, 12, 15]
        print(*{pid for _, *pids in found for pid in pids})
        """,
        tmp_path,
    )
    pids = list(map(int, done.stdout.split()))
    assert len(pids) == 3
    wait_for(lambda: not any(map(is_alive, pids)), "the workers and their template have ended")


def test_a_forked_child_has_workers_of_its_own(tmp_path: Path) -> None:
    program = """
    import os, sys
    import manyhands, joblib
    from joblib import Parallel, delayed
    def list_parents():
        return set(Parallel(n_jobs=2, backend="manyhands")(delayed(os.getppid)() for _ in range(4)))
    ours = list_parents()
    child = os.fork()
    if not child:
        theirs = list_parents()
        manyhands.frontends.joblib.shutdown()
        os._exit(0 if not ours & theirs else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list_parents() == ours
    """
    run(program, tmp_path)


@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_an_interrupt_ends_the_call_and_its_workers(tmp_path: Path, return_as: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, pathlib, signal, time
            signal.signal(signal.SIGINT, signal.default_int_handler)
            import manyhands
            from joblib import Parallel, delayed

            def work(i):
                pathlib.Path(f"pid-{{os.getpid()}}").touch()
                time.sleep(50)

            try:
                list(Parallel(n_jobs=2, backend="manyhands", return_as="{return_as}")(
                    delayed(work)(i) for i in range(6)))
            except KeyboardInterrupt:
                print("interrupted")
            print(Parallel(n_jobs=2, backend="manyhands")(delayed(abs)(i) for i in range(3)))
            """
        )
    )
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 2, "both workers are at a call")
            os.kill(process.pid, signal.SIGINT)
            said, _ = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert said.splitlines() == ["interrupted", "[0, 1, 2]"]
    pids = [int(path.name.partition("-")[2]) for path in tmp_path.glob("pid-*")]
    wait_for(lambda: not any(map(is_alive, pids)), "the workers have ended")
