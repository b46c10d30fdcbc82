"""How the nodes of a graph are to be run: what users say by annotations and by keywords of `compute`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask import config

from manyhands.core.model import DEFAULT_OPTIONS, CallOptions
from manyhands.core.options import make_options
from manyhands.errors import InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACES = ("threads", "workers")
"""Where nodes run: threads of this process, which share its memory, or the session's workers."""

_OPTIONS = ("retries", "priority", "resources")


class Wishes:
    """What is asked for.

    Parameters
    ----------
    keywords
        Those of `compute` or `persist`; what is not known here is for others, as with Dask's own schedulers.
    annotations
        Of Dask: what is said of keys, by the name of the annotation.

    Attributes
    ----------
    on : str or None
        One of `PLACES`.
    num_workers : int or None
        How many nodes may run at a time, where that is less than the session has workers.
    callbacks : list or None
        Dask's, where they are given; else those that are active count.
    names_resources : bool
        Whether any node holds named resources, of which only the session knows how many there are.

    Raises
    ------
    InvalidArgumentError, UnsupportedError
    """

    def __init__(
        self, keywords: Mapping[str, Any], annotations: Mapping[str, Mapping[Any, Any]]
    ) -> None:
        self.on = keywords.get("on")
        self.num_workers = keywords.get("num_workers")
        if self.num_workers is None:
            self.num_workers = config.get("num_workers", None)
        self.callbacks = keywords.get("callbacks")
        _refuse_places({*keywords, *annotations})
        self._common = {name: keywords[name] for name in _OPTIONS if name in keywords}
        if self.on is not None and self.on not in PLACES:
            raise InvalidArgumentError(f"on={self.on!r}: it is one of {', '.join(PLACES)}")
        if self.num_workers is not None and self.num_workers < 1:
            raise InvalidArgumentError(f"num_workers={self.num_workers!r}: at least one is needed")
        self._own: dict[Any, dict[str, Any]] = {}
        for name in _OPTIONS:
            for key, value in annotations.get(name, {}).items():
                self._own.setdefault(key, {})[name] = value
        self.names_resources = "resources" in self._common or "resources" in annotations
        self._default = _make_options(self._common)

    def get(self, key: Any) -> CallOptions:
        """The options of a node."""
        own = self._own.get(key)
        return self._default if own is None else _make_options({**self._common, **own})

    def has_own(self, key: Any) -> bool:
        """Whether anything is said of this very node."""
        return key in self._own


def _refuse_places(names: set[str]) -> None:
    refused = sorted(names & {"workers", "allow_other_workers"})
    if refused:
        raise UnsupportedError(
            f"{', '.join(refused)}: a session chooses itself which of its workers runs a node. Use "
            f"resources= for what only some may hold, or Dask's own distributed scheduler"
        )


def _make_options(options: Mapping[str, Any]) -> CallOptions:
    if not options:
        return DEFAULT_OPTIONS
    found = dict(options)
    priority = found.get("priority")
    if isinstance(priority, float) and priority.is_integer():
        found["priority"] = int(priority)
    return make_options({name: value for name, value in found.items() if value is not None})
