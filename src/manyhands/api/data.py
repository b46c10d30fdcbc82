"""Values that are stored once and read by all: `put`, `get`, and arrays born in shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from manyhands.core.refs import Ref
from manyhands.errors import InvalidArgumentError
from manyhands.session import get_session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike

T = TypeVar("T")


def put(value: T, *, writable: bool = False, copy: bool = False) -> Ref[T]:
    """Store a value once, for any number of calls to read.

    Parameters
    ----------
    value
        Anything that can be pickled. Its large buffers (of arrays, data frames, `bytes`) are copied into shared memory,
        where all workers read them in place; an array that was made by `empty`, `zeros` or `array` is not even
        copied once.
    writable
        Give calls arrays that they can all write, and see each other's changes in. Who writes where when is up to
        them: there is no lock.
    copy
        Give each call arrays of its own to write; only the memory pages that it changes are copied.

    Returns
    -------
    Ref
        As an argument of a call, directly or inside lists, tuples and dicts, it stands for the value. The value is
        freed when the last ref, call and array that needs it is gone.

    Raises
    ------
    UnpicklableError
        Naming the part of the value that cannot be stored.
    StoreFullError

    Examples
    --------
    >>> import manyhands as mh
    >>> ref = mh.put(list(range(10)))
    >>> mh.map(lambda i, ref=ref: ref.get()[i] ** 2, [3, 5])
    [9, 25]
    >>> mh.submit(sum, ref).result()
    45
    """
    return get_session().put(value, writable=writable, copy=copy)


@overload
def get(handle: Ref[T], /) -> T: ...


@overload
def get(handle: list[Ref[T]], /) -> list[T]: ...


@overload
def get(handle: Any, /) -> Any: ...


def get(handle: Any, /) -> Any:
    """The value of a ref; of a list, tuple or dict with refs in it, the same with their values.

    Anything else is returned as it is, so a function can be called with a value or with its ref.

    Examples
    --------
    >>> import manyhands as mh
    >>> one, two = mh.put("one"), mh.put("two")
    >>> mh.get(one), mh.get([one, two]), mh.get("three")
    ('one', ['one', 'two'], 'three')
    """
    if isinstance(handle, Ref):
        return handle.get()
    if type(handle) in (list, tuple):
        return type(handle)(map(get, handle))
    if type(handle) is dict:
        return {key: get(value) for key, value in handle.items()}
    return handle


def empty(
    shape: int | tuple[int, ...], dtype: DTypeLike = float, *, order: Literal["C", "F"] = "C"
) -> np.ndarray[Any, Any]:
    """A NumPy array in memory that workers read without a copy; its elements are arbitrary.

    Calls that get it, or a part of it, see it as it is while they run, not as it was when they were submitted.
    They can read it; to have them write, use ``put(array, writable=True)``. In a call, a result that was
    made so is not copied on its way to the caller or to other calls; a call that keeps such an array and goes on
    changing it changes what it has returned.

    Parameters
    ----------
    shape, dtype, order
        As of `numpy.empty`. Elements that are Python objects cannot be shared.

    Returns
    -------
    numpy.ndarray
        Its memory is freed when the last array over it is gone, here and in the workers. Under an engine whose
        workers share the program's memory it is an ordinary array.

    Raises
    ------
    InvalidArgumentError
        For elements that are Python objects.
    StoreFullError

    Examples
    --------
    >>> import manyhands as mh
    >>> grid = mh.empty((1000, 1000))
    >>> grid[:] = 1
    >>> float(mh.submit(lambda part: part.sum(), grid[:10]).result())
    10000.0
    """
    import numpy as np

    kind = np.dtype(dtype)
    if kind.hasobject:
        raise InvalidArgumentError(
            f"dtype={dtype!r}: Python objects cannot be shared; use numbers, or texts of a fixed length"
        )
    probe = np.broadcast_to(np.empty((), kind), shape)  # checks the shape, and takes no room
    buffer = get_session().allocate(probe.nbytes) if probe.nbytes else None
    if buffer is None:
        return np.empty(shape, kind, order=order)
    return np.ndarray(probe.shape, kind, buffer=buffer, order=order)


def zeros(
    shape: int | tuple[int, ...], dtype: DTypeLike = float, *, order: Literal["C", "F"] = "C"
) -> np.ndarray[Any, Any]:
    """As `empty`, with all elements zero.

    Examples
    --------
    A stencil: every call reads the old grid and writes its rows of the new one, and nothing is sent.

    >>> import manyhands as mh
    >>> old, new = mh.zeros((1000, 100)), mh.zeros((1000, 100))
    >>> old[500] = 1
    >>> def smooth(source, target, first, last):
    ...     target[first:last] = (source[first - 1 : last - 1] + source[first + 1 : last + 1]) / 2
    >>> target = mh.put(new, writable=True)
    >>> parts = [(1, 500), (500, 999)]
    >>> _ = mh.gather([mh.submit(smooth, old, target, *part) for part in parts])
    >>> new[499:502, 0].tolist()
    [0.5, 0.0, 0.5]
    """
    array = empty(shape, dtype, order=order)
    array.fill(0)
    return array


def array(values: ArrayLike, dtype: DTypeLike | None = None) -> np.ndarray[Any, Any]:
    """As `empty`, with a copy of `values`, as `numpy.array` makes it.

    Examples
    --------
    >>> import manyhands as mh
    >>> mh.array([1, 2, 3]).dtype.kind
    'i'
    """
    import numpy as np

    source = np.asarray(values, dtype)
    is_fortran = source.flags.f_contiguous and not source.flags.c_contiguous
    shared = empty(source.shape, source.dtype, order="F" if is_fortran else "C")
    shared[...] = source
    return shared
