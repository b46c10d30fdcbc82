"""The options that every kind of map takes."""

from __future__ import annotations

from typing import TypedDict


class MapOptions(TypedDict, total=False):
    """Keyword options of a map beside ``on_error``; `manyhands.map` describes them."""

    batch: int | None
    progress: bool
    retries: int
    retry_on: tuple[type[BaseException], ...] | type[BaseException]


class RunOptions(MapOptions, total=False):
    """All keyword options of a map."""

    on_error: str
