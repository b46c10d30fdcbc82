"""What the current session did."""

from __future__ import annotations

from manyhands.session import get_session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from manyhands.observe.report import Report


def report() -> Report:
    """Where the time of the current session went, in plain words; its attributes give the numbers.

    Examples
    --------
    >>> import manyhands as mh
    >>> with mh.Session("inline"):
    ...     mh.map(abs, [-1])
    ...     print(mh.report().calls, "call")
    [1]
    1 call
    """
    return get_session().report()
