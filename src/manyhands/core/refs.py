"""Refs: handles of values that are stored once, with the workers, and read by any number of calls."""

from __future__ import annotations

from manyhands.core.parcels import packing, take_ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, TypeVar

    from manyhands.core.roles import Keeper

    T_co = TypeVar("T_co", covariant=True)
else:

    class Generic:
        """Stands for `typing.Generic`, whose import takes 10 ms."""

        __slots__ = ()

        def __class_getitem__(cls, _: object) -> type:
            return cls

    T_co = None


class Ref(Generic[T_co]):
    """The handle of a value that `put` stored; the value is freed when the last holder lets go of it.

    As an argument of a call, directly or inside lists, tuples and dicts, a ref stands for its value. Anywhere else
    (in an attribute, a closure, a result) it travels as the ref that it is. Two refs are equal if they are the same
    stored value, also in a worker.

    Examples
    --------
    >>> import manyhands as mh
    >>> ref = mh.put([3, 1, 2])
    >>> mh.submit(sorted, ref).result(), mh.submit(max, ref).result()
    ([1, 2, 3], 3)
    >>> ref.get()
    [3, 1, 2]
    """

    __slots__ = ("__weakref__", "record")

    def __init__(self, record: Record) -> None:
        self.record = record

    @property
    def id(self) -> int:
        """Its number in the session."""
        return self.record.id

    @property
    def type_name(self) -> str:
        """The class of the value, and of an array its elements and shape."""
        return self.record.type_name

    @property
    def nbytes(self) -> int:
        """Bytes of the value in the store; 0 where the engine keeps it as the object that it is."""
        return self.record.nbytes

    @property
    def place(self) -> str:
        """Where the value is: "memory", "disk", or "gone" after the session's end."""
        return self.record.keeper.locate(self.record)

    def get(self) -> T_co:
        """The value: its large buffers are read where they are, and nothing of them is copied.

        Returns
        -------
        object
            Arrays in it cannot be written, unless the value was put with ``writable=True``, which all see, or with
            ``copy=True``, which nobody else sees.

        Raises
        ------
        SessionClosedError
            The session that stored it has ended.
        """
        value: T_co = self.record.keeper.read(self.record)
        return value

    def __copy__(self) -> Ref[T_co]:
        return self

    def __deepcopy__(self, memo: object) -> Ref[T_co]:
        return self

    def __reduce__(self) -> Any:
        if packing.refs is None:
            raise TypeError(
                f"{self!r} means something in its session alone, so it cannot be pickled for elsewhere: pickle its "
                f"value, ref.get(). To a call it travels by itself."
            )
        packing.refs.append(self.record)
        return take_ref, (len(packing.refs) - 1,)

    def __repr__(self) -> str:
        return f"<Ref {self.id}: {self.type_name}, {self.record.keeper.describe(self.record)}>"


class Record:
    """What stands behind a ref, however many hold it: a call that waits holds the record, and no ref.

    Attributes
    ----------
    keeper
        Keeps the value.
    id
        Unique in the session.
    content
        What the keeper finds the value by.
    type_name, nbytes
        As of `Ref`.
    """

    __slots__ = ("__weakref__", "content", "id", "keeper", "nbytes", "type_name")

    def __init__(
        self, keeper: Keeper, number: int, content: Any, type_name: str, nbytes: int
    ) -> None:
        self.keeper = keeper
        self.id = number
        self.content = content
        self.type_name = type_name
        self.nbytes = nbytes


def name_type(value: object) -> str:
    """What reports call the kind of `value`: its class, and of an array its shape and elements."""
    kind = type(value)
    name = kind.__qualname__
    try:
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    except Exception:  # a property of the user's, or a view that was released
        return name
    if isinstance(shape, tuple) and dtype is not None:
        return f"{name} {dtype} {'x'.join(map(str, shape)) or '()'}"
    return f"{name} {'x'.join(map(str, shape))}" if isinstance(shape, tuple) and shape else name
