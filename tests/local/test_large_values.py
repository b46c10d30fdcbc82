"""Values of any size travel, in both directions, one by one and many at once."""

from typing import Any

import pytest

import manyhands as mh
from manyhands.testing.checks import LIMIT
from manyhands.testing.work import echo

KIB = 1024
MIB = 1024 * KIB

# Around the limits of a message's payload (16 KiB), of a flush (96), of a message (192) and of a pipe (64).
SIZES = [
    0,
    1,
    *(limit * KIB + difference for limit in (16, 64, 96, 192) for difference in (-100, -1, 0, 1)),
    MIB,
    8 * MIB,
]


def make(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))


def measure(value: bytes) -> int:
    assert value == make(len(value))
    return len(value)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_any_size_there_and_back(start_method: str) -> None:
    with mh.Session("local", workers=2, start_method=start_method) as session:
        for size in SIZES:
            assert session.submit(measure, make(size)).result(LIMIT) == size
            assert session.submit(make, size).result(LIMIT) == make(size)
            assert session.submit(echo, make(size)).result(LIMIT) == make(size)


def test_maps_of_all_sizes() -> None:
    with mh.Session("local", workers=2) as session:
        values = [make(size) for size in SIZES]
        assert session.map(echo, values) == values
        assert session.map(make, SIZES) == values
        assert session.map(measure, values, batch=5) == SIZES
        assert list(session.imap(make, SIZES * 3)) == values * 3


def test_fifty_megabytes() -> None:
    value = make(50 * MIB)
    with mh.Session("local", workers=2) as session:
        assert session.submit(echo, value).result(LIMIT) == value
        assert session.map(len, [value, value[1:]]) == [50 * MIB, 50 * MIB - 1]


@pytest.mark.parametrize("size", [1 * KIB, 10 * KIB, 16 * KIB, 20 * KIB, 100 * KIB])
def test_many_arguments_at_once(size: int) -> None:
    """Many quick calls travel in one message, and all their arguments with them."""
    value = make(size)
    with mh.Session("local", workers=2) as session:
        mh.gather([session.submit(len, b"x") for _ in range(2000)], timeout=LIMIT)
        futures = [session.submit(len, value) for _ in range(600)]
        assert mh.gather(futures, timeout=LIMIT) == [size] * 600


@pytest.mark.parametrize("size", [1 * KIB, 10 * KIB, 16 * KIB, 20 * KIB, 100 * KIB])
def test_many_results_at_once(size: int) -> None:
    with mh.Session("local", workers=2) as session:
        mh.gather([session.submit(bytes, 1) for _ in range(2000)], timeout=LIMIT)
        futures = [session.submit(bytes, size) for _ in range(600)]
        assert all(len(future.result(LIMIT)) == size for future in futures)


def test_many_megabytes_at_once() -> None:
    value = make(2 * MIB)
    with mh.Session("local", workers=2) as session:
        futures = [session.submit(echo, value) for _ in range(40)]
        assert all(future.result(LIMIT) == value for future in futures)


def test_large_functions_travel() -> None:
    """A closure over a large value, one that every call uses and one made for each call."""
    value = make(5 * MIB)
    with mh.Session("local", workers=2) as session:
        assert session.map(lambda x: len(value) + x, range(100)) == [
            5 * MIB + x for x in range(100)
        ]
        for x in range(5):
            held = make(MIB + x)
            assert session.submit(lambda held=held: len(held)).result(LIMIT) == MIB + x


def test_large_errors_travel() -> None:
    def fail(size: int) -> None:
        raise ValueError(make(size))

    with mh.Session("local", workers=2) as session:
        for size in SIZES:
            error = session.submit(fail, size).exception(LIMIT)
            assert isinstance(error, ValueError) and error.args == (make(size),)
        found: list[Any] = session.map(fail, [20 * KIB] * 30, on_error="return")
        assert all(error.args == (make(20 * KIB),) for error in found)


def test_buffers_and_arrays_travel() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(3_000_000.0).reshape(1000, 3000)
    with mh.Session("local", workers=2) as session:
        assert numpy.array_equal(session.submit(echo, array).result(LIMIT), array)
        assert numpy.array_equal(session.submit(numpy.negative, array.T).result(LIMIT), -array.T)
        assert session.submit(echo, bytearray(make(MIB))).result(LIMIT) == bytearray(make(MIB))
        rows = session.map(numpy.sum, array)
        assert numpy.allclose(rows, array.sum(axis=1))


def test_an_array_that_comes_back_can_be_written() -> None:
    numpy = pytest.importorskip("numpy")
    with mh.Session("local", workers=1) as session:
        found = session.submit(numpy.zeros, 100_000).result(LIMIT)
        found += 1
        assert found.sum() == 100_000
