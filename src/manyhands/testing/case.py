"""What a case of the conformance suite is, and how one is entered into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from manyhands.session import Session

Need = Literal[
    "actors",
    "concurrent",
    "interrupts",
    "isolates",
    "keeps",
    "orders",
    "parallel",
    "pickles",
    "resources",
    "shares",
    "staffs",
    "witnesses",
    "stores",
]
"""The name of a capability; see `manyhands.core.model.Capabilities`."""


class OpenSession(Protocol):
    """Opens a session on the engine under test."""

    def __call__(self, **options: Any) -> Session:
        """A session; `options` are keyword arguments of `manyhands.Session` beside the engine."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that every engine must do.

    Attributes
    ----------
    name
        Words joined by underscores, unique in the suite.
    run
        Takes a function that opens sessions; raises AssertionError, or what went wrong, where the engine fails.
        It closes what it opens.
    summary
        What must hold, in a sentence.
    needs
        Capabilities without which the case makes no sense; an engine may declare that it lacks them.

    Examples
    --------
    >>> from manyhands.testing.conformance import list_cases
    >>> case = list_cases()[0]
    >>> case.name, case.summary
    ('submit_gives_the_result', 'A call returns what its function returns.')
    """

    name: str
    run: Callable[[OpenSession], None]
    summary: str
    needs: tuple[Need, ...] = ()

    def __str__(self) -> str:
        return self.name


REGISTER: list[Case] = []
"""Every case, in the order in which its module was loaded."""


def case(*needs: Need) -> Callable[[Callable[[OpenSession], None]], Callable[[OpenSession], None]]:
    """Enter the decorated function into the suite, under its own name, with its docstring's first line."""

    def enter(run: Callable[[OpenSession], None]) -> Callable[[OpenSession], None]:
        summary = (run.__doc__ or "").strip().partition("\n")[0]
        REGISTER.append(Case(run.__name__, run, summary, needs))
        return run

    return enter
