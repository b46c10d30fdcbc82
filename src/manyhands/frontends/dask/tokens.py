"""The names by which Dask tells our futures and refs apart, in graphs whose own names come from what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from dask.tokenize import normalize_token

from manyhands.core.future import Future
from manyhands.core.refs import Ref

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_tokens: MutableMapping[Any, str] = WeakKeyDictionary()


@normalize_token.register((Future, Ref))  # type: ignore[untyped-decorator]
def _name(handle: Any) -> str:
    """Chance makes it, for an id comes again, and a graph may outlive the future that it was computed from."""
    return _tokens.setdefault(handle, uuid4().hex)
