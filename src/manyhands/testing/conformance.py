"""The conformance suite: what every engine must do, whoever wrote it.

It knows of no test runner. With pytest an engine is tested by one function::

    import manyhands as mh
    import pytest
    from manyhands.testing.conformance import Case, list_cases, run_case

    @pytest.mark.parametrize("case", list_cases(), ids=str)
    def test_my_engine(case: Case) -> None:
        run_case(case, lambda **options: mh.Session("myengine", **options))

A case whose needs the engine declares missing is not run, and `run_case` says so. The workers have to see the
files of this machine, since calls show by files how often they ran. Waits have limits, 30 s each unless the
environment variable ``MANYHANDS_CASE_SECONDS`` says otherwise, but a map has none: give the test runner a time limit
too.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from manyhands.testing.case import REGISTER, Case, Need, OpenSession

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Case",
    "Need",
    "OpenSession",
    "Outcome",
    "find_missing",
    "list_cases",
    "run_all",
    "run_case",
]

_GROUPS = (
    "results",
    "errors",
    "retries",
    "attempts",
    "dependencies",
    "refs",
    "waiting",
    "cancellation",
    "interruption",
    "timeouts",
    "streams",
    "generators",
    "coroutines",
    "nesting",
    "joining",
    "scheduling",
    "resources",
    "actors",
    "actor_deaths",
    "crashes",
    "output",
    "sessions",
    "luggage",
    "worker_life",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case.

    Attributes
    ----------
    case
    missing
        Capabilities that the engine lacks, for which the case was not run; empty where it was.
    error
        What went wrong; None where nothing did.
    """

    case: Case
    missing: tuple[Need, ...] = ()
    error: BaseException | None = None

    @property
    def passed(self) -> bool:
        """Whether the case was run and held."""
        return not self.missing and self.error is None

    def __str__(self) -> str:
        if self.missing:
            return f"{self.case}: not run, the engine lacks {', '.join(self.missing)}"
        return f"{self.case}: {'passed' if self.error is None else repr(self.error)}"


def list_cases() -> list[Case]:
    """Every case, simple ones first.

    Examples
    --------
    >>> len({case.name for case in list_cases()}) == len(list_cases()) > 80
    True
    """
    for group in _GROUPS:
        import_module(f"manyhands.testing.cases.{group}")
    return list(REGISTER)


def run_case(case: Case, open_session: OpenSession) -> tuple[Need, ...]:
    """Run one case.

    Parameters
    ----------
    case
    open_session
        Opens a session on the engine under test with the options that it is given; called several times.

    Returns
    -------
    tuple of str
        What the engine lacks that the case needs; the case was run only where this is empty.

    Raises
    ------
    AssertionError
        The engine does not do what the case asks for.
    Exception
        It raised something else.

    Examples
    --------
    >>> import manyhands as mh
    >>> run_case(list_cases()[0], lambda **options: mh.Session("threads", **options))
    ()
    """
    missing = find_missing(case.needs, open_session) if case.needs else ()
    if not missing:
        case.run(open_session)
    return missing


def run_all(open_session: OpenSession, cases: Iterable[Case] | None = None) -> list[Outcome]:
    r"""Run many cases, go on after a failure, and tell what became of each.

    Parameters
    ----------
    open_session
        As in `run_case`.
    cases
        All of them where left out.

    Examples
    --------
    >>> import manyhands as mh
    >>> outcomes = run_all(lambda **options: mh.Session("inline", **options), list_cases()[:2])
    >>> print(*outcomes, sep="\n")
    submit_gives_the_result: passed
    submit_passes_all_arguments: passed
    """
    outcomes = []
    for case in list_cases() if cases is None else cases:
        try:
            outcomes.append(Outcome(case, run_case(case, open_session)))
        except Exception as error:
            outcomes.append(Outcome(case, error=error))
    return outcomes


def find_missing(needs: Iterable[Need], open_session: OpenSession) -> tuple[Need, ...]:
    """Which of the capabilities `needs` the engine declares that it lacks.

    Examples
    --------
    >>> import manyhands as mh
    >>> find_missing(["isolates"], lambda **options: mh.Session("threads", **options))
    ('isolates',)
    """
    with open_session(workers=1) as session:
        return tuple(need for need in needs if not getattr(session.capabilities, need))
