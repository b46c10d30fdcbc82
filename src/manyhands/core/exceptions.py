"""A user's exception on its way home: as itself where possible, with the traceback of where it was raised.

Used on both sides of a process boundary; importing it loads C modules alone.
"""

from __future__ import annotations

import os
from _pickle import dumps, loads

from manyhands.core import place
from manyhands.core.serialize import PROTOCOL, dump_alone
from manyhands.errors import ManyhandsError, RemoteError, UnpicklableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any


def pack_exception(error: BaseException, *, skip: int = 0) -> bytes:
    """Bytes for `unpack_exception`; never fails.

    Parameters
    ----------
    error
        Caught, with its traceback.
    skip
        Frames of our own at the outer end of its traceback, left out of the text.
    """
    note = None
    if not isinstance(
        error, ManyhandsError
    ):  # ours say all in their message, and our frames help nobody
        note = f"{_HEAD} {os.getpid()}:\n{_format(error, skip)}"
        if place.in_worker and _is_about_writing(error):
            note += f"\n\n{_READ_ONLY_HINT}"
    chain = (_pack_one(error), _pack_linked(error.__cause__), _pack_linked(error.__context__))
    return dumps((chain, error.__suppress_context__, note), PROTOCOL)


def unpack_exception(payload: bytes) -> BaseException:
    """The exception that `pack_exception` packed, with its remote traceback as a note."""
    return rebuild_exception(loads(payload))


def rebuild_exception(unpickled: tuple[Any, ...]) -> BaseException:
    """The same of what `pack_exception` packed and something else has unpickled."""
    (packed, cause, context), suppress, note = unpickled
    error = _unpack_one(packed)
    if cause is not None:
        error.__cause__ = _unpack_one(cause)
    if context is not None:
        error.__context__ = _unpack_one(context)
    error.__suppress_context__ = suppress
    if note is not None:
        error.add_note(note)
    return error


def adapt_exception(
    error: BaseException, make_cause: Callable[[str], BaseException]
) -> BaseException:
    """The exception as the pools of the standard library have it.

    What pickling an argument has raised comes as itself, and says where that was by a note; the remote traceback is
    its cause, and no note.

    Parameters
    ----------
    error
    make_cause
        Of the traceback's text.
    """
    if isinstance(error, UnpicklableError) and error.__cause__ is not None:
        for note in (str(error), *_get_notes(error)):
            error.__cause__.add_note(note)
        return error.__cause__
    if error.__cause__ is None:
        notes = _get_notes(error)
        for index, note in enumerate(notes):
            if isinstance(note, str) and note.startswith(_HEAD):
                error.__cause__ = make_cause(f'\n"""\n{notes.pop(index)}\n"""')
                break
    return error


def _get_notes(error: BaseException) -> list[str]:
    notes: list[str] = getattr(error, "__notes__", [])
    return notes


_HEAD = "Traceback in worker process"

_READ_ONLY_HINT = (
    "What a worker gets of its caller's arrays is shared with others and can only be read. Change a copy "
    "(x = x.copy()), or have it put with mh.put(x, copy=True), which gives every call a private copy, or "
    "mh.put(x, writable=True), whose changes all see."
)


def _is_about_writing(error: BaseException) -> bool:
    text = _safe_str(error)
    is_of_kind = isinstance(error, (ValueError, TypeError, BufferError))
    return (
        is_of_kind
        and not isinstance(error, OSError)
        and any(word in text for word in ("read-only", "readonly", "not writable", "not writeable"))
    )


def _pack_linked(error: BaseException | None) -> Any:
    return None if error is None else _pack_one(error)


def _pack_one(error: BaseException) -> tuple[Any, ...]:
    """The first way to send `error` that arrives: whole, piece by piece, or as a stand-in."""
    try:
        whole = dump_alone(error)
        rebuilt = loads(whole)
        # An __init__ that makes a message of its arguments makes another one of its own args.
        if (
            type(rebuilt) is type(error)
            and rebuilt.args == error.args
            and str(rebuilt) == str(error)
        ):
            return ("whole", whole)
    except Exception:
        pass  # a class whose __init__ does not take its own args, or a value inside that does not pickle
    try:
        kind = dump_alone(type(error))
        pieces = (kind, _keep_picklable(error.args), _keep_picklable_state(error.__dict__))
        _rebuild(*pieces)
    except Exception:
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        return ("stand-in", name, _safe_str(error))
    return ("pieces", *pieces)


def _unpack_one(packed: tuple[Any, ...]) -> BaseException:
    form, *rest = packed
    try:
        if form == "whole":
            error: BaseException = loads(rest[0])
            return error
        if form == "pieces":
            return _rebuild(*rest)
    except Exception as failure:
        stand_in = RemoteError(f"the exception could not be rebuilt here: {failure!r}")
        stand_in.type_name = "unknown"
        return stand_in
    stand_in = RemoteError(f"{rest[0]}: {rest[1]}")
    stand_in.type_name = rest[0]
    return stand_in


def _rebuild(kind: bytes, args: list[bytes | str], state: dict[str, bytes | str]) -> BaseException:
    """An exception made without its ``__init__``, which may ask for other arguments than ``args``."""
    cls = loads(kind)
    values = tuple(loads(a) if isinstance(a, bytes) else a for a in args)
    error: BaseException = cls.__new__(cls, *values)
    error.args = values
    error.__dict__.update({k: loads(v) if isinstance(v, bytes) else v for k, v in state.items()})
    return error


def _keep_picklable(values: tuple[Any, ...]) -> list[bytes | str]:
    return [_dump_or_describe(value) for value in values]


def _keep_picklable_state(state: dict[str, Any]) -> dict[str, bytes | str]:
    return {name: _dump_or_describe(value) for name, value in state.items()}


def _dump_or_describe(value: object) -> bytes | str:
    try:
        payload = dump_alone(value)
        loads(payload)
    except Exception:
        return f"<{_safe_str(value)}: could not travel>"
    return payload


def _safe_str(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__qualname__} whose __str__ fails>"


def _format(error: BaseException, skip: int) -> str:
    import traceback

    frames: TracebackType | None = error.__traceback__
    for _ in range(skip):
        if frames is not None and frames.tb_next is not None:
            frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frames)).rstrip()
    except Exception as failure:  # a user's __str__ or __repr__ can raise anything
        return f"{type(error).__qualname__} (its traceback could not be formatted: {failure!r})"
