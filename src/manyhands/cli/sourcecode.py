"""What one Python file says about itself: lines, functions with their complexity, imports.

This is the work of ``manyhands demo``. It runs in the workers, so the module imports little and
:func:`examine_file` returns little: a few numbers and short strings for each file.

Complexity is McCabe's cyclomatic number (T. J. McCabe, "A Complexity Measure", IEEE Transactions
on Software Engineering SE-2(4), 1976, pp. 308-320). For a function it is the number of its
decisions plus one, where a compound condition counts each of its simple conditions and a
selection among n cases counts n - 1. In Python's terms these are the decisions:

====================================  =====================================================
construct                             decisions
====================================  =====================================================
``if``, ``elif``, ``x if c else y``   1
``for``, ``async for``, ``while``     1 (a loop's ``else`` adds none)
``except``, ``except*``               1 for each clause (``else`` and ``finally`` add none)
``assert``                            1 (it is ``if not c: raise AssertionError``)
``and``, ``or``                       1 for each operator
comprehension, generator expression   1 for each ``for`` and 1 for each ``if``
``case``                              1 unless its pattern matches everything; 1 for a guard;
                                      1 for each ``|`` in its pattern
====================================  =====================================================

No decisions: ``with``, ``try``, ``return``, ``raise``, ``break``, ``not``, a chained comparison
(one condition). A nested function is measured by itself and adds nothing to the one around it; a
lambda's decisions count for the function that it stands in. Decorators, default values and
annotations belong to the scope around the function. Code of modules and classes is not measured.
"""

import ast
import gc
import heapq
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

TOP = 10
"""Length of the lists of most complex functions and of most used imports."""


class FunctionFacts(NamedTuple):
    """One function: its qualified name, first line and cyclomatic complexity."""

    complexity: int
    name: str
    line: int


class FileFacts(NamedTuple):
    """What is kept of one file; a tuple of small values, so that little data moves."""

    lines: int
    functions: int
    most_complex: tuple[FunctionFacts, ...]
    """The `TOP` most complex functions of this file, enough to know those of all files."""
    imports: tuple[str, ...]
    """Top-level modules that the file imports absolutely, sorted, each once."""
    problem: str | None = None
    """Why the file could not be parsed; everything but `lines` is empty then."""


class RankedFunction(NamedTuple):
    """A function in the list over all files."""

    complexity: int
    name: str
    path: str
    line: int


@dataclass(frozen=True)
class Summary:
    """The answer over all files."""

    files: int
    lines: int
    functions: int
    most_complex: list[RankedFunction]
    most_imported: list[tuple[str, int]]
    """Module and number of files that import it, most used first."""
    unparsed: list[tuple[str, str]]
    """Path and reason, sorted by path."""


FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class _Scope:
    """Where decisions are counted: a function, or a module or class (whose count is not used)."""

    __slots__ = ("decisions", "line", "name")

    def __init__(self, name: str = "", line: int = 0) -> None:
        self.name = name
        self.line = line
        self.decisions = 0


def examine_file(path: str) -> FileFacts:
    """Read and parse one file. Never raises for what the file holds.

    A file that cannot be read or parsed has `FileFacts.problem` set.
    """
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        return FileFacts(0, 0, (), (), f"{type(error).__name__}: {error.strerror}")
    with _pause_gc():
        return examine_source(source)


def examine_source(source: bytes) -> FileFacts:
    """Examine the text of one file, given as bytes so that its coding cookie counts."""
    lines = len(source.splitlines())
    try:
        with warnings.catch_warnings():
            # The parser warns about invalid escapes and the like: not our reader's business.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    # ValueError: null bytes; the last two: nesting deeper than the parser can follow.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return FileFacts(lines, 0, (), (), _describe_problem(error))
    functions, imports = examine_tree(tree)
    return FileFacts(
        lines=lines,
        functions=len(functions),
        most_complex=tuple(heapq.nsmallest(TOP, functions, key=_rank_in_file)),
        imports=tuple(sorted(imports)),
    )


def examine_tree(tree: ast.Module) -> tuple[list[FunctionFacts], set[str]]:
    """Walk a tree once: its functions, in no particular order, and its absolute imports."""
    scopes: list[_Scope] = []
    imports: set[str] = set()
    # A stack of our own, since a tree may be nested deeper than Python's recursion limit.
    stack: list[tuple[ast.AST, _Scope]] = [(tree, _Scope())]
    while stack:
        node, scope = stack.pop()
        kind = type(node)
        if kind in _FUNCTIONS or kind is ast.ClassDef:
            inner = _open_scope(node, scope)
            if kind in _FUNCTIONS:
                scopes.append(inner)
            for name in node._fields:
                _push(stack, getattr(node, name, None), inner if name == "body" else scope)
            continue
        if kind in _DECIDING:
            scope.decisions += count_decisions(node)
        elif kind in _IMPORTS:
            imports.update(_list_imports(node))
            continue
        for name in node._fields:
            _push(stack, getattr(node, name, None), scope)
    return [FunctionFacts(s.decisions + 1, s.name, s.line) for s in scopes], imports


def count_decisions(node: ast.AST) -> int:
    """Count the decisions of one node alone, without its children (table: module docstring)."""
    match node:
        case ast.If() | ast.IfExp() | ast.Assert() | ast.ExceptHandler():
            return 1
        case ast.For() | ast.AsyncFor() | ast.While():
            return 1
        case ast.BoolOp():
            return len(node.values) - 1
        case ast.comprehension():
            return 1 + len(node.ifs)
        case ast.match_case():
            return (not _matches_everything(node.pattern)) + (node.guard is not None)
        case ast.MatchOr():
            return len(node.patterns) - 1
        case _:
            return 0


def summarize(paths: Sequence[str], facts: Sequence[FileFacts]) -> Summary:
    """Join the facts of all files. Cheap, and the same for every order of the files.

    Parameters
    ----------
    paths, facts
        Of equal length; ``facts[i]`` belongs to ``paths[i]``.
    """
    imports = Counter(module for fact in facts for module in fact.imports)
    return Summary(
        files=len(facts),
        lines=sum(fact.lines for fact in facts),
        functions=sum(fact.functions for fact in facts),
        most_complex=heapq.nsmallest(TOP, _rank(paths, facts), key=_rank_overall),
        most_imported=heapq.nsmallest(TOP, imports.items(), key=lambda item: (-item[1], item[0])),
        unparsed=sorted(
            (path, fact.problem)
            for path, fact in zip(paths, facts, strict=True)
            if fact.problem is not None
        ),
    )


_FUNCTIONS = frozenset({ast.FunctionDef, ast.AsyncFunctionDef})
_IMPORTS = frozenset({ast.Import, ast.ImportFrom})
_DECIDING = frozenset(
    {
        ast.If,
        ast.IfExp,
        ast.For,
        ast.AsyncFor,
        ast.While,
        ast.ExceptHandler,
        ast.Assert,
        ast.BoolOp,
        ast.comprehension,
        ast.match_case,
        ast.MatchOr,
    }
)
# More than half of all nodes, without children that could hold a decision or an import; and what
# lists of nodes hold besides nodes: names (``global``), None (a keyword without a default).
_LEAVES = frozenset({ast.Name, ast.Constant, ast.Load, ast.Store, ast.Del, ast.alias, ast.Pass})
_LEAVES |= {str, type(None)}


def _push(stack: list[tuple[ast.AST, _Scope]], child: object, scope: _Scope) -> None:
    """Put a field's node or list of nodes on the stack; other values are not nodes."""
    if isinstance(child, list):
        stack.extend([(item, scope) for item in child if type(item) not in _LEAVES])
    elif isinstance(child, ast.AST) and type(child) not in _LEAVES:
        stack.append((child, scope))


def _open_scope(node: ast.AST, around: _Scope) -> _Scope:
    assert isinstance(node, FunctionNode | ast.ClassDef)
    return _Scope(f"{around.name}.{node.name}" if around.name else node.name, node.lineno)


def _list_imports(node: ast.AST) -> Iterator[str]:
    """Yield the top-level modules of one import statement; relative imports name none."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name.partition(".")[0]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield node.module.partition(".")[0]


def _matches_everything(pattern: ast.pattern) -> bool:
    """Tell whether a pattern is irrefutable: a name, ``_``, or one inside ``as`` or ``|``."""
    if isinstance(pattern, ast.MatchAs):
        return pattern.pattern is None or _matches_everything(pattern.pattern)
    if isinstance(pattern, ast.MatchOr):
        return any(map(_matches_everything, pattern.patterns))
    return False


def _describe_problem(error: Exception) -> str:
    kind = type(error).__name__
    if isinstance(error, SyntaxError):
        place = f" (line {error.lineno})" if error.lineno else ""
        return f"{kind}: {error.msg}{place}"
    return f"{kind}: {error}"


def _rank_in_file(function: FunctionFacts) -> tuple[int, int, str]:
    return (-function.complexity, function.line, function.name)


def _rank_overall(function: RankedFunction) -> tuple[int, str, int]:
    return (-function.complexity, function.path, function.line)


def _rank(paths: Iterable[str], facts: Iterable[FileFacts]) -> Iterator[RankedFunction]:
    for path, fact in zip(paths, facts, strict=True):
        for function in fact.most_complex:
            yield RankedFunction(function.complexity, function.name, path, function.line)


@contextmanager
def _pause_gc() -> Iterator[None]:
    """Keep the cycle collector away while a tree is built and dropped.

    A tree is thousands of objects without a cycle: collections find nothing. They take 4 to 8 %
    of the time in a fresh process and more in one that holds more objects, so that without this
    the plain loop's process and a worker would not do the same work.
    """
    if not gc.isenabled():
        yield  # whoever switched it off, another thread perhaps, will switch it on
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
