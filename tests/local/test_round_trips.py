"""Values of NumPy, pandas, SciPy and Arrow, to workers and back: equal, of the same kind, well aligned."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings

import manyhands as mh
from manyhands.core.serialize import INLINE_BYTES
from manyhands.testing.checks import LIMIT
from manyhands.testing.work import Carrier, echo

LARGE = INLINE_BYTES + 1000
FEW = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Marked(np.ndarray[Any, Any]):
    """A subclass with an attribute."""

    mark: str = "none"

    def __array_finalize__(self, source: Any) -> None:
        self.mark = getattr(source, "mark", "none")

    def __reduce__(self) -> Any:
        make, args, state = super().__reduce__()
        return make, args, (state, self.mark)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.mark = state[1]


def describe(value: Any) -> Any:
    """What a worker sees of an array, and what must be the same here."""
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    flags = value.flags
    return (
        type(value).__name__,
        value.dtype.str if value.dtype.names is None else value.dtype.descr,
        value.shape,
        flags.c_contiguous,
        flags.f_contiguous,
    )


def look(value: Any) -> tuple[Any, Any, bool, int]:
    """In a worker: description, content as a pickle, whether it can be written, address."""
    if not isinstance(value, np.ndarray):
        return describe(value), pickle.dumps(value, 5), False, 0
    address = value.__array_interface__["data"][0] if value.size else 0
    return describe(value), value.tobytes(), value.flags.writeable, address


def warm_up(size: int) -> Any:
    return np.ones(size)


def make_view(size: int) -> memoryview:
    return memoryview(bytearray(size))


@pytest.fixture(scope="module")
def session() -> Iterator[mh.Session]:
    with mh.Session("local", workers=2) as session:
        # What is made at first use is made now, so that each test leaves what it found.
        for _ in range(8):
            calls = [session.submit(warm_up, 100_000) for _ in range(4)]
            sums = [session.submit(np.sum, call) for call in calls]
            mh.gather(sums + calls, timeout=LIMIT)
        del calls, sums
        session.submit(np.sum, np.ones(100_000)).result(LIMIT)
        session.map(echo, [pd.DataFrame({"a": [1]}), pa.table({"a": [1]})] * 4, batch=1)
        yield session


def take(session: mh.Session, value: Any) -> Any:
    """A value's way to a worker and back."""
    return session.submit(echo, value).result(LIMIT)


def check_array(session: mh.Session, array: Any) -> Any:
    """Send an array, compare what the worker sees and what comes back; what came back."""
    found, content, is_writable, address = session.submit(look, array).result(LIMIT)
    back = take(session, array)
    assert found == describe(array) == describe(back) or not _keeps_layout(array)
    assert (found[0], found[2]) == (type(array).__name__, array.shape)
    assert back.dtype == array.dtype and back.shape == array.shape and type(back) is type(array)
    assert not is_writable, "arguments are read-only"
    if not array.dtype.hasobject:
        # Bit by bit: NaN, NaT and padding are as they were.
        assert content == array.tobytes() == back.tobytes()
        if array.size and array.nbytes > INLINE_BYTES:
            assert address % 64 == 0
            assert back.__array_interface__["data"][0] % 64 == 0
    return back


def _keeps_layout(array: Any) -> bool:
    """A view with gaps comes without them; whatever has none keeps its order."""
    return bool(array.flags.c_contiguous or array.flags.f_contiguous)


dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(endianness="?"),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.timedelta64_dtypes(endianness="?"),
    hnp.byte_string_dtypes(min_len=1),
    hnp.unicode_string_dtypes(min_len=1),
    hnp.array_dtypes(subtype_strategy=hnp.scalar_dtypes(), max_size=3),
    st.integers(1, 9).map(lambda n: np.dtype(f"V{n}")),
)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)


def make_array(dtype: Any, shape: tuple[int, ...], seed: int) -> Any:
    """Arbitrary bits, but for what may not be any bits."""
    chance = np.random.default_rng(seed)
    count = int(np.prod(shape, dtype=int))
    if dtype.kind == "b":
        return chance.integers(0, 2, shape).astype(dtype)
    if dtype.kind == "U":
        letters = chance.integers(32, 0x2000, (count, dtype.itemsize // 4), "u4")
        return (
            letters.view(np.dtype("U1"))
            .view(f"U{dtype.itemsize // 4}")
            .reshape(shape)
            .astype(dtype)
        )
    raw = chance.integers(0, 256, count * dtype.itemsize, "u1")
    if dtype.names is not None or dtype.kind == "V":
        raw %= 2  # any field, bool among them
    return (
        np.frombuffer(raw.tobytes(), dtype, count).reshape(shape)
        if count
        else np.zeros(shape, dtype)
    )


@FEW
@given(dtype=dtypes, shape=shapes, seed=st.integers(0, 999), data=st.data())
def test_small_arrays(
    session: mh.Session, dtype: Any, shape: tuple[int, ...], seed: int, data: Any
) -> None:
    array = make_array(dtype, shape, seed)
    array = array.copy(data.draw(st.sampled_from("CF")))
    if shape and data.draw(st.booleans()):
        array = array[data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))]
        array = np.asarray(array)
    check_array(session, array)


@FEW
@given(
    dtype=dtypes,
    shape=hnp.array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=5),
    seed=st.integers(0, 999),
    layout=st.tuples(
        st.lists(st.sampled_from([1, 1, 2, 3, -1, -2]), min_size=3, max_size=3),
        st.sampled_from("CF"),
        st.permutations(range(3)),
    ),
)
def test_large_arrays(
    session: mh.Session, dtype: Any, shape: tuple[int, ...], seed: int, layout: Any
) -> None:
    steps, order, axes = layout
    least = 6 * LARGE // dtype.itemsize // int(np.prod(shape)) + 1
    array = make_array(dtype, (*shape[:-1], shape[-1] * least), seed).copy(order)
    views = array[tuple(slice(None, None, step) for step in steps[: array.ndim])]
    views = views.transpose([axis for axis in axes if axis < array.ndim])
    check_array(session, array)
    check_array(session, views)


@pytest.mark.parametrize("size", [3, LARGE])
@pytest.mark.parametrize(
    "make",
    [
        lambda a: a[:0],
        lambda a: a.reshape(-1, 1)[:, :0],
        lambda a: np.broadcast_to(a[0], (300, 200)),
        lambda a: np.broadcast_to(a, (3, len(a))),
        lambda a: a[::-1],
        lambda a: a[1:],  # not aligned to more than its elements
        lambda a: a.view("u1")[1:9].view("f8"),
        lambda a: np.frombuffer(b"x" + a.tobytes(), "f8", offset=1),  # not aligned at all
        lambda a: np.lib.stride_tricks.sliding_window_view(a, 2),
        lambda a: a.astype(">f8"),
        lambda a: a.astype("f2"),
        lambda a: a.astype("longdouble"),
        lambda a: np.asarray(a[0]),
        lambda a: a.view([("x", "f4"), ("y", "i4")])["y"],
        lambda a: np.rec.fromarrays([a, a], names="p,q"),
        lambda a: np.asmatrix(a) if False else a.reshape(1, -1).T,
    ],
)
def test_odd_arrays(session: mh.Session, make: Callable[[Any], Any], size: int) -> None:
    array = make(np.arange(float(size)))
    back = take(session, array)
    assert type(back) is type(array) and back.dtype == array.dtype
    assert np.array_equal(back, array)
    assert session.submit(np.array_equal, array, np.asarray(array).copy()).result(LIMIT)


@pytest.mark.parametrize("size", [3, LARGE])
def test_arrays_of_objects(session: mh.Session, size: int) -> None:
    array = np.array([None, "text", 3] * size, dtype=object)
    assert take(session, array).tolist() == array.tolist()
    nested = np.empty(2, object)
    nested[0], nested[1] = np.arange(float(size)), {"a": np.arange(size)}
    back = take(session, nested)
    assert np.array_equal(back[0], nested[0]) and np.array_equal(back[1]["a"], nested[1]["a"])
    mixed = np.array([(1, "x"), (2, None)] * size, dtype=[("a", "i4"), ("b", "O")])
    assert take(session, mixed).tolist() == mixed.tolist()
    texts = np.array(["a", "longer text"] * size, dtype=np.dtypes.StringDType())
    assert take(session, texts).tolist() == texts.tolist()


@pytest.mark.parametrize("size", [3, LARGE])
def test_masked_arrays(session: mh.Session, size: int) -> None:
    array = np.ma.masked_array(np.arange(float(size)), mask=np.arange(size) % 3 == 0, fill_value=-1)
    back = take(session, array)
    assert type(back) is np.ma.MaskedArray and back.fill_value == -1
    assert np.array_equal(back.mask, array.mask) and np.array_equal(back.data, array.data)
    assert session.submit(np.ma.sum, array).result(LIMIT) == array.sum()


@pytest.mark.parametrize("size", [3, LARGE])
def test_subclasses(session: mh.Session, size: int) -> None:
    array = np.arange(float(size)).view(Marked)
    array.mark = "kept"
    back = take(session, array)
    assert type(back).__name__ == "Marked" and back.mark == "kept"
    assert np.array_equal(back, array)
    matrix = np.ones((size, 2)).view(np.recarray)
    assert type(take(session, matrix)) is np.recarray


@pytest.mark.parametrize("size", [3, LARGE])
def test_scalars_and_containers(session: mh.Session, size: int) -> None:
    for scalar in (
        np.float32(1.5),
        np.int8(-3),
        np.datetime64("2020-01-01"),
        np.str_("x"),
        np.bool(True),
    ):
        back = take(session, scalar)
        assert back == scalar and type(back) is type(scalar)
    array = np.arange(float(size))
    value = {"a": [array, (array, array[::2])], "b": Carrier(array)}
    back = take(session, value)
    assert np.array_equal(back["a"][0], array) and np.array_equal(back["a"][1][1], array[::2])
    assert back["a"][0] is back["a"][1][0] is back["b"].value, (
        "one array is one array there and here"
    )
    assert np.array_equal(
        take(session, np.random.default_rng(3)).random(size), np.random.default_rng(3).random(size)
    )


# Arrays of files.


def describe_map(array: Any) -> tuple[str, str, int, str, bool]:
    """In a worker: class, file, first element's place in it, mapping's name, whether it can be written."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= address < last:
            _, _, offset, _, _, *name = line.split()
            place = int(offset, 16) + address - first
            file = str(getattr(array, "filename", ""))
            return type(array).__name__, file, place, " ".join(name), array.flags.writeable
    raise AssertionError("no such address")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(b"head" * 4 + np.arange(50_000.0).tobytes())
    return path


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_memmap_goes_by_its_name(session: mh.Session, file: Path, mode: Any) -> None:
    array = np.memmap(file, "f8", mode, offset=16)
    used = session.memory().used
    assert session.submit(describe_map, array).result(LIMIT) == (
        "memmap",
        str(file),
        16,
        str(file),
        False,
    )
    for part, first in (
        (array[100:], 100),
        (array[10:40_000:3], 10),
        (array.reshape(100, 500)[3], None),
        (array.reshape(100, 500).T, 0),
        (array[100:].view("i8"), 100),
    ):
        kind, _, place, name, _ = session.submit(describe_map, part).result(LIMIT)
        if part.nbytes > INLINE_BYTES:
            assert (kind, name) == ("memmap", str(file))
            assert first is None or place == 16 + 8 * first
        assert np.array_equal(session.submit(np.array, part).result(LIMIT), part)
    backwards = array[::-1]
    assert session.submit(np.array, backwards).result(LIMIT).tolist() == backwards.tolist()
    plain = np.asarray(array)[5:]
    assert session.submit(describe_map, plain).result(LIMIT)[3] == str(file)
    assert session.memory().used <= used, "nothing was copied"
    assert np.array_equal(session.submit(np.add, array, 1).result(LIMIT), np.arange(50_000.0) + 1)


def test_a_memmap_as_the_program_changes_it(session: mh.Session, file: Path) -> None:
    array = np.memmap(file, "f8", "r+", offset=16)
    for x in range(5):
        array[0] = x
        assert session.submit(lambda a: float(a[0]), array).result(LIMIT) == x
    private = np.memmap(file, "f8", "c", offset=16)
    private[0] = 77
    assert session.submit(lambda a: float(a[0]), private).result(LIMIT) == 77, "no file has that"
    assert session.submit(lambda a: float(a[0]), array).result(LIMIT) == 4


def test_a_memmap_of_a_file_that_is_gone(session: mh.Session, file: Path) -> None:
    array = np.memmap(file, "f8", "r", offset=16)
    file.unlink()
    assert session.submit(np.sum, array).result(LIMIT) == array.sum()
    file.write_bytes(b"short")
    assert session.submit(np.sum, array).result(LIMIT) == array.sum(), "another file of that name"


def test_a_memmap_of_a_file_that_is_replaced(session: mh.Session, file: Path) -> None:
    """By another one of the same name and size, as programs do that save again."""
    array = np.memmap(file, "f8", "r", offset=16)
    other = file.with_name("other")
    other.write_bytes(bytes(16 + 400_000))
    other.replace(file)
    assert session.submit(np.sum, array).result(LIMIT) == array.sum()


def test_loaded_files_and_results_of_memmaps(session: mh.Session, tmp_path: Path) -> None:
    path = tmp_path / "saved.npy"
    np.save(path, np.arange(50_000.0).reshape(500, 100))
    array = np.load(path, mmap_mode="r")
    kind, _, _, name, _ = session.submit(describe_map, array).result(LIMIT)
    assert (kind, name) == ("memmap", str(path))
    back = take(session, array)
    assert np.array_equal(back, array)
    small = array[0]
    assert np.array_equal(take(session, small), small)
    assert session.map(np.sum, array) == [float(row.sum()) for row in array]

    def load(name: str) -> Any:
        return np.load(name, mmap_mode="r")

    assert np.array_equal(session.submit(load, str(path)).result(LIMIT), array)


# SciPy.


@pytest.mark.parametrize("format_", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("size", [5, 400])
def test_sparse_matrices(session: mh.Session, format_: str, kind: str, size: int) -> None:
    make = scipy.sparse.random if kind == "matrix" else scipy.sparse.random_array
    shape = (size, 2 * size)
    args: Any = shape if kind == "matrix" else (shape,)
    density = 0.1 if format_ in ("csr", "csc", "coo", "bsr") else 50 / (2 * size * size)
    matrix = make(*args, density=density, format=format_, rng=np.random.default_rng(1))
    back = take(session, matrix)
    assert type(back) is type(matrix) and back.shape == matrix.shape and back.dtype == matrix.dtype
    assert (back != matrix).nnz == 0
    assert np.allclose(
        session.submit(lambda m: m.sum(axis=1), matrix).result(LIMIT), matrix.sum(axis=1)
    )
    if format_ in ("csr", "csc"):
        assert (
            session.submit(lambda m: m @ m.T, matrix).result(LIMIT) != matrix @ matrix.T
        ).nnz == 0


# pandas and Arrow.


def make_columns(size: int) -> dict[str, Any]:
    numbers = np.arange(size)
    moments = pd.date_range("2020-01-01", periods=size, freq="min")
    texts = [f"text {x}" for x in range(size)]
    some = [None if x % 3 == 0 else x for x in range(size)]
    return {
        "int8": numbers.astype("i1"),
        "int64": numbers,
        "uint": numbers.astype("u4"),
        "float": numbers / 3,
        "float32": numbers.astype("f4"),
        "complex": numbers * 1j,
        "bool": numbers % 2 == 0,
        "Int64": pd.array(some, "Int64"),
        "UInt8": pd.array([None if x is None else x % 200 for x in some], "UInt8"),
        "Float64": pd.array(some, "Float64"),
        "boolean": pd.array([None if x is None else x % 2 == 0 for x in some], "boolean"),
        "str": pd.array(texts, "str"),
        "string": pd.array([None, *texts[1:]], "string"),
        "python": pd.array(texts, pd.StringDtype("python")),
        "category": pd.Categorical([f"kind {x % 7}" for x in range(size)]),
        "ordered": pd.Categorical(numbers % 3, [2, 1, 0], ordered=True),
        "naive": moments,
        "zoned": moments.tz_localize("Europe/Berlin", ambiguous="NaT", nonexistent="NaT"),
        "span": pd.to_timedelta(numbers, "s"),
        "period": pd.period_range("2020-01", periods=size, freq="D"),
        "interval": pd.arrays.IntervalArray.from_breaks(np.arange(size + 1.0)),
        "sparse": pd.arrays.SparseArray(np.where(numbers % 10 == 0, 1.0, np.nan)),
        "object": pd.array([{"a": x} for x in range(size)], object) if size < 100 else texts,
        "arrow int": pd.array(some, "int64[pyarrow]"),
        "arrow text": pd.array(texts, "string[pyarrow]"),
        "arrow time": pd.array(moments, "timestamp[us][pyarrow]"),
        "arrow list": pd.array(
            [[x, x + 1] for x in range(size)], pd.ArrowDtype(pa.list_(pa.int64()))
        ),
    }


SIZES = [4, 5000]
COLUMNS = list(make_columns(2))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", COLUMNS)
def test_series_of_every_kind(session: mh.Session, name: str, size: int) -> None:
    series = pd.Series(make_columns(size)[name], name=name)
    back = take(session, series)
    pd.testing.assert_series_equal(back, series)
    half = series[::2]
    pd.testing.assert_series_equal(take(session, half), half)
    assert session.submit(len, series).result(LIMIT) == size
    assert session.submit(lambda s: (s.isna().sum(), str(s.dtype)), series).result(LIMIT) == (
        series.isna().sum(),
        str(series.dtype),
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "name", [name for name in COLUMNS if name not in ("sparse", "object", "arrow list")]
)
def test_indexes_of_every_kind(session: mh.Session, name: str, size: int) -> None:
    index = pd.Index(make_columns(size)[name], name="key")
    pd.testing.assert_index_equal(take(session, index), index)
    frame = pd.DataFrame({"value": np.arange(float(size))}, index=index)
    pd.testing.assert_frame_equal(take(session, frame), frame)


@pytest.mark.parametrize("size", SIZES)
def test_frames(session: mh.Session, size: int) -> None:
    frame = pd.DataFrame(make_columns(size))
    back = take(session, frame)
    pd.testing.assert_frame_equal(back, frame)
    pd.testing.assert_frame_equal(
        take(session, frame[["int64", "str", "zoned"]][1::2]),
        frame[["int64", "str", "zoned"]][1::2],
    )
    index = pd.MultiIndex.from_product([range(size // 2), ["a", "b"]], names=["number", "letter"])
    numbers = pd.DataFrame(
        np.arange(4.0 * size).reshape(-1, 4), index=index[:size], columns=list("abcd")
    )
    pd.testing.assert_frame_equal(take(session, numbers), numbers)
    pd.testing.assert_frame_equal(take(session, numbers.T), numbers.T)
    pd.testing.assert_frame_equal(take(session, numbers.unstack()), numbers.unstack())
    result = session.submit(lambda f: f.groupby("letter").sum(), numbers).result(LIMIT)
    pd.testing.assert_frame_equal(result, numbers.groupby("letter").sum())
    result["a"] = 0.0
    result.iloc[0, 1] = 5.0
    empty = frame[:0]
    pd.testing.assert_frame_equal(take(session, empty), empty)
    pd.testing.assert_frame_equal(take(session, pd.DataFrame()), pd.DataFrame())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "call", [echo, lambda f: f.copy(), lambda f: f[["int64", "float", "zoned"]][1:]]
)
def test_frames_that_come_back_can_be_changed(session: mh.Session, call: Any, size: int) -> None:
    """Made by the call, passed through, or a part of what it got."""
    frame = pd.DataFrame(make_columns(size))
    back = session.submit(call, frame).result(LIMIT)
    for name in back.columns:
        if name not in ("sparse", "object", "arrow list"):  # which pandas cannot set, or not so
            back.loc[back.index[0], name] = back[name].iloc[1]
            assert back[name].iloc[0] == back[name].iloc[1] or pd.isna(back[name].iloc[1])
    back["int64"] += 1
    assert frame["int64"].tolist() == list(range(size))


@pytest.mark.parametrize("size", SIZES)
def test_frames_in_calls(session: mh.Session, size: int) -> None:
    """What calls usually do with frames works with read-only memory below."""
    frame = pd.DataFrame(make_columns(size))

    def work_on(f: Any) -> Any:
        f = f.assign(double=f["float"] * 2)
        f["sum"] = f["float"] + f["int64"]
        f.loc[f["bool"], "float"] = -1.0
        f = f.sort_values("int64", ascending=False).reset_index(drop=True)
        return f.drop(columns=["object"]).merge(f[["int64", "double"]], on="int64")

    ref = session.put(frame)
    expected = work_on(frame.copy())
    pd.testing.assert_frame_equal(session.submit(work_on, frame).result(LIMIT), expected)
    pd.testing.assert_frame_equal(session.submit(work_on, ref).result(LIMIT), expected)
    pd.testing.assert_frame_equal(ref.get(), frame)


@FEW
@given(
    size=st.sampled_from([0, 1, 7, 3000]),
    start=st.integers(0, 5),
    names=st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4, unique=True),
)
def test_some_columns(session: mh.Session, size: int, start: int, names: list[str]) -> None:
    columns = make_columns(max(size, 2))
    frame = pd.DataFrame({name: columns[name] for name in names})[start:size]
    pd.testing.assert_frame_equal(take(session, frame), frame)


@pytest.mark.parametrize("size", [0, *SIZES])
def test_arrow(session: mh.Session, size: int) -> None:
    table = pa.table(
        {
            "i": pa.array(range(size)),
            "t": pa.array([f"text {x}" for x in range(size)]),
            "n": pa.array([None if x % 2 else float(x) for x in range(size)], pa.float64()),
            "l": pa.array([[x] * (x % 4) for x in range(size)], pa.list_(pa.int64())),
            "d": pa.array([f"kind {x % 5}" for x in range(size)]).dictionary_encode(),
            "s": pa.array([{"a": x} for x in range(size)], pa.struct([("a", pa.int64())])),
        }
    )
    for value in (
        table,
        table.slice(1, 2000),
        table["t"],
        table["i"].combine_chunks(),
        table["i"].combine_chunks().slice(1, 2000),
        pa.concat_tables([table, table]),
        table.schema,
        *table.to_batches()[:1],
        pa.py_buffer(bytes(size * 8)),
    ):
        back = take(session, value)
        assert type(back) is type(value) and back.equals(value)
        if isinstance(value, (pa.Table, pa.RecordBatch, pa.ChunkedArray, pa.Array)):
            back.validate(full=True)
    total = session.submit(lambda t: t.group_by("d").aggregate([("i", "sum")]), table).result(LIMIT)
    assert total.num_rows == min(size, 5)

    def find_addresses(t: Any) -> list[int]:
        return [b.address for c in t["i"].chunks for b in c.buffers() if b is not None and b.size]

    assert all(
        a % 64 == 0 for a in session.submit(find_addresses, table).result(LIMIT) if size > LARGE
    )


# Buffers of Python itself.


@FEW
@given(
    content=st.binary(max_size=300),
    times=st.sampled_from([1, 1, 400]),
    kind=st.sampled_from([bytes, bytearray, memoryview, lambda b: memoryview(bytearray(b))]),
)
def test_bytes(session: mh.Session, content: bytes, times: int, kind: Any) -> None:
    value = kind(content * times)
    back = take(session, value)
    assert type(back) is type(value) and back == value
    if isinstance(value, bytearray):
        back += b"more"
    held = take(session, {"a": [value, value]})
    assert held["a"][0] == held["a"][1] == value


@pytest.mark.parametrize("size", [12, 60_000])
@pytest.mark.parametrize(
    "make",
    [
        memoryview,
        lambda b: memoryview(b).toreadonly(),
        lambda b: memoryview(bytes(b)),
        lambda b: memoryview(b).cast("i"),
        lambda b: memoryview(b).cast("B", (2, 3, len(b) // 6)),
        lambda b: memoryview(b).cast("q")[1:] if len(b) % 8 == 0 else memoryview(b)[1:],
        lambda b: memoryview(b)[::2],
        lambda b: memoryview(b)[::-1],
        lambda b: memoryview(b)[:0],
        lambda b: memoryview(np.arange(len(b)).reshape(2, -1).T),
        lambda b: memoryview(np.arange(len(b), dtype="f4")),
    ],
)
def test_memoryviews(
    session: mh.Session, make: Callable[[bytearray], memoryview], size: int
) -> None:
    view = make(bytearray(x % 256 for x in range(size)))

    def look_at(v: memoryview) -> Any:
        return type(v).__name__, v.format, v.shape, v.tobytes(), v.readonly

    kind, format_, shape, content, _ = session.submit(look_at, view).result(LIMIT)
    assert (kind, format_, shape, content) == (
        "memoryview",
        view.format,
        view.shape,
        view.tobytes(),
    )
    back = take(session, view)
    assert type(back) is memoryview and back == view and back.format == view.format


@pytest.mark.parametrize("size", [12, 60_000])
def test_results_that_calls_make(session: mh.Session, size: int) -> None:
    """What a call makes can be changed here, whatever it is made of."""
    calls: list[Callable[[int], Any]] = [
        np.ones,
        lambda n: np.ones((n, 2), order="F"),
        lambda n: np.ones((n, 2))[::2, ::-1],
        lambda n: np.ones(n, "M8[s]"),
        lambda n: np.ma.masked_array(np.ones(n)),
        lambda n: np.ones(n).reshape(-1, 2).T,
    ]
    for make in calls:
        found = session.submit(make, size).result(LIMIT)
        expected = make(size)
        assert np.array_equal(found, expected) and found.dtype == expected.dtype
        assert found.flags.writeable
        found[...] = found[(0,) * found.ndim]
        if found.nbytes > INLINE_BYTES and type(found) is np.ndarray:
            assert found.__array_interface__["data"][0] % 64 == 0
    assert session.submit(bytearray, size).result(LIMIT) == bytearray(size)
    found = session.submit(make_view, size).result(LIMIT)
    found[0] = 1
