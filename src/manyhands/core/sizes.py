"""Amounts of memory as people write them."""

from __future__ import annotations

from manyhands.errors import InvalidArgumentError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def parse_size(size: object, what: str) -> int:
    """Bytes of ``8_000_000_000``, ``"8GB"`` or ``"512 MiB"``.

    Parameters
    ----------
    size
        A number of bytes, or a text with a unit: kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (of 1024).
    what
        Names it in an error.

    Raises
    ------
    InvalidArgumentError

    Examples
    --------
    >>> parse_size("1.5 GB", "store")
    1500000000
    """
    number: float | None = None
    if isinstance(size, (int, float)) and not isinstance(size, bool):
        number = size
    elif isinstance(size, str):
        digits = size.strip().rstrip("bBkKmMgGtTiI ")
        unit = size.strip()[len(digits) :].strip().lower()
        try:
            number = float(digits) * _UNITS[unit]
        except (ValueError, KeyError):
            number = None
    if number is None or not 0 <= number < 2**63:
        raise InvalidArgumentError(
            f"{what}={size!r}: it is an amount of memory, such as '8GB', '512 MiB' or a number of bytes"
        )
    return int(number)


def format_size(size: float) -> str:
    """A size for people, in powers of 1024.

    Examples
    --------
    >>> format_size(268435456), format_size(1000)
    ('256.0 MiB', '1000 B')
    """
    if size < 1024:
        return f"{int(size)} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"
