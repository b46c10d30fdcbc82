"""Programs as people write them: without a main guard, with lambdas, closures and classes of ``__main__``."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.processes import run_python, write_script

# Valid in a file, after -c and line by line in the REPL: no blank line inside a block, one after each.
PROGRAM = """
import dataclasses, enum, collections
import manyhands as mh

class Point:
    scale = 2
    def __init__(self, x):
        self.x = x
    def double(self):
        return Point(Point.scale * self.x)

@dataclasses.dataclass(frozen=True)
class Pair:
    a: int
    b: Point

class Color(enum.Enum):
    RED = 1

Named = collections.namedtuple("Named", "x y")

class Trouble(Exception):
    def __init__(self, code, *, why):
        super().__init__(why)
        self.code = code

class Child(Point):
    def double(self):
        return super().double()

offset = 10
def shift(x):
    return x + offset

def fail(x):
    raise Trouble(x, why="no reason")

def make_adder(n):
    return lambda x: x + n

@mh.task
def cube(x):
    return shift(x) ** 3

@mh.task(retries=1)
def recurse(n):
    return 1 if n == 0 else n * recurse(n - 1)

assert mh.map(shift, range(3)) == [10, 11, 12]
assert mh.map(lambda x: shift(x) + 1, range(3)) == [11, 12, 13]
assert mh.map(make_adder(5), [1]) == [6]
found = mh.map(Point.double, [Point(1), Child(2)])
assert [type(p) for p in found] == [Point, Point] and found[1].x == 4
assert isinstance(mh.submit(Point, 3).result(), Point)
assert mh.submit(Point(4).double).result().x == 8
pair = mh.submit(Pair, 1, Point(2)).result()
assert isinstance(pair, Pair) and isinstance(pair.b, Point)
assert mh.submit(lambda: Color.RED).result() is Color.RED
named = mh.map(lambda x: Named(x, x), [1])[0]
assert type(named) is Named and named == (1, 1)
error = mh.submit(fail, 7).exception()
assert type(error) is Trouble and error.code == 7, repr(error)
assert "in fail" in error.__notes__[0]
assert cube(0) == cube.submit(0).result() == cube.map([0])[0] == 1000
assert recurse.submit(4).result() == 24
offset = 20
assert mh.map(shift, range(3)) == [20, 21, 22]

def shift(x):
    return x - 1

assert mh.map(shift, range(3)) == [-1, 0, 1]
if mh.submit(lambda: __name__).result() != "__main__":
    print("another __name__")

print("finished", mh.report().deaths)
"""


def check(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished 0") == 1, done.stdout + done.stderr
    assert "another" not in done.stdout
    assert "Error" not in done.stderr and "Traceback" not in done.stderr


def test_a_script(tmp_path: Path) -> None:
    done = run_python(write_script(tmp_path, PROGRAM), folder=tmp_path)
    check(done)
    assert done.stderr == ""


def test_a_script_with_another_start_method(tmp_path: Path) -> None:
    program = PROGRAM.replace(
        "import manyhands as mh\n",
        "import manyhands as mh\nmh.Session('local', start_method='spawn').__enter__()\n",
    )
    check(run_python(write_script(tmp_path, program), folder=tmp_path))


def test_a_module_run_as_main(tmp_path: Path) -> None:
    write_script(tmp_path, PROGRAM, "program.py")
    check(run_python("-m", "program", folder=tmp_path))


def test_a_command_line(tmp_path: Path) -> None:
    check(run_python("-c", PROGRAM, folder=tmp_path))


def test_a_program_on_standard_input(tmp_path: Path) -> None:
    check(run_python("-", folder=tmp_path, stdin=PROGRAM))


def test_the_interactive_interpreter(tmp_path: Path) -> None:
    done = run_python("-i", "-q", folder=tmp_path, stdin=PROGRAM)
    check(done)
    assert done.stderr.count(">>>") > 20  # it was interactive indeed


@pytest.mark.parametrize("flags", [["-I"], ["-O"], ["-X", "dev"], ["-B"], ["-W", "error"]], ids=str)
def test_flags_of_the_interpreter(flags: list[str], tmp_path: Path) -> None:
    check(run_python(*flags, write_script(tmp_path, PROGRAM), folder=tmp_path))


def test_main_is_not_run_again(tmp_path: Path) -> None:
    """Whatever workers are started for, the program's own statements run once."""
    code = """
        import os
        open("runs", "a").write("once\\n")
        import manyhands as mh
        for method in ("fork", "spawn"):
            with mh.Session("local", workers=2, start_method=method) as session:
                assert session.map(lambda x: -x, range(100)) == [-x for x in range(100)]
                session.submit(os._exit, 1).exception()
                assert session.map(lambda x: -x, range(100)) == [-x for x in range(100)]
    """
    done = run_python(write_script(tmp_path, code), folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "runs").read_text() == "once\n"


def test_a_class_that_was_changed_is_as_the_parent_has_it(tmp_path: Path) -> None:
    code = """
        import manyhands as mh

        class Point:
            scale = 2
            def double(self):
                return Point.scale

        print(mh.submit(Point().double).result(), mh.map(lambda x: Point.scale, [0]))
        Point.scale = 3
        Point.extra = 1
        print(mh.submit(Point().double).result(), mh.map(lambda x: Point.scale + Point.extra, [0]))
    """
    done = run_python(write_script(tmp_path, code), folder=tmp_path)
    assert (done.stdout, done.stderr) == ("2 [2]\n3 [4]\n", "")


def test_pytest_with_importlib_mode(tmp_path: Path) -> None:
    """Test files that no worker could import: their functions, classes and fixtures' closures travel."""
    folder = tmp_path / "tests" / "part"
    folder.mkdir(parents=True)
    write_script(
        folder,
        """
        import manyhands as mh
        import pytest

        class Point:
            def __init__(self, x):
                self.x = x

        class Trouble(Exception):
            pass

        def make(x):
            print("made", x)
            return Point(x)

        def fail(x):
            raise Trouble(x)

        def test_functions_and_classes(capsys):
            found = mh.map(make, range(3))
            assert [type(p) for p in found] == [Point] * 3
            assert sorted(capsys.readouterr().out.splitlines()) == ["made 0", "made 1", "made 2"]

        def test_errors():
            with pytest.raises(Trouble):
                mh.map(fail, range(3))

        def test_assertions_of_workers():
            def look(x):
                assert x == [1, 2], "not so"
            with pytest.raises(AssertionError, match="not so"):
                mh.submit(look, [1, 3]).result()

        def test_closures(tmp_path):
            assert mh.submit(lambda: (tmp_path / "f").write_text("x")).result() == 1
            assert (tmp_path / "f").read_text() == "x"
        """,
        "test_of_a_user.py",
    )
    done = run_python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
        *("--import-mode=importlib", "-W", "error", "tests"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


NOTEBOOK = """
import json, sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

cells = json.loads(Path("cells.json").read_text())
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
NotebookClient(notebook, kernel_name="here", timeout=60).execute()
print(json.dumps([
    "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
    for cell in notebook.cells
]))
"""

CELLS = [
    "import manyhands as mh",
    "class Point:\n    def __init__(self, x):\n        self.x = x",
    "def make(x):\n    print('made', x)\n    return Point(x)",
    "found = mh.map(make, range(3))\n[isinstance(p, Point) for p in found]",
    "def make(x):\n    return Point(x + 100)",  # a cell that is run again, changed
    "mh.map(make, [1])[0].x",
    "mh.map(lambda x: x + found[2].x, [5])",
    "await mh.submit(pow, 2, 5)",
    "import sys, logging\nlogging.basicConfig(stream=sys.stdout, level='INFO', format='%(message)s')",
    "mh.shutdown()\nmh.submit(lambda: logging.getLogger('x').info('logged')).result()",
    "try:\n    mh.map(lambda x: 1 / x, [0])\nexcept ZeroDivisionError as error:\n    print('caught')",
    "mh.shutdown()",
]


@pytest.mark.slow
def test_a_notebook(tmp_path: Path) -> None:
    import json

    kernel = tmp_path / "jupyter" / "kernels" / "here"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "here", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    (tmp_path / "cells.json").write_text(json.dumps(CELLS))
    done = run_python(
        write_script(tmp_path, NOTEBOOK),
        folder=tmp_path,
        environment={
            "JUPYTER_PATH": str(tmp_path / "jupyter"),
            "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
            "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
            "JUPYTER_PLATFORM_DIRS": "1",
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout.splitlines()[-1])
    assert sorted(outputs[3].splitlines()[:3]) == ["made 0", "made 1", "made 2"]
    assert outputs[3].endswith("[True, True, True]")
    assert outputs[5:8] == ["101", "[7]", "32"]
    assert "logged" in outputs[9]
    assert outputs[10] == "caught\n"
