"""Every error, as the docstring draws them."""

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

import manyhands
from manyhands import errors

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and value.__module__ == errors.__name__
]

LINE = re.compile(
    r"^    (?P<stem>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: +\((?P<builtin>[\w.]+)\))?(?: +(?P<words>\S.*))?$"
)


def read_tree() -> dict[str, tuple[str | None, str | None, str | None]]:
    """Of each name that is drawn: what it hangs on, the built-in class and the words beside it."""
    tree = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = LINE.match(line)
        if found is None:
            continue
        depth = len(found["stem"]) // 4
        path = [*path[:depth], found["name"]]
        tree[found["name"]] = (path[-2] if depth else None, found["builtin"], found["words"])
    return tree


def test_the_docstring_draws_every_class() -> None:
    assert list(read_tree()) == [kind.__name__ for kind in CLASSES]
    assert len(CLASSES) > 10


@pytest.mark.parametrize("kind", CLASSES)
def test_the_tree_is_that_of_the_classes(kind: type[BaseException]) -> None:
    parent, builtin, words = read_tree()[kind.__name__]
    ours = [base for base in kind.__bases__ if base in CLASSES]
    assert [base.__name__ for base in ours] == ([parent] if parent else [])
    others = [base for base in kind.__bases__ if base not in CLASSES and base is not Exception]
    modules = {"_pickle": "pickle."}
    drawn = [modules.get(base.__module__, "") + base.__name__ for base in others]
    assert drawn == ([builtin] if builtin else [])
    assert words or kind is errors.ManyhandsError or builtin


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_public_and_described(kind: type[BaseException]) -> None:
    assert kind.__name__ in manyhands.__all__
    assert getattr(manyhands, kind.__name__) is kind
    assert inspect.getdoc(kind)
    assert "__doc__" in vars(kind)


def make(kind: type[BaseException]) -> Any:
    """An instance all of whose attributes have a value of their own."""
    error: Any = kind("what, which and the way out")
    for place, name in enumerate(list_attributes(kind)):
        setattr(error, name, f"value {place}")
    return error


def list_attributes(kind: type[BaseException]) -> list[str]:
    return [
        name for base in kind.__mro__ if base in CLASSES for name in inspect.get_annotations(base)
    ]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_can_be_made_without_its_init(kind: type[BaseException]) -> None:
    """As other libraries do that pickle exceptions in ways of their own."""
    assert kind.__new__(kind, "what").args == ("what",)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_every_error_travels_with_its_attributes(kind: type[BaseException], protocol: int) -> None:
    error = make(kind)
    error.add_note("a note")
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == str(error)
        assert again.args == error.args
        assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_attributes_have_defaults_and_are_described(kind: type[BaseException]) -> None:
    error = kind("x")
    for name in list_attributes(kind):
        assert hasattr(error, name)
    for name in inspect.get_annotations(kind):
        assert re.search(rf"^ *{name} : ", kind.__doc__ or "", re.MULTILINE), name


def test_attributes_of_one_error_are_not_anothers() -> None:
    died = errors.WorkerDiedError("x")
    died.stderr = ["last words"]
    died.pid = 3
    assert errors.WorkerDiedError("y").stderr == []
    assert errors.WorkerDiedError("y").pid is None


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InvalidArgumentError, ValueError),
        (errors.NotCallableError, TypeError),
        (errors.UnknownEngineError, ValueError),
        (errors.EngineNotInstalledError, ImportError),
        (errors.UnsupportedError, NotImplementedError),
        (errors.UnpicklableError, pickle.PicklingError),
        (errors.UnloadableError, pickle.UnpicklingError),
        (errors.WorkerDiedError, RuntimeError),
    ],
)
def test_errors_are_caught_as_the_built_in_that_is_expected(
    kind: type[BaseException], builtin: type[BaseException]
) -> None:
    with pytest.raises(builtin):
        raise kind("x")
    with pytest.raises(errors.ManyhandsError):
        raise kind("x")
