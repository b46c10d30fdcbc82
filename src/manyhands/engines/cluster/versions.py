"""Whether a program and the workers of a cluster can read what they send each other."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def tell_versions() -> dict[str, str]:
    """Of what pickles depend on, in this process.

    Examples
    --------
    >>> sorted(tell_versions())
    ['Python', 'cloudpickle', 'manyhands']
    """
    from importlib.metadata import version

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "Python": python,
        "cloudpickle": version("cloudpickle"),
        "manyhands": version("manyhands"),
    }


def explain_difference(answer: Any) -> str | None:
    """What is wrong with a worker, and the way out; None where nothing is.

    Parameters
    ----------
    answer
        What `tell_versions` gave there, or the error that it raised.

    Examples
    --------
    >>> explain_difference(tell_versions()) is None
    True
    >>> explain_difference({**tell_versions(), "Python": "3.9"})[:25]
    'it has Python 3.9, and th'
    """
    if isinstance(answer, BaseException):
        return (
            f"manyhands cannot be used there, {type(answer).__name__}: {answer}. Install the same version as here "
            f"({tell_versions()['manyhands']}) for its Python"
        )
    here = tell_versions()
    differences = [
        f"{name} {answer.get(name)}, and this program {own}"
        for name, own in here.items()
        if answer.get(name) != own
    ]
    if not differences:
        return None
    return f"it has {'; '.join(differences)}. What one of them pickles the other may misread: install the same ones"
