"""How values with large buffers are taken apart."""

import array as standard_array
import copyreg
import gc
import io
import os
import pickle
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manyhands.core.parcels import open_pickle, packing
from manyhands.core.reductions import list_reductions, map_array, reduce_mapped
from manyhands.core.serialize import Serializer
from manyhands.errors import UnpicklableError
from tests.unit.core.shelves import FakeShelf, open_part

LARGE = 5000
"""Elements of 8 bytes that are more than what is left in a message."""


def dump(value: Any) -> tuple[bytes, list[bytes]]:
    """The pickle, and what stands beside it."""
    payload = Serializer(lambda module: False, FakeShelf).dump(value, "it")
    if isinstance(payload, bytes):
        return payload, []
    return bytes(open_part(payload.stream)), [bytes(open_part(part)) for part in payload.buffers]


def send(value: Any) -> Any:
    """As it arrives in a worker: with buffers that cannot be written."""
    stream, buffers = dump(value)
    return open_pickle(stream, buffers)


def check_same(arrived: Any, sent: Any) -> None:
    assert type(arrived) is type(sent)
    assert (arrived.dtype, arrived.shape) == (sent.dtype, sent.shape)
    if arrived.dtype.hasobject:
        assert arrived.tolist() == sent.tolist()
    else:
        assert arrived.tobytes() == sent.tobytes()


dtypes = (
    hnp.integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes(endianness="?")
    | hnp.boolean_dtypes()
    | hnp.datetime64_dtypes(endianness="?")
    | hnp.timedelta64_dtypes(endianness="?")
    | hnp.byte_string_dtypes(max_len=8)
    | hnp.unicode_string_dtypes(max_len=4)
)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """Arrays of all kinds, and views of them in all ways."""
    dtype = draw(
        dtypes | hnp.array_dtypes(subtype_strategy=dtypes, max_size=3, allow_subarrays=True)
    )
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    size = int(np.prod(shape))
    content = draw(st.binary(min_size=1, max_size=16))
    if dtype.kind in "mM" or dtype.names or dtype.kind in "SUb":
        array = np.zeros(shape, dtype)
        if size and dtype.kind in "mM":
            array.reshape(-1).view("i8" if dtype.isnative else dtype.byteorder + "i8")[:] = (
                np.arange(size)
            )
    else:
        raw = (content * (size * dtype.itemsize // len(content) + 1))[: size * dtype.itemsize]
        array = np.frombuffer(raw, dtype, count=size).reshape(shape).copy()
    array = draw(st.sampled_from([array, np.asfortranarray(array), array.T]))
    if array.ndim and draw(st.booleans()):
        array = array[draw(hnp.basic_indices(array.shape, allow_ellipsis=True))]
    return np.asarray(array)


@settings(max_examples=150)
@given(arrays())
def test_arrays_of_all_kinds_arrive_as_they_were(array: Any) -> None:
    check_same(send(array), array)


@settings(max_examples=60)
@given(arrays(), st.integers(2, 6))
def test_large_ones_too(array: Any, times: int) -> None:
    large = np.tile(array, 16 * 1024 // max(1, array.nbytes) * times + 1)
    check_same(send(large), large)
    check_same(send(large[..., ::-2]), large[..., ::-2])
    check_same(send(large.T), large.T)


@pytest.mark.parametrize(
    "dtype", ["f8", "i8", ">i4", "c16", "?", "M8[ns]", "m8[s]", ">M8[D]", "e", "S5", "U3", "V7"]
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rows", [3, 200])
def test_no_element_is_in_the_pickle(dtype: str, order: str, rows: int) -> None:
    array = np.zeros((rows, 100), dtype, order=order)
    stream, buffers = dump(array)
    assert len(stream) < 300
    assert sum(map(len, buffers)) == array.nbytes
    check_same(send(array), array)
    assert send(array).flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.parametrize("n", [20, 2 * LARGE])
@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[::2],
        lambda a: a[::-1],
        lambda a: a.reshape(2, -1).T,
        lambda a: a.view("M8[s]"),
        lambda a: np.broadcast_to(a, (3, a.size)),
    ],
    ids=["whole", "steps", "reversed", "transposed", "dates", "broadcast"],
)
def test_what_a_worker_gets_cannot_be_written(view: Any, n: int) -> None:
    array = view(np.arange(n))
    arrived = send(array)
    check_same(arrived, array)
    assert not arrived.flags.writeable


def test_contiguous_arrays_are_not_copied() -> None:
    array = np.zeros((100, LARGE))
    shelf = WatchingShelf()
    for value in (array, array[10:20], array.T, array.view("M8[s]"), array[3]):
        Serializer(lambda module: False, lambda: shelf).dump(value, "it")
        assert np.shares_memory(shelf.raw, value)
        assert shelf.raw.nbytes == value.nbytes


class WatchingShelf(FakeShelf):
    """Shows what it got."""

    def keep(self, raw: memoryview) -> Any:
        self.raw = np.frombuffer(raw, "u1")
        return super().keep(raw)


def test_an_array_of_objects_is_pickled_whole() -> None:
    array = np.array([[1, "a"], [None, 2.5]] * LARGE, object)
    assert not dump(array)[1]
    check_same(send(array), array)
    record = np.zeros(LARGE, [("a", "O"), ("b", "f8")])
    assert send(record).dtype == record.dtype


class Unit(np.ndarray):
    """A subclass with an attribute that travels its own way."""

    unit = "m"

    def __reduce__(self) -> Any:
        function, args, state = super().__reduce__()
        return function, args, (state, self.unit)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.unit = state[1]


def test_a_subclass_travels_in_its_own_way() -> None:
    value = np.zeros(LARGE).view(Unit)
    value.unit = "km"
    assert send(value).unit == "km"
    masked = np.ma.masked_array(np.arange(LARGE), np.arange(LARGE) % 2)
    assert (send(masked).mask == masked.mask).all()
    records = np.rec.array([(1, 2.0)] * LARGE, dtype=[("a", "i4"), ("b", "f8")])
    assert type(send(records)) is np.recarray


def test_the_registry_of_the_program_counts() -> None:
    class Special:
        pass

    copyreg.pickle(Special, lambda value: (str, ("special",)))
    try:
        assert send(Special()) == "special"
    finally:
        del copyreg.dispatch_table[Special]


def test_no_library_is_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy")
    assert np.ndarray not in list_reductions()
    assert "numpy" not in sys.modules
    half = type(sys)("numpy")  # as another thread's import leaves it at its beginning
    monkeypatch.setitem(sys.modules, "numpy", half)
    assert np.ndarray not in list_reductions()


# Memoryviews.


@pytest.mark.parametrize("format_", [*"cbB?hHiIlLqQnNfd"])
@pytest.mark.parametrize("shape", [(3, 4), (12,), (LARGE,), (50, 100), (1, 1, 1)])
def test_views_arrive_as_views(format_: str, shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape)) * memoryview(bytes(64)).cast(format_).itemsize
    content = bytes(i % 2 for i in range(size))
    for raw in (content, bytearray(content)):
        view = memoryview(raw).cast(format_, shape)
        arrived = send(view)
        assert type(arrived) is memoryview
        assert (arrived.format, arrived.shape) == (view.format, view.shape)
        assert arrived.tobytes() == view.tobytes()
        assert arrived.readonly


@pytest.mark.parametrize(
    "array",
    [
        np.arange(LARGE, dtype=">i4"),
        np.arange(LARGE, dtype="c16"),
        np.arange(LARGE, dtype="e"),
        np.arange(LARGE, dtype="g"),
        np.zeros(LARGE, [("a", "i4"), ("b", "f8")]),
        np.array(["abc"] * LARGE),
        np.array([b"abc"] * LARGE),
    ],
    ids=["order", "complex", "half", "long", "record", "text", "bytes"],
)
def test_a_view_of_any_elements_arrives_or_is_refused_here(array: Any) -> None:
    view = memoryview(array)
    try:
        stream, buffers = dump(view)
    except UnpicklableError:
        return  # as pickle does with every view; an error in the worker comes too late
    arrived = open_pickle(stream, buffers)
    assert (arrived.format, arrived.shape) == (view.format, view.shape)
    assert arrived.tobytes() == view.tobytes()


@pytest.mark.parametrize(
    "view",
    [
        memoryview(bytes(range(100)))[::2],
        memoryview(bytes(range(100)))[::-1],
        memoryview(np.arange(24, dtype="i4").reshape(4, 6))[::2],
        memoryview(np.arange(24.0).reshape(4, 6, order="F")),
        memoryview(np.arange(24.0).reshape(4, 6).T),
        memoryview(bytearray(40_000))[::4],
    ],
    ids=["steps", "reversed", "rows", "columns", "transposed", "large"],
)
def test_views_that_are_not_in_one_piece_arrive_as_their_elements(view: memoryview) -> None:
    arrived = send(view)
    assert (arrived.format, arrived.shape) == (view.format, view.shape)
    assert arrived.tobytes() == view.tobytes()


def test_views_of_nothing_and_of_one_number() -> None:
    assert send(memoryview(b"")).tobytes() == b""
    empty = send(memoryview(b"").cast("i"))
    assert (empty.format, empty.shape) == ("i", (0,))
    one = send(memoryview(np.array(7, "i4")))
    assert (one.format, one.shape, one.tobytes()) == ("i", (), np.int32(7).tobytes())


def test_a_view_keeps_nothing_but_its_part() -> None:
    _, (buffer,) = dump(memoryview(bytearray(10**6))[100:20_000])
    assert len(buffer) == 19_900


def test_a_writable_view_is_pickled_as_one() -> None:
    """In a message whose receiver may write, as a result's is."""
    arrived = pickle.loads(pickle_in_band(memoryview(bytearray(b"abc"))))
    assert not arrived.readonly
    assert pickle.loads(pickle_in_band(memoryview(b"abc"))).readonly


def pickle_in_band(value: Any) -> bytes:
    sink = io.BytesIO()
    pickler = pickle.Pickler(sink, 5)
    pickler.dispatch_table = list_reductions()
    pickler.dump(value)
    return sink.getvalue()


def test_arrays_of_the_standard_library_arrive() -> None:
    value = standard_array.array("d", range(LARGE))
    assert send(value) == value
    assert send(bytearray(b"x" * 50_000)) == b"x" * 50_000


# Arrays of files.


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.bin"
    np.arange(4 * LARGE, dtype="f8").tofile(path)
    return path


def open_map(file: Path, **options: Any) -> Any:
    return np.memmap(file, **{"dtype": "f8", "mode": "r"} | options)


VIEWS = {
    "whole": lambda a: a,
    "part": lambda a: a[100:9000],
    "steps": lambda a: a[7::3],
    "reversed": lambda a: a[::-1],
    "reversed steps": lambda a: a[15_000:10:-5],
    "rows": lambda a: a.reshape(100, -1)[20:90],
    "block": lambda a: a.reshape(100, -1)[20:90, 10:150:2],
    "block reversed": lambda a: a.reshape(100, -1)[90:20:-1, 150:10:-1],
    "transposed": lambda a: a.reshape(100, -1).T,
    "repeated": lambda a: np.broadcast_to(a[:100], (100, 100)),
    "other elements": lambda a: a[3:].view("i4"),
    "record": lambda a: a.view([("x", "f8"), ("y", "i8")])["y"],
    "dates": lambda a: a.view("M8[s]"),
    "view of views": lambda a: a[10:][20:].reshape(-1, 2)[::2][5:],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("plain", [False, True], ids=["memmap", "ndarray"])
@pytest.mark.parametrize("offset", [0, 8, 4096, 5000])
def test_a_mapped_array_travels_by_its_files_name(
    file: Path, view: Any, plain: bool, offset: int
) -> None:
    count = (4 * LARGE * 8 - offset) // 16 * 16 // 8
    whole = open_map(file, offset=offset, shape=(count // 200 * 200,))
    array = view(np.asarray(whole) if plain else whole)
    stream, buffers = dump(array)
    assert not buffers and len(stream) < 1000
    arrived = send(array)
    assert type(arrived) is type(array)
    assert (arrived.dtype, arrived.shape, arrived.strides) == (
        array.dtype,
        array.shape,
        array.strides,
    )
    assert arrived.tobytes() == array.tobytes()
    assert not arrived.flags.writeable


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_mapped_array_can_be_sent_on(file: Path, view: Any) -> None:
    array = view(open_map(file))
    again = send(send(array))
    assert again.tobytes() == array.tobytes()
    assert again.shape == array.shape
    part = send(array)[1:]
    assert send(part).tobytes() == part.tobytes()


def test_it_is_of_the_file_and_not_of_a_copy(file: Path) -> None:
    array = open_map(file, mode="r+")
    arrived = send(array)
    array[0] = 77
    assert arrived[0] == 77


def test_a_new_file_is_seen(tmp_path: Path) -> None:
    array = np.memmap(tmp_path / "new", "f8", "w+", shape=(LARGE,))
    array[:] = 5
    assert send(array)[-1] == 5


def test_the_numpy_files_own_header_is_skipped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(LARGE, dtype="f8").reshape(50, -1))
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    arrived = send(array)
    assert not dump(array)[1]
    assert arrived.tobytes() == array.tobytes()
    assert isinstance(arrived, np.memmap)
    assert arrived.filename == str(tmp_path / "a.npy")


def test_a_worker_may_be_elsewhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    array = np.memmap(file.name, "f8", "r")
    stream, _ = dump(array)
    monkeypatch.chdir("/")
    assert pickle.loads(stream)[-1] == array[-1]


def test_windows_over_a_mapped_array_arrive(file: Path) -> None:
    windows = np.lib.stride_tricks.sliding_window_view(open_map(file)[: 2 * LARGE], 5)
    assert (send(windows) == windows).all()


def test_small_parts_are_sent(file: Path) -> None:
    array = open_map(file)[:10]
    assert str(file).encode() not in dump(array)[0]
    assert send(array).tolist() == list(range(10))


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a.copy(),
        lambda a: a + 1,
        lambda a: a.copy()[5:],
        lambda a: a.astype("f4"),
        lambda a: a[np.arange(LARGE)],
    ],
    ids=["copy", "sum", "part of a copy", "other elements", "chosen"],
)
def test_what_was_computed_from_a_mapped_array_is_no_file(file: Path, make: Any) -> None:
    array = make(open_map(file))
    assert str(file).encode() not in dump(array)[0]
    assert send(array).tobytes() == array.tobytes()


def test_changes_of_a_private_mapping_are_sent(file: Path) -> None:
    array = open_map(file, mode="c")
    array[3] = -1
    for value in (array, array[1:], np.asarray(array)):
        assert send(value).tobytes() == value.tobytes()


def test_a_file_that_is_gone_is_no_obstacle(file: Path) -> None:
    array = open_map(file)
    file.unlink()
    assert send(array).tobytes() == array.tobytes()


def test_a_file_that_was_replaced_is_not_taken_for_the_old_one(file: Path) -> None:
    array = open_map(file)
    other = file.with_suffix(".new")
    np.ones(4 * LARGE).tofile(other)
    other.replace(file)
    assert array[5] == 5
    assert send(array)[5] == 5


def test_a_file_that_has_become_shorter_is_not_mapped(file: Path) -> None:
    array = open_map(file, shape=(2 * LARGE,))[:LARGE]
    os.truncate(file, LARGE * 8)
    assert send(array).tobytes() == array.tobytes()


def test_a_mapping_without_a_file_name_is_sent(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w+b", buffering=0) as stream:
        stream.write(bytes(LARGE * 8))
        with os.fdopen(os.dup(stream.fileno()), "r+b") as nameless:
            array = np.memmap(nameless, "f8", "r")
        assert array.filename is None
        assert send(array).tobytes() == array.tobytes()


def test_a_class_without_a_mapping_behind_it_is_sent() -> None:
    array = np.arange(LARGE).view(np.memmap)
    assert send(array).tobytes() == array.tobytes()


def test_objects_in_a_file_are_nonsense_and_stay_so(file: Path) -> None:
    assert send(np.zeros(LARGE, object)).tolist() == [0] * LARGE


def test_the_mapping_ends_with_the_array(file: Path) -> None:
    arrived = send(open_map(file)[5:])
    watch = weakref.ref(arrived.base)
    part = arrived[10:][::2]
    del arrived
    assert watch() is not None
    del part
    gc.collect()
    assert watch() is None


def test_the_layout_says_all() -> None:
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    path = folder / f"manyhands-test-{os.getpid()}.bin"
    path.write_bytes(bytes(range(256)) * 16)
    try:
        array = map_array(str(path), (100, np.dtype("u1"), (2, 3), (-10, -1)), False)
        assert array.tolist() == [[100, 99, 98], [90, 89, 88]]
        assert type(array) is np.ndarray
    finally:
        path.unlink()


class Holder:
    """Has the arrays in it taken apart by a rule of its own."""

    def __init__(self, *arrays: Any) -> None:
        self.arrays = arrays

    def __reduce__(self) -> Any:
        packing.reduce_array = lambda array: (np.full, (array.shape, 7))
        return list, (self.arrays,)


def test_a_rule_of_what_holds_an_array_goes_before_the_usual_way() -> None:
    usual = np.arange(3)
    first, (inner,), last = send([usual, Holder(np.arange(2)), usual.copy()])
    assert (first.tolist(), inner.tolist()) == ([0, 1, 2], [7, 7])
    assert last.tolist() == [7, 7, 7]  # it holds for what is left of the pickle
    assert send(usual).tolist() == [0, 1, 2]  # and for no other
    assert packing.reduce_array is None


def test_a_rule_is_forgotten_when_pickling_fails() -> None:
    with pytest.raises(UnpicklableError):
        send([Holder(np.arange(2)), sys._getframe()])
    assert packing.reduce_array is None


@pytest.mark.parametrize(("mode", "arrives"), [("r", False), ("r+", True)])
def test_what_is_mapped_for_writing_can_arrive_so(file: Path, mode: str, arrives: bool) -> None:
    array = open_map(file, mode=mode)[3:]
    function, arguments = reduce_mapped(array, writable=True)
    arrived = function(*arguments)
    assert arrived.flags.writeable is arrives
    if arrives:
        arrived[0] = 99
        assert array[0] == 99
    function, arguments = reduce_mapped(array)
    assert not function(*arguments).flags.writeable
