"""How values with large buffers are taken apart for pickle, where their own way would copy or read too much.

No library is imported here: what is not loaded in this process cannot be among the values.
"""

from __future__ import annotations

import copyreg
import os
import sys
from _pickle import PickleBuffer

from manyhands.core.parcels import packing, take_array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MAPPED_BYTES = 16 * 1024
"""Below this the bytes of a file are sent, which costs less than mapping them."""


def list_reductions() -> dict[type, Callable[[Any], Any]]:
    """A dispatch table for a pickler: what the program registered itself, and ours."""
    table = {**copyreg.dispatch_table, memoryview: reduce_memoryview}
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "memmap"):
        table[numpy.ndarray] = reduce_array
        table[numpy.memmap] = reduce_array
    return table


def reduce_memoryview(view: memoryview) -> Any:
    """A view arrives as a view, of a copy of its bytes; a read-only one stays so."""
    try:
        memoryview(b"").cast(view.format)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"a memoryview of format {view.format!r} cannot be rebuilt; make an array of it"
        ) from error
    if not view.c_contiguous:
        return rebuild_memoryview, (view.tobytes(), view.format, view.shape)
    return rebuild_memoryview, (PickleBuffer(view), view.format, view.shape)


def rebuild_memoryview(buffer: Any, format_: str, shape: tuple[int, ...]) -> memoryview:
    """Undo `reduce_memoryview`."""
    view = memoryview(buffer).cast("B")
    if format_ == "B" and len(shape) == 1:
        return view
    if 0 in shape:  # cannot be cast to
        return view.cast(format_)  # type: ignore[call-overload, no-any-return]
    return view.cast(format_, shape)  # type: ignore[call-overload, no-any-return]


def reduce_array(array: Any) -> Any:
    """As `share_array`, unless what holds the array has a rule of its own."""
    reduce = packing.reduce_array
    return share_array(array) if reduce is None else reduce(array)


def share_array(array: Any) -> Any:
    """An array of a file goes by the file's name; others so that their elements can stay where they are."""
    if array.nbytes >= _MAPPED_BYTES and (by_name := reduce_mapped(array)) is not None:
        return by_name
    is_plain = type(array).__name__ == "ndarray" and not array.dtype.hasobject
    if packing.arrays is None or not is_plain or not array.dtype.itemsize:
        return array.__reduce_ex__(5)
    flags = array.flags
    if not (flags.c_contiguous or flags.f_contiguous):
        array = array.copy("C")
    order = "C" if array.flags.c_contiguous else "F"
    # The buffer protocol knows no dates, and there is no end to what else it does not know.
    raw = array.ravel(order).view("u1")
    packing.arrays.append(PickleBuffer(raw))
    return take_array, (len(packing.arrays) - 1, array.dtype, array.shape, order)


def reduce_mapped(array: Any, *, writable: bool = False) -> Any:
    """The name and place of an array's elements in the file that they are mapped from; None for any other array.

    With `writable`, what was mapped for writing arrives so.
    """
    numpy = sys.modules["numpy"]
    root = array
    mapped: Any = array if isinstance(array, numpy.memmap) else None
    while isinstance(base := getattr(root, "base", None), numpy.ndarray):
        root = base
        if isinstance(root, numpy.memmap):
            mapped = root
    # Changes of a private mapping are in no file, and what was mapped may have another name by now, or none.
    if (
        mapped is None
        or mapped is not root
        or root.mode == "c"
        or root.filename is None
        or array.dtype.hasobject
    ):
        return None
    file = os.fspath(root.filename)
    if not os.path.isabs(file) or not _is_mapped(file, root.__array_interface__["data"][0]):
        return None
    first = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    is_map = isinstance(array, numpy.memmap)
    layout = (root.offset + first, array.dtype, array.shape, array.strides)
    mode = "r+" if writable and root.mode != "r" else "r"
    return map_array, (file, layout, is_map, mode)


def _is_mapped(file: str, address: int) -> bool:
    """Whether the file of this name is the one that is mapped at `address`."""
    try:
        status = os.stat(file)
        if not os.access(file, os.R_OK):
            return False
        with open("/proc/self/maps") as maps:
            for line in maps:
                span, _, _, _, inode, *_ = line.split(None, 5)
                start, end = span.split("-")
                if int(start, 16) <= address < int(end, 16):
                    return int(inode) == status.st_ino
    except OSError:
        pass
    return False


def map_array(
    file: str,
    layout: tuple[int, Any, tuple[int, ...], tuple[int, ...]],
    is_map: bool,
    mode: str = "r",
) -> Any:
    """Map elements of a file.

    Parameters
    ----------
    file
        An absolute path.
    layout
        Of the array: where its first element stands in the file, in bytes; elements, shape, strides.
    is_map
        Whether the array is to be a `numpy.memmap`.
    mode
        As of `numpy.memmap`: "r" or "r+".
    """
    import importlib

    numpy = importlib.import_module("numpy")
    offset, dtype, shape, strides = layout
    below = sum((n - 1) * step for n, step in zip(shape, strides, strict=True) if step < 0)
    above = sum((n - 1) * step for n, step in zip(shape, strides, strict=True) if step > 0)
    whole = numpy.memmap(
        file, "u1", mode, offset=offset + below, shape=above - below + dtype.itemsize
    )
    array = numpy.ndarray(shape, dtype, buffer=whole, offset=-below, strides=strides)
    if not is_map:
        return array
    found = array.view(numpy.memmap)
    found.filename, found.offset, found.mode = whole.filename, offset + below, mode
    return found
