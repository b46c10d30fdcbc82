"""The public surface: frozen, loaded on first use, documented, and its examples true."""

import inspect
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import manyhands

ROOT = Path(__file__).parent.parent.parent

# Adding or taking away a public name is a decision: it is made here as well.
ERRORS = {
    "ActorDiedError",
    "CallInterrupted",
    "CallTimeoutError",
    "DeadlineError",
    "DependencyError",
    "DoorNotInstalledError",
    "EngineNotInstalledError",
    "InvalidArgumentError",
    "ManyhandsError",
    "NotCallableError",
    "OutOfMemoryError",
    "RemoteError",
    "SessionClosedError",
    "StoreFullError",
    "UnknownEngineError",
    "UnloadableError",
    "UnpicklableError",
    "UnsupportedError",
    "WorkerDiedError",
    "WorkerError",
    "WorkerStartError",
}
NAMES = {
    "ActorClass",
    "ActorFact",
    "ActorHandle",
    "Executor",
    "Future",
    "MemoryReport",
    "Pool",
    "ParslExecutor",
    "Ref",
    "Report",
    "Session",
    "Stream",
    "Task",
    "actor",
    "array",
    "as_completed",
    "bag",
    "dask_scheduler",
    "empty",
    "find_actor",
    "find_file",
    "gather",
    "get",
    "imap",
    "imap_unordered",
    "map",
    "pandas",
    "put",
    "report",
    "shutdown",
    "starmap",
    "submit",
    "task",
    "wait",
    "zeros",
}
WITHOUT_EXAMPLE = ERRORS | {"__version__"}


def public_names() -> list[str]:
    return sorted(manyhands.__all__)


def test_the_public_names_are_the_agreed_ones() -> None:
    assert len(manyhands.__all__) == len(set(manyhands.__all__))
    assert set(manyhands.__all__) - {"__version__"} == NAMES | ERRORS


def test_dir_shows_every_public_name() -> None:
    assert set(manyhands.__all__) <= set(dir(manyhands))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = manyhands.no_such_name  # type: ignore[attr-defined]


def test_star_import_brings_every_public_name() -> None:
    space: dict[str, object] = {}
    exec("from manyhands import *", space)
    assert set(manyhands.__all__) <= set(space)


def test_every_error_is_public_and_has_the_one_base() -> None:
    from manyhands import errors

    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__ and name[0] != "_"
    }
    # Raised inside a call that is to end: no error, so that `except Exception` does not keep the call alive.
    interrupt = classes.pop("CallInterrupted")
    assert issubclass(interrupt, BaseException) and not issubclass(interrupt, Exception)
    assert all(issubclass(value, manyhands.ManyhandsError) for value in classes.values())
    assert set(classes) <= set(manyhands.__all__)


@pytest.mark.parametrize("name", public_names())
def test_the_version_or_a_documented_object(name: str) -> None:
    value = getattr(manyhands, name)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+\S*", value)
        return
    doc = vars(value).get("__doc__") if isinstance(value, type) else inspect.getdoc(value)
    assert doc and doc.strip(), f"mh.{name} has no docstring of its own"
    if name not in WITHOUT_EXAMPLE:
        assert ">>>" in doc, f"the docstring of mh.{name} shows no example"


@pytest.mark.parametrize("name", public_names())
def test_the_papers_mention_it(name: str) -> None:
    papers = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in papers)
    assert re.search(rf"\b{re.escape(name)}\b", text), (
        f"neither README.md nor docs/ tells of {name}"
    )


def documented(name: str) -> list[tuple[str, str]]:
    """(name, docstring) of a public object and, of a class, of its own public members."""
    value = getattr(manyhands, name)
    texts = [(name, inspect.getdoc(value) or "")]
    if isinstance(value, type):
        for key, member in vars(value).items():
            target = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
            if isinstance(target, types.FunctionType) and not key.startswith("_"):
                texts.append((f"{name}.{key}", inspect.getdoc(target) or ""))
    return texts


# The examples run in a program of their own, as its `__main__`: where a reader would type
# them, and where functions that they define must be able to travel.
RUN_EXAMPLES = """
import doctest, sys
import manyhands as mh
test = doctest.DocTestParser().get_doctest(sys.stdin.read(), {}, sys.argv[1], None, 0)
test.globs = globals()
runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
runner.run(test, clear_globs=False)
mh.shutdown()
sys.exit(runner.failures > 0)
"""


@pytest.mark.parametrize("name", [name for name in public_names() if name != "__version__"])
def test_its_examples_are_true(name: str) -> None:
    for title, doc in documented(name):
        if ">>>" not in doc:
            continue
        done = subprocess.run(
            [sys.executable, "-c", RUN_EXAMPLES, title],
            input=doc,
            env={**os.environ, "PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
