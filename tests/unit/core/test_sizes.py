"""Amounts of memory as people write them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.core.sizes import format_size, parse_size
from manyhands.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        ("1 b", 1),
        ("2kB", 2000),
        ("2 KB", 2000),
        ("2KiB", 2048),
        ("512 MiB", 512 << 20),
        ("8GB", 8_000_000_000),
        (" 8 gb ", 8_000_000_000),
        ("1.5 GB", 1_500_000_000),
        ("1e3 MB", 10**9),
        ("1TiB", 1 << 40),
        ("2TB", 2 * 10**12),
        ("1_000", 1000),
    ],
)
def test_texts(text: str, size: int) -> None:
    assert parse_size(text, "store") == size


@given(st.integers(0, 2**62))
def test_numbers_are_themselves(size: int) -> None:
    assert parse_size(size, "store") == size
    assert parse_size(str(size), "store") == pytest.approx(size, rel=1e-15)


def test_a_fraction_of_a_byte_is_none() -> None:
    assert parse_size(1.9, "store") == 1
    assert type(parse_size(1e9, "store")) is int


@pytest.mark.parametrize(
    "size",
    [
        *("", " ", "GB", "8XB", "8 G", "8 bits", "eight", "8,5 GB", "-1", "-1GB", "nan", "inf GB"),
        *("1e30 TB", -1, -0.5, float("nan"), float("inf"), 2**63, True, False, None, [8], b"8GB"),
    ],
)
def test_what_is_no_size_is_refused_with_its_name(size: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^spill=.*amount of memory, such as"):
        parse_size(size, "spill")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (16 * 1024, "16.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (8_000_000_000, "7.5 GiB"),
        (3 << 40, "3.0 TiB"),
        (5 << 50, "5120.0 TiB"),
        (12.7, "12 B"),
    ],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(1024, 2**50))
def test_what_is_shown_can_be_read_again(size: int) -> None:
    assert parse_size(format_size(size), "store") == pytest.approx(size, rel=0.06)
