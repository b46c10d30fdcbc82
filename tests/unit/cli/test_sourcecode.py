"""The analysis of one file: complexity by the published definition, lines, imports, failures."""

import gc
import textwrap
import warnings
from pathlib import Path

import pytest

from manyhands.cli import sourcecode
from manyhands.cli.sourcecode import (
    FileFacts,
    FunctionFacts,
    RankedFunction,
    examine_file,
    examine_source,
    summarize,
)


def measure(source: str) -> dict[str, int]:
    """Complexity by function of a snippet."""
    facts = examine_source(textwrap.dedent(source).encode())
    assert facts.problem is None
    return {function.name: function.complexity for function in facts.most_complex}


@pytest.mark.parametrize(
    ("body", "decisions"),
    [
        ("pass", 0),
        ("if a: pass", 1),
        ("if a: pass\nelse: pass", 1),
        ("if a: pass\nelif b: pass\nelse: pass", 2),
        ("for x in a: pass", 1),
        ("for x in a: pass\nelse: pass", 1),
        ("while a: pass", 1),
        ("while True:\n  if a: break", 2),
        ("return a if b else c", 1),
        ("try: pass\nexcept A: pass\nexcept B: pass\nelse: pass\nfinally: pass", 2),
        ("try: pass\nfinally: pass", 0),
        ("try: pass\nexcept* A: pass", 1),
        ("with a as b: pass", 0),
        ("assert a, b", 1),
        ("if a and b: pass", 2),
        ("return a and b and c or d", 3),
        ("return not a", 0),
        ("return a < b < c", 0),
        ("return [x for x in a]", 1),
        ("return {x: y for x in a if b if c for y in x}", 4),
        ("return any(x for x in a if b or c)", 3),
        ("raise A(b)", 0),
        ("return lambda x: a if x else b", 1),
    ],
)
def test_decisions_of_each_construct(body: str, decisions: int) -> None:
    source = "def f(a, b, c, d):\n" + textwrap.indent(body, "  ")
    assert measure(source) == {"f": decisions + 1}


@pytest.mark.parametrize(
    ("cases", "decisions"),
    [
        (["1"], 1),
        (["1", "2"], 2),
        (["1", "2", "_"], 2),  # a selection among three: n - 1
        (["1 | 2", "_"], 2),
        (["1", "other"], 1),
        (["(1 | 2) as x", "_"], 2),
        (["1 if a", "_"], 2),
        (["x if a", "_"], 1),
        (["[1, *_]", "{'k': 2 | 3}"], 3),
        (["A(x=1)"], 1),
        (["1 | _"], 1),
    ],
)
def test_decisions_of_match(cases: list[str], decisions: int) -> None:
    lines = ["def f(a):", "  match a:", *(f"    case {case}: pass" for case in cases)]
    assert measure("\n".join(lines)) == {"f": decisions + 1}


def test_compound_condition_counts_as_nested_ones_do() -> None:
    # McCabe's own argument: IF (C1 AND C2) THEN is IF C1 THEN IF C2 THEN.
    compound = measure("def f(a, b):\n  if a and b: pass")
    nested = measure("def f(a, b):\n  if a:\n    if b: pass")
    assert compound == nested == {"f": 3}


def test_nested_functions_are_measured_by_themselves() -> None:
    source = """
        class A:
            x = 1 if __debug__ else 2
            def method(self, n=[i for i in range(3) if i]):
                if n: pass
                class B:
                    if n: y = 1
                async def inner():
                    async for i in n:
                        if i: pass
                return inner
        def outer():
            @decorate(1 or 2)
            def inner(a=3 or 4): return a or 5
    """
    assert measure(source) == {
        "A.method": 2,
        "A.method.inner": 3,
        "outer": 3,  # the decorator and the default value run in it
        "outer.inner": 2,
    }


def test_places_are_those_of_def() -> None:
    facts = examine_source(b"\n@decorate\ndef f(): pass\n")
    assert facts.most_complex == (FunctionFacts(1, "f", 3),)


def test_deep_nesting_needs_no_recursion() -> None:
    source = "def f(x):\n  return " + "+".join(["x"] * 900) + " and x"
    assert measure(source) == {"f": 2}


def test_only_the_most_complex_are_kept_but_all_are_counted() -> None:
    functions = [f"def f{n}():\n" + "  if 1: pass\n" * n + "  pass" for n in range(15)]
    facts = examine_source("\n".join(functions).encode())
    assert facts.functions == 15
    assert [function.complexity for function in facts.most_complex] == list(range(15, 5, -1))


def test_imports_are_absolute_top_level_and_named_once() -> None:
    source = b"""\
import os.path, sys
from os import path
from . import sibling
from .cousin import thing
def f():
    import xml.dom as dom
"""
    assert examine_source(source).imports == ("os", "sys", "xml")


@pytest.mark.parametrize(
    ("source", "lines"),
    [(b"", 0), (b"x = 1", 1), (b"x = 1\n", 1), (b"\n\n", 2), (b"x = 1\r\ny = 2\r\n", 2)],
)
def test_lines(source: bytes, lines: int) -> None:
    assert examine_source(source) == FileFacts(lines, 0, (), ())


def test_coding_cookie_counts() -> None:
    source = "# coding: latin-1\ndef caf\u00e9(): pass\n".encode("latin-1")
    assert examine_source(source).most_complex[0].name == "caf\u00e9"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"x = 1\nprint 'hello'\n", "SyntaxError: Missing parentheses"),
        (b"x = 1\nx = \xff\n", "SyntaxError: (unicode error)"),
        (b"# coding: nonsense\n", "SyntaxError: unknown encoding: nonsense"),
        (b"x = 1\0\n", "null bytes"),
        (b"(" * 1000 + b")" * 1000, "SyntaxError: too many nested parentheses"),
    ],
)
def test_source_that_does_not_parse(source: bytes, words: str) -> None:
    facts = examine_source(source)
    assert facts.problem is not None
    assert words in facts.problem
    assert facts == FileFacts(len(source.splitlines()), 0, (), (), facts.problem)


def test_problem_names_the_line() -> None:
    problem = examine_source(b"x = 1\n)\n").problem
    assert problem is not None
    assert problem.endswith("(line 2)")


def test_parser_recursion_is_a_problem_not_an_error() -> None:
    problem = examine_source(b"-" * 100_000 + b"1").problem
    assert problem is not None
    assert problem.startswith(("MemoryError", "RecursionError", "SyntaxError"))


def test_parser_warnings_are_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert examine_source(b"x = '\\d'\ny = 1 is 1\n").problem is None


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    facts = examine_file(str(tmp_path / "absent.py"))
    assert facts == FileFacts(0, 0, (), (), "FileNotFoundError: No such file or directory")


def test_file_is_examined_without_gc_and_gc_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        sourcecode, "examine_source", lambda source: seen.append((source, gc.isenabled()))
    )
    path = tmp_path / "x.py"
    path.write_bytes(b"x = 1\n")
    examine_file(str(path))
    assert seen == [(b"x = 1\n", False)]
    assert gc.isenabled()


def test_summary_joins_files_in_any_order() -> None:
    one = FileFacts(10, 2, (FunctionFacts(5, "f", 1), FunctionFacts(1, "g", 4)), ("os", "sys"))
    two = FileFacts(20, 1, (FunctionFacts(5, "h", 7),), ("os", "ast"))
    bad = FileFacts(3, 0, (), (), "SyntaxError: no")
    summary = summarize(["b.py", "a.py", "c.py"], [one, two, bad])
    assert summary == summarize(["c.py", "a.py", "b.py"], [bad, two, one])
    assert (summary.files, summary.lines, summary.functions) == (3, 33, 3)
    assert summary.most_complex == [
        RankedFunction(5, "h", "a.py", 7),
        RankedFunction(5, "f", "b.py", 1),
        RankedFunction(1, "g", "b.py", 4),
    ]
    assert summary.most_imported == [("os", 2), ("ast", 1), ("sys", 1)]
    assert summary.unparsed == [("c.py", "SyntaxError: no")]


def test_summary_of_nothing() -> None:
    summary = summarize([], [])
    assert (summary.files, summary.most_complex, summary.most_imported) == (0, [], [])
