"""Which modules a worker can import as this process has them, and which must travel by value."""

from __future__ import annotations

import os
import sys
import time
from types import CodeType, FunctionType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator
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
        """Whether the file is another than the one that was imported."""
        if not origin.endswith(".py"):
            return False
        try:
            status = os.stat(origin)
        except OSError:
            return True
        stamp = (status.st_mtime_ns, status.st_size)
        spec, known = _stamps.get(module.__name__, (None, None))
        if spec is not None and spec is module.__spec__:  # a reload makes another spec
            return known != stamp
        is_old = status.st_mtime < self._process_start - _MTIME_SLACK
        is_changed = not is_old and _differs(module, origin)
        _stamps[module.__name__] = (module.__spec__, None if is_changed else stamp)
        return is_changed


_stamps: dict[str, tuple[Any, tuple[int, int] | None]] = {}
"""Per module, its spec and the stamp (time in ns, size) of the file that it was imported from; None where the file
had changed before anybody looked."""


def _differs(module: ModuleType, origin: str) -> bool:
    """Whether the source now has other functions or constants than the module, which may be older."""
    import ast

    try:
        with open(origin, "rb") as file:
            source = file.read()
        compiled = compile(source, origin, "exec", dont_inherit=True)
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, SystemError):
        return True  # the last is Python 3.11's, where two threads parse at once
    codes = {code.co_qualname: code for code in _iterate_codes(compiled)}
    own = [code for code in _iterate_own_codes(module) if code.co_filename == origin]
    if any(code != codes.get(code.co_qualname) for code in own):
        return True
    return any(
        type(value) is not type(vars(owner).get(name)) or value != vars(owner)[name]
        for owner, name, value in _iterate_constants(module, tree)
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


def _iterate_own_codes(owner: ModuleType | type) -> Iterator[CodeType]:
    """The code of the functions, methods and properties that a module or class itself defines."""
    home = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
    for member in list(vars(owner).values()):
        if getattr(member, "__module__", home) != home:
            continue
        if isinstance(member, type) and member is not owner:
            yield from _iterate_own_codes(member)
        for function in _unwrap(member):
            yield function.__code__


def _unwrap(member: Any) -> Iterator[FunctionType]:
    """The functions behind a function, a method or a property, and behind decorators that say what they wrap."""
    if isinstance(member, property):
        candidates = [member.fget, member.fset, member.fdel]
    else:
        candidates = [getattr(member, "__func__", member)]
    for candidate in candidates:
        found: Any = candidate
        while found is not None:
            if isinstance(found, FunctionType):
                yield found
            found = getattr(found, "__wrapped__", None)


def _iterate_constants(
    owner: ModuleType | type, tree: ast.Module | ast.ClassDef
) -> Iterator[tuple[ModuleType | type, str, Any]]:
    """Names that the source gives a literal value, once, in a module and in its classes; each with its owner."""
    import ast

    values: dict[str, list[Any]] = {}
    variable = {
        name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and isinstance(vars(owner).get(node.name), type):
            yield from _iterate_constants(vars(owner)[node.name], node)
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        try:
            value = ast.literal_eval(node.value)
        except ValueError:
            continue
        if isinstance(value, (list, dict, set)):  # meant to change
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name) and not target.id.startswith("__"):
                values.setdefault(target.id, []).append(value)
    yield from (
        (owner, name, found[0])
        for name, found in values.items()
        if len(found) == 1 and name not in variable
    )
