"""Modules of the package, loaded a second time, for whom the world outside is another one."""

from __future__ import annotations

import builtins
import importlib.util
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class Family:
    """A private copy of some modules; what they import is the copy, a stand-in, or the module itself.

    The code is that of the package, whatever becomes of it. Sessions of the program that use the modules themselves
    notice nothing.

    Parameters
    ----------
    members
        Names of modules that are copied; one that ends with a point stands for all below it.
    shared
        Names of modules below those that are not copied.
    replaced
        What stands in for modules, by their names. A name that begins with a member's is no member then.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> clock = SimpleNamespace(monotonic=lambda: 7.0)
    >>> family = Family({"manyhands.core.timers"}, set(), {"time": clock})
    >>> family.load("manyhands.core.timers").monotonic()
    7.0
    """

    def __init__(self, members: set[str], shared: set[str], replaced: Mapping[str, object]) -> None:
        self._members = members
        self._shared = shared
        self._replaced = replaced
        self._copies: dict[str, ModuleType] = {}
        self._found: dict[
            tuple[str, tuple[str, ...]], Any
        ] = {}  # by imports at first use, of which there are many
        self._loading = 0
        self._builtins = {**vars(builtins), "__import__": self._import}

    def load(self, name: str) -> Any:
        """The copy of a member, or what stands in for a module, or the module."""
        if name in self._replaced:
            return self._replaced[name]
        if not self._is_member(name):
            return import_module(name)
        copy = self._copies.get(name)
        if copy is None:
            copy = self._copies[name] = self._copy(name)
        return copy

    def _is_member(self, name: str) -> bool:
        if name in self._shared:
            return False
        return name in self._members or f"{name.rpartition('.')[0]}." in self._members

    def _copy(self, name: str) -> ModuleType:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        loader: Any = spec.loader
        code = loader.get_code(name)
        copy = ModuleType(name)
        copy.__dict__.update(__builtins__=self._builtins, __file__=spec.origin)
        self._copies[name] = copy
        self._loading += 1
        try:
            exec(code, copy.__dict__)
        except BaseException:
            del self._copies[name]
            raise
        finally:
            self._loading -= 1
        return copy

    def _import(
        self,
        name: str,
        namespace: Mapping[str, object] | None = None,
        local: Mapping[str, object] | None = None,
        names: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> Any:
        """What an ``import`` statement in a copy gives."""
        key = name, names or ()
        found = self._found.get(key)
        if found is None:
            found = self._find(name, namespace, local, names, level)
            if not self._loading:
                self._found[key] = found
        return found

    def _find(
        self,
        name: str,
        namespace: Mapping[str, object] | None,
        local: Mapping[str, object] | None,
        names: tuple[str, ...] | None,
        level: int,
    ) -> Any:
        if not level and (name in self._replaced or self._is_member(name)):
            return self.load(name)
        found = __import__(name, namespace, local, names or (), level)
        for one in names or ():
            inner = f"{name}.{one}"
            if inner in self._replaced or self._is_member(inner):
                return SimpleNamespace(
                    **{each: self._find_in(name, each, found) for each in names or ()}
                )
        return found

    def _find_in(self, package: str, name: str, found: object) -> object:
        inner = f"{package}.{name}"
        if inner in self._replaced or self._is_member(inner):
            return self.load(inner)
        return getattr(found, name)
