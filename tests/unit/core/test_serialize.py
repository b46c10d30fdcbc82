"""Values to bytes and back."""

import pickle
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.core.serialize import (
    Serializer,
    dump_result,
    is_sent_by_value,
)
from manyhands.errors import UnpicklableError

LOCK = threading.Lock()

NO_SHELF: Any = None  # what stays small needs none


class Point(NamedTuple):
    """A tuple with names."""

    x: Any
    y: Any


@dataclass
class Holder:
    """Something with attributes."""

    label: str
    part: Any = None


class ByReduce:
    """Tells how it was pickled."""

    def __reduce__(self) -> Any:
        return str, ("by value" if is_sent_by_value(__name__) else "by name",)


def double(x: int) -> int:
    return 2 * x


def use_lock() -> Any:
    return LOCK


never = Serializer(lambda module: False)
this_module = Serializer(lambda module: module == __name__)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.builds(Holder, st.text(max_size=5), inner)
        | st.builds(Point, inner, inner)
        | st.frozensets(st.integers(), max_size=1)
    ),
    max_leaves=12,
)


@given(
    st.lists(plain, max_size=4).map(tuple),
    st.dictionaries(st.text(max_size=5), plain, max_size=3),
    st.booleans(),
)
def test_arguments_arrive_as_they_were(
    args: tuple[Any, ...], kwargs: dict[str, Any], by_value: bool
) -> None:
    serializer = this_module if by_value else never
    loaded_args, loaded_kwargs = pickle.loads(serializer.dump_arguments(args, kwargs))
    assert describe(loaded_args) == describe(args)
    assert describe(loaded_kwargs or {}) == describe(kwargs)


@given(plain)
def test_results_arrive_as_they_were(value: Any) -> None:
    loaded = pickle.loads(dump_result(value, NO_SHELF))
    assert loaded == value
    assert type(loaded) is type(value)


@given(plain)
def test_one_value_arrives_as_it_was(value: Any) -> None:
    assert describe(pickle.loads(this_module.dump(value, "it"))) == describe(value)


def describe(value: Any) -> str:
    """What it is, whatever module its class stands in: a class that travelled by value is another one."""
    return f"{type(value).__qualname__} {value!r}"


def test_plain_arguments_do_not_load_anything_by_name() -> None:
    payload = never.dump_arguments((1, "x", 2.5, None, b"y"), {})
    assert pickle.loads(payload) == ((1, "x", 2.5, None, b"y"), None)


def test_a_function_of_an_importable_module_travels_by_its_name() -> None:
    payload = never.dump(double, "it")
    assert pickle.loads(payload) is double
    assert len(payload) < 200


def test_a_function_of_a_module_that_travels_by_value_is_another_one_there() -> None:
    loaded = pickle.loads(this_module.dump(double, "it"))
    assert loaded is not double
    assert loaded(21) == 42


def test_a_class_inside_of_arguments_travels_by_value_too() -> None:
    ((loaded,), _) = pickle.loads(this_module.dump_arguments((["x", {"k": double}],), {}))
    assert loaded[1]["k"] is not double
    assert loaded[1]["k"](4) == 8


def test_a_lambda_and_its_closure_travel() -> None:
    offset = 40
    loaded = pickle.loads(never.dump(lambda x: x + offset, "it"))
    assert loaded(2) == 42


def test_a_lambda_may_be_a_result() -> None:
    offset = 40
    assert pickle.loads(dump_result(lambda x: x + offset, NO_SHELF))(2) == 42


@pytest.mark.parametrize("value", [double, LOCK], ids=["travels", "fails"])
def test_cloudpickle_is_left_as_it_was(value: Any) -> None:
    before = set(cloudpickle.list_registry_pickle_by_value())
    try:
        this_module.dump([double, value], "it")
    except UnpicklableError:
        assert value is LOCK
    assert set(cloudpickle.list_registry_pickle_by_value()) == before
    assert not is_sent_by_value(__name__)


def test_an_object_can_ask_how_its_module_travels() -> None:
    assert pickle.loads(never.dump(ByReduce(), "it")) == "by name"
    assert pickle.loads(this_module.dump([double, ByReduce()], "it"))[1] == "by value"
    assert is_sent_by_value("__main__")


class WithLock:
    """Cannot travel, for one of its attributes."""

    def __init__(self) -> None:
        self.name = "fine"
        self.lock = LOCK


def close_over_lock() -> Any:
    lock = LOCK
    return lambda: lock


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (LOCK, "argument 0 "),
        ([1, LOCK], "argument 0[1] "),
        ((1, [2, LOCK]), "argument 0[1][1] "),
        ({"a": 1, "b": {"c": LOCK}}, "argument 0['b']['c'] "),
        ({LOCK}, "an element of argument 0 "),
        (frozenset({LOCK}), "an element of argument 0 "),
        ({LOCK: 1}, "of argument 0 "),
        (WithLock(), "argument 0.lock "),
        (Holder("x", [WithLock()]), "argument 0.part[0].lock "),
        (close_over_lock(), "variable 'lock' that argument 0 closes over "),
    ],
)
def test_an_error_names_the_part_that_cannot_travel(value: Any, place: str) -> None:
    with pytest.raises(UnpicklableError) as caught:
        never.dump_arguments((value,), {})
    assert place in str(caught.value)
    assert "(a _thread.lock) cannot be sent to another process" in str(caught.value)
    assert "lock" in str(caught.value.__cause__)


def test_an_error_names_a_keyword_argument() -> None:
    with pytest.raises(UnpicklableError, match=r"argument 'second'\[0\] "):
        never.dump_arguments((1,), {"first": 1, "second": [LOCK]})


def test_an_error_names_the_argument_by_its_place() -> None:
    with pytest.raises(UnpicklableError, match=r"argument 2 "):
        never.dump_arguments((1, [2], LOCK), {})


def test_an_error_names_a_global_of_a_function() -> None:
    with pytest.raises(UnpicklableError, match="global 'LOCK' that the function use_lock uses"):
        this_module.dump(use_lock, "the function use_lock")


def test_an_unassigned_closure_variable_does_not_hide_the_culprit() -> None:
    lock = LOCK

    def inner() -> Any:
        return assigned_later, lock

    with pytest.raises(UnpicklableError, match="variable 'lock' that the function closes over"):
        never.dump(inner, "the function")
    assigned_later = 1


def test_a_value_that_holds_itself_is_explained_too() -> None:
    value: list[Any] = [1]
    value += [value, LOCK]
    with pytest.raises(UnpicklableError):
        never.dump(value, "the value")


def test_a_result_that_cannot_travel_is_named() -> None:
    with pytest.raises(UnpicklableError, match=r"the result\['a'\] \(a _thread.lock\)"):
        dump_result({"a": LOCK}, NO_SHELF)


class BrokenState:
    """Its own pickling fails in a way of its own."""

    def __getstate__(self) -> Any:
        raise ValueError("not today")


def test_the_reason_is_the_users_own() -> None:
    with pytest.raises(UnpicklableError, match="not today") as caught:
        never.dump_arguments((BrokenState(),), {})
    assert f"{__name__}.BrokenState" in str(caught.value)
