"""Functions pickled once, and anew when they have changed."""

import functools
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from manyhands.core import functions
from manyhands.core.batch import Batch
from manyhands.core.functions import (
    Function,
    FunctionTable,
    check_callable,
    name_callable,
    watch_function,
)
from manyhands.core.serialize import Serializer
from manyhands.errors import NotCallableError, UnpicklableError
from tests.unit.core.shelves import FakeShelf, open_payload
from tests.unit.core.workers import FakeWorker

factor = 2
settings = {"factor": 2}


def scale(x: int) -> int:
    return x * factor


def scale_by_default(x: int, by: int = 2, *, plus: int = 0) -> int:
    return x * by + plus


def scale_by_settings(x: int) -> int:
    return x * settings["factor"]


def scale_by_attribute(x: int) -> int:
    return x * scale_by_attribute.factor  # type: ignore[attr-defined,no-any-return]


def call_scale_by_default(x: int) -> int:
    return scale_by_default(x)


def make_counted() -> tuple[Any, Any]:
    number = 1

    def read() -> int:
        return number

    def count() -> None:
        nonlocal number
        number += 1

    return read, count


read_number, count_number = make_counted()


def call_read_number() -> Any:
    return read_number()


def sum_default(values: list[int] = [1]) -> int:  # noqa: B006 - what is tested
    return sum(values)


def call_sum_default() -> int:
    return sum_default()


def call_scale(x: int) -> int:
    return scale(x)


def map_scale(xs: list[int]) -> list[int]:
    return list(map(lambda x: x * factor, xs))  # noqa: C417 - an inner function is the point


class CountingSerializer(Serializer):
    """Knows how often it pickled a function."""

    dumps = 0

    def dump(self, value: object, what: str) -> bytes:
        self.dumps += 1
        return super().dump(value, what)


@pytest.fixture
def by_value() -> tuple[FunctionTable, CountingSerializer]:
    """A table to which this module is one that workers cannot import."""
    travels = lambda module: module == __name__  # noqa: E731 - two take it
    serializer = CountingSerializer(travels)
    return FunctionTable(serializer, travels), serializer


@pytest.fixture
def by_name() -> tuple[FunctionTable, CountingSerializer]:
    """A table to which every module can be imported."""
    serializer = CountingSerializer(lambda module: False)
    return FunctionTable(serializer, lambda module: False), serializer


Table = tuple[FunctionTable, CountingSerializer]


Load = Callable[[Function], Any]


@pytest.fixture
def load(worker: FakeWorker) -> Load:
    """What a worker has of a function."""
    return lambda function: worker.load(function.payload)


@pytest.mark.parametrize(
    "fn",
    [scale, scale_by_default, call_scale, map_scale, lambda x: x + factor, len, math.sqrt, int],
)
def test_a_function_is_pickled_once(by_value: Table, fn: Any) -> None:
    table, serializer = by_value
    first = table.register(fn)
    assert table.register(fn) is first
    assert serializer.dumps == 1


def test_functions_have_keys_and_names(by_value: Table) -> None:
    table, _ = by_value
    first, second = table.register(scale), table.register(len)
    assert first.key != second.key
    assert (first.name, second.name) == ("scale", "len")
    assert repr(first) == f"<Function {first.key} scale, {len(first.payload)} bytes>"


def test_a_changed_global_is_a_change(
    by_value: Table, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    table, _ = by_value
    assert load(table.register(scale))(5) == 10
    monkeypatch.setattr(f"{__name__}.factor", 3)
    assert load(table.register(scale))(5) == 15


@pytest.mark.parametrize("fn", [call_scale, map_scale], ids=["callee", "inner"])
def test_a_changed_global_of_what_it_uses_is_a_change(
    by_value: Table, monkeypatch: pytest.MonkeyPatch, fn: Any
) -> None:
    table, _ = by_value
    first = table.register(fn)
    monkeypatch.setattr(f"{__name__}.factor", 3)
    assert table.register(fn) is not first


def test_a_removed_global_is_a_change(by_value: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = by_value
    first = table.register(scale)
    monkeypatch.delattr(f"{__name__}.factor")
    assert table.register(scale) is not first


def test_a_changed_default_is_a_change(
    by_value: Table, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    table, _ = by_value
    assert load(table.register(scale_by_default))(5) == 10
    monkeypatch.setattr(scale_by_default, "__defaults__", (3,))
    assert load(table.register(scale_by_default))(5) == 15
    monkeypatch.setattr(scale_by_default, "__kwdefaults__", {"plus": 1})
    assert load(table.register(scale_by_default))(5) == 16


def test_a_changed_default_of_a_callee_arrives(
    by_value: Table, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    table, _ = by_value
    assert load(table.register(call_scale_by_default))(5) == 10
    monkeypatch.setattr(scale_by_default, "__defaults__", (3,))
    assert load(table.register(call_scale_by_default))(5) == 15


def test_a_changed_closure_of_a_callee_arrives(by_value: Table, load: Load) -> None:
    table, _ = by_value
    before = read_number()
    assert load(table.register(call_read_number))() == before
    count_number()
    assert load(table.register(call_read_number))() == before + 1


def test_a_default_of_a_callee_changed_in_place_arrives(
    by_value: Table, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    table, _ = by_value
    values = [1]
    monkeypatch.setattr(sum_default, "__defaults__", (values,))
    assert load(table.register(call_sum_default))() == 1
    values.append(10)
    assert load(table.register(call_sum_default))() == 11


def test_changed_code_is_a_change(
    by_value: Table, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    table, _ = by_value
    table.register(scale)
    monkeypatch.setattr(scale, "__code__", (lambda x: x - 1).__code__)
    assert load(table.register(scale))(5) == 4


def test_a_changed_function_attribute_is_a_change(by_value: Table, load: Load) -> None:
    table, _ = by_value
    scale_by_attribute.factor = 2  # type: ignore[attr-defined]
    assert load(table.register(scale_by_attribute))(5) == 10
    scale_by_attribute.factor = 3  # type: ignore[attr-defined]
    assert load(table.register(scale_by_attribute))(5) == 15


def test_a_changed_closure_is_a_change(by_value: Table, load: Load) -> None:
    table, _ = by_value
    offset = 1

    def add(x: int) -> int:
        return x + offset

    assert load(table.register(add))(5) == 6
    offset = 2
    assert load(table.register(add))(5) == 7


def test_a_closure_variable_deleted_meanwhile_is_a_change(by_value: Table) -> None:
    table, _ = by_value
    offset = 1

    def add(x: int) -> int:
        return x + offset  # noqa: F821 - deleted below

    first = table.register(add)
    del offset
    assert table.register(add) is not first


def test_a_closure_variable_assigned_later_is_seen(by_value: Table, load: Load) -> None:
    table, _ = by_value

    def add(x: int) -> int:
        return x + offset

    table.register(add)
    offset = 3
    assert load(table.register(add))(5) == 8


def test_what_may_change_unseen_is_pickled_every_time(by_value: Table, load: Load) -> None:
    table, serializer = by_value
    first = table.register(scale_by_settings)
    assert table.register(scale_by_settings) is first, "the same pickle is the same function"
    settings["factor"] = 3
    try:
        changed = load(table.register(scale_by_settings))
    finally:
        settings["factor"] = 2
    assert changed(5) == 15
    assert load(table.register(scale_by_settings))(5) == 10, "what goes back is a change too"
    assert serializer.dumps == 4


@pytest.mark.parametrize(
    "fn", [functools.partial(pow, 2), "x".join, [1].count, Batch.__call__.__get__(object())]
)
def test_what_carries_an_object_is_pickled_every_time(by_name: Table, fn: Any) -> None:
    assert watch_function(fn, lambda module: False) is None


def test_what_travels_by_its_name_is_not_watched(
    by_name: Table, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    table, _ = by_name
    first = table.register(scale)
    monkeypatch.setattr(f"{__name__}.factor", 3)
    assert table.register(scale) is first
    assert load(first) is scale


def test_a_name_that_means_another_function_by_now_travels_by_value(
    by_name: Table, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    table, _ = by_name
    old = scale
    monkeypatch.setattr(f"{__name__}.scale", len)
    assert load(table.register(old))(5) == 10


def test_equal_pickles_are_one_function(by_value: Table) -> None:
    table, _ = by_value
    first = table.register(functools.partial(pow, 2))
    assert table.register(functools.partial(pow, 2)) is first
    assert table.register(functools.partial(pow, 3)) is not first


def test_a_function_whose_address_is_used_again_is_not_mistaken(
    by_value: Table, load: Load
) -> None:
    table, _ = by_value
    values = [load(table.register(eval(f"lambda: {number}")))() for number in range(50)]
    assert values == list(range(50))


def test_a_program_that_makes_lambdas_does_not_grow(
    by_value: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyhands.core.functions._KEPT", 4)
    table, serializer = by_value
    made = [eval(f"lambda: {number}") for number in range(10)]
    for fn in made:
        table.register(fn)
    assert len(table._known) == 4
    table.register(made[-1])
    assert serializer.dumps == 10
    table.register(made[0])
    assert serializer.dumps == 11


def test_a_function_that_cannot_travel_is_named(by_value: Table) -> None:
    lock = threading.Lock()
    with pytest.raises(UnpicklableError, match=r"variable 'lock' that the function .*<lambda>"):
        by_value[0].register(lambda: lock)


@pytest.mark.parametrize("value", [None, 3, "print"])
def test_what_cannot_be_called_is_refused(by_value: Table, value: Any) -> None:
    with pytest.raises(NotCallableError, match=type(value).__name__):
        by_value[0].register(value)
    with pytest.raises(TypeError):
        check_callable(value)


def test_a_calls_result_in_the_place_of_its_function_is_recognised() -> None:
    with pytest.raises(NotCallableError, match=r"without \(\)"):
        check_callable(None)


class Callable:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (len, "len"),
        (scale, "scale"),
        (Callable, "Callable"),
        (Callable(), "Callable"),
        (functools.partial(scale, 1), "partial(scale)"),
        (functools.partial(functools.partial(Callable()), 1), "partial(Callable)"),
        (Callable().__call__, "Callable.__call__"),
    ],
)
def test_names(fn: Any, name: str) -> None:
    assert name_callable(fn) == name


def make_function() -> Function:
    return Function(1, "f", b"")


def test_the_duration_starts_with_the_first_measurement() -> None:
    function = make_function()
    assert function.seconds is None
    function.observe(0.5, 1)
    assert function.seconds == 0.5


def test_one_slow_first_call_does_not_count_for_long() -> None:
    function = make_function()
    function.observe(1.0, 1)
    for _ in range(15):
        function.observe(1e-4, 1)
    assert function.seconds is not None
    assert function.seconds < 4e-4


def test_many_calls_weigh_more_than_one() -> None:
    one, many = make_function(), make_function()
    for function, calls in ((one, 1), (many, 100)):
        function.observe(1.0, 1)
        function.observe(2.0, calls)
    assert one.seconds == pytest.approx(1.1)
    assert many.seconds == pytest.approx(1.5)


# Functions with large values.


@pytest.fixture
def sharing() -> FunctionTable:
    """A table whose large functions are shared."""
    shelf = FakeShelf()
    travels = lambda module: module == __name__  # noqa: E731 - two take it
    return FunctionTable(Serializer(travels, lambda: shelf), travels)


def close_over(value: Any) -> Any:
    return lambda: len(value)


LARGE_VALUES = {
    "bytes": lambda: bytes(100_000),
    "str": lambda: "x" * 100_000,
    "array": lambda: np.zeros(50_000),
    "list": lambda: list(range(50_000)),
}


@pytest.mark.parametrize("make", LARGE_VALUES.values(), ids=LARGE_VALUES)
def test_a_large_function_is_kept_until_the_session_rests(
    sharing: FunctionTable, make: Any
) -> None:
    fn = close_over(make())
    watch = weakref.ref(fn)
    function = sharing.register(fn)
    key = function.key
    assert open_payload(function.payload)() > 1000
    del fn
    sharing.rest()
    assert watch() is None
    assert list(sharing.departed) == []
    del function
    assert list(sharing.departed) == [key]


def test_few_large_functions_are_kept(sharing: FunctionTable) -> None:
    watches = []
    for n in range(200):
        fn = close_over(bytes(20_000 + n))
        watches.append(weakref.ref(fn))
        sharing.register(fn)
        del fn
    kept = [watch for watch in watches if watch() is not None]
    assert len(kept) <= functions._KEPT_LARGE
    assert len(sharing.departed) >= 200 - functions._KEPT_LARGE
    if kept:
        assert kept[-1] is watches[-1], "the latest"
    sharing.rest()
    assert all(watch() is None for watch in watches)
    assert len(set(sharing.departed)) == 200


def test_a_small_function_is_kept_when_the_session_rests(by_value: Table) -> None:
    table, serializer = by_value
    first = table.register(scale)
    table.rest()
    assert table.register(scale) is first
    assert serializer.dumps == 1


@pytest.mark.parametrize("make", LARGE_VALUES.values(), ids=LARGE_VALUES)
def test_a_large_function_is_the_same_again(sharing: FunctionTable, make: Any) -> None:
    fn = close_over(make())
    assert sharing.register(fn) is sharing.register(fn)
    partial = functools.partial(len, make())
    assert sharing.register(partial) is sharing.register(partial)


def test_a_small_function_is_kept_for_its_like(by_value: Table) -> None:
    table, _ = by_value
    first = table.register(functools.partial(pow, 2)).key
    assert table.register(functools.partial(pow, 2)).key == first
    assert not table.departed
    table.clear()
    assert list(table.departed) == [first]
    assert table.register(functools.partial(pow, 2)).key != first


def test_the_oldest_small_functions_depart(
    by_value: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = by_value
    table._small = type(table._small)(maxlen=2)
    keys = [table.register(functools.partial(pow, n)).key for n in range(4)]
    assert list(table.departed) == keys[:2]


def test_a_function_that_a_call_needs_has_not_departed(sharing: FunctionTable) -> None:
    fn = close_over(bytes(100_000))
    function = sharing.register(fn)
    del fn
    sharing.clear()
    assert not sharing.departed
    assert open_payload(function.payload)() == 100_000


def test_a_large_function_that_changed_is_another(sharing: FunctionTable) -> None:
    content = bytes(100_000)
    fn = lambda: content  # noqa: E731
    first = sharing.register(fn)
    content = bytes(50_000)
    second = sharing.register(fn)
    assert second.key != first.key
    assert len(open_payload(second.payload)()) == 50_000


def test_a_method_of_a_large_object_can_be_registered(sharing: FunctionTable) -> None:
    function = sharing.register(bytes(100_000).count)
    assert open_payload(function.payload)(b"x") == 0
    assert repr(function).startswith(f"<Function {function.key} bytes.count")
