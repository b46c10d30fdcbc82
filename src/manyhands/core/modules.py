"""Which modules a worker can import as this process has them, and which must travel by value."""

from __future__ import annotations

import os
import sys
import time
from types import CodeType, FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

_MTIME_SLACK = 2.0
"""Seconds by which a file's time may lie before the process's start and still count as later: file systems
round, and clocks of network file systems differ."""


class ModuleSurvey:
    """Answers, module by module, whether its classes and functions travel by value; asks the disk once each.

    By value travels what a worker would not find under the same name: ``__main__``, a module that no finder
    finds (a notebook's, one that a test runner or `exec` made), a module that another file shadows, and a module
    whose file was changed since this process imported it, because the worker would import the changed one.

    Examples
    --------
    >>> survey = ModuleSurvey()
    >>> survey.travels_by_value("json"), survey.travels_by_value("__main__")
    (False, True)
    """

    def __init__(self) -> None:
        self._answers: dict[str, bool] = {"__main__": True, "builtins": False}
        self._process_start = find_process_start()

    def travels_by_value(self, name: str) -> bool:
        """Whether what the module of this name defines travels by value."""
        answer = self._answers.get(name)
        if answer is None:
            answer = self._answers[name] = self._survey(name)
        return answer

    def _survey(self, name: str) -> bool:
        module = sys.modules.get(name)
        if module is None:
            return False  # plain pickle imports it by name here too, or fails with a clear error
        origin = getattr(module, "__file__", None)
        if origin is None:
            spec = getattr(module, "__spec__", None)
            builtin = name in sys.builtin_module_names or getattr(spec, "origin", None) in (
                "frozen",
                "built-in",
            )
            return not builtin and _find_origin(name) is None and not hasattr(module, "__path__")
        found = _find_origin(name)
        if found is None or not _is_same_file(found, origin):
            return True
        return self._is_changed(module, origin)

    def _is_changed(self, module: ModuleType, origin: str) -> bool:
        """Whether the file differs from what was imported; cheap for all that is older than this process."""
        if not origin.endswith(".py"):
            return False
        try:
            if os.stat(origin).st_mtime < self._process_start - _MTIME_SLACK:
                return False
            with open(origin, "rb") as file:
                on_disk = compile(file.read(), origin, "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError):
            return True
        codes = {code.co_qualname: code for code in _iterate_codes(on_disk)}
        return any(
            function.__code__ != codes.get(function.__code__.co_qualname)
            for function in _iterate_functions(module)
            if function.__code__.co_filename
            == origin  # not what dataclass, namedtuple or exec made up
        )


def find_process_start() -> float:
    """Seconds since the epoch at which this process started; 0 where the system does not tell."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/uptime", "rb") as file:
            uptime = float(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def needs_site() -> bool:
    """Whether finders are at work that only ``site`` installs, as editable installs do by a ``.pth`` file."""
    return any(
        type(finder).__module__.startswith("__editable__")
        or getattr(finder, "__module__", "").startswith("__editable__")
        for finder in sys.meta_path
    )


def _find_origin(name: str) -> str | None:
    """The file that an import of `name` would load now, not what is loaded."""
    package, _, _ = name.rpartition(".")
    path = None
    if package:
        parent = sys.modules.get(package)
        path = getattr(parent, "__path__", None)
        if path is None or (_find_origin(package) is None and getattr(parent, "__file__", None)):
            return None
    for finder in sys.meta_path:
        find_spec: Any = getattr(finder, "find_spec", None)
        try:
            spec = find_spec(name, path, None) if find_spec is not None else None
        except Exception:  # another library's finder; the next may know
            continue
        if spec is not None:
            return spec.origin or "namespace package"
    return None


def _is_same_file(found: str, loaded: str) -> bool:
    if found == loaded or found in ("frozen", "built-in"):
        return True
    try:
        return os.path.samefile(found, loaded)
    except OSError:
        return os.path.splitext(found)[0] == os.path.splitext(loaded)[0]


def _iterate_codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _iterate_codes(constant)


def _iterate_functions(module: ModuleType) -> Iterator[FunctionType]:
    """The functions and methods that the module itself defines."""
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, type):
            yield from (
                member for member in vars(value).values() if isinstance(member, FunctionType)
            )
        elif isinstance(value, FunctionType):
            yield value
