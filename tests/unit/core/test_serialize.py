"""Values to bytes and back."""

import pickle
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.core.parcels import Input, Parcel, PlainInput
from manyhands.core.refs import Record, Ref
from manyhands.core.serialize import (
    INLINE_BYTES,
    Serializer,
    dump_result,
    is_sent_by_value,
)
from manyhands.errors import StoreFullError, UnpicklableError
from tests.unit.core.shelves import FakeShelf, list_pieces, open_payload

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


# Large values.

LARGE = bytes(range(256)) * 400


@pytest.fixture
def shelf() -> FakeShelf:
    return FakeShelf()


def make_serializer(shelf: FakeShelf, *, by_value: bool = False) -> Serializer:
    return Serializer(lambda module: by_value and module == __name__, lambda: shelf)


class Keeper:
    """Gives refs that are the same as long as they live."""

    def __init__(self) -> None:
        self.refs: dict[int, Ref[Any]] = {}

    def hand_out(self, record: Record) -> Ref[Any]:
        return self.refs.setdefault(record.id, Ref(record))

    def describe(self, record: Record) -> str:
        return "somewhere"

    def make(self, number: int) -> Ref[Any]:
        return self.hand_out(Record(self, number, b"", "thing", 0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [LARGE, LARGE.decode("latin-1"), bytearray(LARGE), list(range(20_000)), [LARGE, {"a": LARGE}]],
    ids=["bytes", "str", "bytearray", "list", "nested"],
)
def test_what_is_large_is_shared(shelf: FakeShelf, value: Any) -> None:
    serializer = make_serializer(shelf)
    for payload in (
        serializer.dump_arguments((value, 1), {}),
        serializer.dump_arguments((), {"value": value}),
        serializer.dump(value, "it"),
        dump_result(value, shelf),
    ):
        assert isinstance(payload, Parcel)
        assert payload.size < 2000
        assert list_pieces(payload)
    assert open_payload(serializer.dump_arguments((value,), {})) == ((value,), {})
    assert open_payload(serializer.dump(value, "it")) == value
    loaded = open_payload(dump_result(value, shelf))
    assert loaded == value
    assert type(loaded) is type(value)


def test_a_large_bytes_is_no_part_of_the_pickle(shelf: FakeShelf) -> None:
    serializer = make_serializer(shelf)
    serializer.dump_arguments((LARGE, "x"), {"more": LARGE})
    serializer.dump(LARGE, "it")
    dump_result(LARGE, shelf)
    assert shelf.chunks == 0
    assert len(shelf.values) == 1


@given(st.integers(-2, 2))
def test_the_limit_is_sharp(more: int) -> None:
    shelf = FakeShelf()
    array = np.zeros(INLINE_BYTES + more, "u1")
    payload = make_serializer(shelf).dump_arguments((array, b"x" * (INLINE_BYTES + more)), {})
    assert len(shelf.values) == (2 if more > 0 else 0) or shelf.chunks
    (loaded, content), _ = open_payload(payload)
    assert loaded.shape == array.shape
    assert content == b"x" * (INLINE_BYTES + more)


@given(plain)
def test_small_values_need_no_shelf(value: Any) -> None:
    serializer = Serializer(lambda module: False, refuse)
    assert open_payload(serializer.dump(value, "it")) == value
    assert open_payload(serializer.dump_arguments((value,), {}))[0] == (value,)


def refuse() -> Any:
    raise AssertionError("nothing large is here")


def test_a_value_that_many_small_ones_make_large(shelf: FakeShelf) -> None:
    args = tuple(range(10_000))
    payload = make_serializer(shelf).dump_arguments(args, {})
    assert shelf.chunks == 1
    assert open_payload(payload)[0] == args


def test_the_same_object_twice_arrives_as_one(shelf: FakeShelf) -> None:
    array = np.zeros(50_000)
    (one, other), _ = open_payload(make_serializer(shelf).dump_arguments((array, array), {}))
    assert one is other
    assert len(shelf.values) == 1


def test_buffers_of_all_kinds_meet_their_places(shelf: FakeShelf) -> None:
    values = [
        np.arange(3000.0),
        bytearray(b"a" * 20_000),
        np.arange(5),
        pickle.PickleBuffer(b"b" * 30_000),
        memoryview(b"c" * 20_000),
        np.arange(4000).astype("M8[s]"),
        LARGE,
        memoryview(b"d"),
    ]
    for by_value in (False, True):
        more = [double] if by_value else []
        payload = make_serializer(shelf, by_value=by_value).dump_arguments((*values, *more), {})
        loaded, _ = open_payload(payload)
        for arrived, value in zip(loaded, values, strict=False):
            if isinstance(value, np.ndarray):
                assert arrived.dtype == value.dtype
                assert arrived.tobytes() == value.tobytes()
            else:
                assert bytes(arrived) == bytes(value)


@pytest.mark.parametrize("by_value", [False, True])
def test_inputs_and_refs_stand_beside(shelf: FakeShelf, by_value: bool) -> None:
    keeper = Keeper()
    ref = keeper.make(5)
    inner = make_serializer(shelf).dump([LARGE, ref], "it")
    assert isinstance(inner, Parcel)
    more = [double] if by_value else []
    payload = make_serializer(shelf, by_value=by_value).dump_arguments(
        (Input(inner), [ref, {"a": Input(inner)}], PlainInput(pickle.dumps(3)), *more), {}
    )
    assert isinstance(payload, Parcel)
    assert payload.inputs == [inner, inner]
    assert payload.refs == [ref.record]
    (first, second, third, *rest), _ = open_payload(payload)
    assert first == [LARGE, ref]
    assert second == [ref, {"a": [LARGE, ref]}]
    assert third == 3
    assert [fn(4) for fn in rest] == [8] * by_value


def test_results_hold_refs(shelf: FakeShelf) -> None:
    ref = Keeper().make(7)
    payload = dump_result({"a": ref, "b": [ref]}, shelf)
    assert isinstance(payload, Parcel)
    assert payload.refs == [ref.record]
    assert open_payload(payload) == {"a": ref, "b": [ref]}


class DumpsAnother:
    """Has another value stored when it is pickled."""

    def __init__(self, dump: Any) -> None:
        self.dump = dump

    def __reduce__(self) -> Any:
        self.dump()
        return str, ("done",)


def test_a_pickle_within_a_pickle_is_its_own(shelf: FakeShelf) -> None:
    ref, other = Keeper().make(7), Keeper().make(8)
    serializer = make_serializer(shelf)
    value = [ref, DumpsAnother(lambda: serializer.dump([other, np.zeros(5000)], "it")), ref]
    assert open_payload(serializer.dump(value, "it")) == [ref, "done", ref]
    value[1] = DumpsAnother(lambda: dump_result([other, np.zeros(5000)], shelf))
    value += [np.ones(5000)]
    loaded = open_payload(dump_result(value, shelf))
    assert loaded[:3] == [ref, "done", ref]
    assert loaded[3][0] == 1


def test_alone_a_ref_cannot_travel() -> None:
    with pytest.raises(UnpicklableError, match=r"the value\[0\].*pickle its value, ref.get()"):
        never.dump_alone([Keeper().make(7)], "the value")


def test_alone_a_value_has_all_within() -> None:
    value = [LARGE, np.arange(5000.0)]
    loaded = pickle.loads(never.dump_alone(value, "it"))
    assert loaded[0] == LARGE
    assert (loaded[1] == value[1]).all()
    assert pickle.loads(this_module.dump_alone((double, LARGE), "it"))[0](2) == 4


offset_table = np.arange(30_000.0)
long_list = list(range(30_000))


def look_up(index: int) -> float:
    return float(offset_table[index])


def look_up_long(index: int) -> int:
    return long_list[index]


def test_a_function_with_a_large_global_has_it_beside(shelf: FakeShelf) -> None:
    payload = make_serializer(shelf, by_value=True).dump(look_up, "it")
    assert isinstance(payload, Parcel)
    assert payload.size < 3000
    assert [piece.length for piece in list_pieces(payload)] == [240_000]
    assert open_payload(payload)(5) == 5.0


def test_a_function_with_a_large_closure_has_it_beside(shelf: FakeShelf) -> None:
    array, content = np.arange(30_000.0), LARGE
    payload = make_serializer(shelf).dump(lambda i: array[i] + content[i], "it")
    assert isinstance(payload, Parcel)
    assert payload.size < 3000
    assert open_payload(payload)(5) == 10


@pytest.mark.parametrize("fn", [look_up, look_up_long])
def test_the_same_function_again_is_the_same(shelf: FakeShelf, fn: Any) -> None:
    serializer = make_serializer(shelf, by_value=True)
    first = serializer.dump(fn, "it")
    version = serializer.version
    open_payload(first)
    for _ in range(2):
        again = serializer.dump(fn, "it")
        assert isinstance(again, Parcel) and isinstance(first, Parcel)
        assert serializer.version == version, "nothing has changed"
    assert open_payload(again)(7) == 7


def test_what_does_not_fit_says_so(shelf: FakeShelf) -> None:
    shelf.capacity = 50_000
    serializer = make_serializer(shelf)
    for attempt in (
        lambda: serializer.dump_arguments((np.zeros(10_000),), {}),
        lambda: serializer.dump_arguments((LARGE,), {"a": 1}),
        lambda: serializer.dump(list(range(50_000)), "it"),
        lambda: dump_result(np.zeros(10_000), shelf),
        lambda: dump_result("x" * 60_000, shelf),
    ):
        with pytest.raises(StoreFullError):
            attempt()


def test_an_error_says_what_even_among_large_ones(shelf: FakeShelf) -> None:
    serializer = make_serializer(shelf)
    for value in ([np.zeros(5000), LOCK], {"a": LARGE, "b": [1, LOCK]}):
        with pytest.raises(UnpicklableError, match=r"_thread\.lock"):
            serializer.dump_arguments((value,), {})
        with pytest.raises(UnpicklableError, match=r"_thread\.lock"):
            dump_result(value, shelf)
    assert shelf.values == [], "nothing is stored of what cannot be sent"
    # What a pickle that failed had met is not found in the next.
    assert open_payload(serializer.dump_arguments((np.arange(3000.0),), {}))[0][0][5] == 5


class NotContiguous:
    """Hands out a buffer that is not in one piece."""

    def __reduce__(self) -> Any:
        return bytes, (pickle.PickleBuffer(memoryview(bytes(100_000))[::2]),)


def test_a_buffer_in_pieces_is_an_error_with_a_name(shelf: FakeShelf) -> None:
    with pytest.raises(UnpicklableError, match="argument 0 "):
        make_serializer(shelf).dump_arguments((NotContiguous(),), {})
    with pytest.raises(UnpicklableError, match="the result"):
        dump_result(NotContiguous(), shelf)


def test_a_subclass_of_bytes_stays_one(shelf: FakeShelf) -> None:
    value = Raw(LARGE)
    loaded = open_payload(make_serializer(shelf).dump(value, "it"))
    assert type(loaded) is Raw
    assert loaded == value


class Raw(bytes):
    """Is no plain bytes."""
