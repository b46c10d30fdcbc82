"""What is done once joblib has been imported: it learns the name of our backend.

joblib has no entry points: it knows the backends that somebody has entered into its table. Whoever imports manyhands
shall be able to name ours, before or after importing joblib, and so shall every worker, in which calls may make
parallel calls themselves. Importing joblib for that would cost a program that does not use it a tenth of a second, so
we wait for somebody else to do it: a finder at the head of `sys.meta_path` lets the others find `joblib.parallel`, and
has its loader call us afterwards. Then it takes itself away.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

NAME = "manyhands"
"""What joblib calls our backend."""

_TABLE = "joblib.parallel"
"""The module with the table."""


def await_joblib() -> None:
    """Enter our backend into joblib's table: now, if joblib is loaded, else when it is."""
    loaded = sys.modules.get(_TABLE)
    if loaded is not None:
        _enter(loaded)
    else:
        sys.meta_path.insert(0, _Finder())


def _enter(table: Any) -> None:
    from manyhands.core import place

    table.register_parallel_backend(NAME, _make_backend)
    if place.in_worker:
        # Processes that a worker starts are too many, and those of loky find none of the libraries that it found.
        table.register_parallel_backend("loky", _make_backend)


def _make_backend(**options: Any) -> Any:
    from manyhands.frontends.joblib import ManyhandsBackend

    return ManyhandsBackend(**options)


class _Finder:
    """Has the others find `joblib.parallel`, and sees that it is loaded by a `_Loader`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _TABLE:
            return None
        for finder in sys.meta_path:
            find: Any = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Loads a module as another loader would, which takes its place, and enters our backend."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # such as `get_source`, where nobody means to load it

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        _enter(module)
