"""What calls print and log in processes that belong to others: it goes to their sessions, the rest where it went."""

from __future__ import annotations

import sys
from io import TextIOBase
from logging import getLogger

from manyhands.core import place
from manyhands.core.logs import forward_logging
from manyhands.engines.cluster.station import StationRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import LogRecord
    from typing import Any, TextIO


class _Fork(TextIOBase):
    """A standard stream that sends what calls print to their sessions."""

    def __init__(self, name: str, original: TextIO) -> None:
        self._name = name
        self._original = original

    def write(self, text: str, /) -> int:
        run = _get_run()
        if run is None:
            return self._original.write(text)
        run.write(self._name, text)
        return len(text)

    def flush(self) -> None:
        run = _get_run()
        if run is None:
            self._original.flush()

    def writable(self) -> bool:
        return True

    # What the base class has for itself, `__getattr__` is not asked for.

    def fileno(self) -> int:
        return self._original.fileno()

    def isatty(self) -> bool:
        return self._original.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._original.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._original.errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def share_output(levels: dict[str, int] | None) -> None:
    """Have what calls of this process print and log sent to their sessions.

    Parameters
    ----------
    levels
        Of a session's loggers. A logger of this process gets the lowest of all sessions; each session drops what is
        below its own. None where the session does not log.
    """
    if not isinstance(sys.stdout, _Fork):
        sys.stdout = _Fork("stdout", sys.stdout)
        sys.stderr = _Fork("stderr", sys.stderr)
        forward_logging({}, _send_record).addFilter(_is_of_call)
    for name, level in (levels or {}).items():
        logger = getLogger(name or None)
        if level < logger.getEffectiveLevel():
            logger.setLevel(level)


def _is_of_call(record: LogRecord) -> bool:  # noqa: ARG001 - `logging` passes it
    return _get_run() is not None


def _send_record(packed: bytes) -> None:
    run = _get_run()
    if run is not None:
        run.station.tell("log", packed)


def _get_run() -> StationRun | None:
    here = place.here.get()
    run = here.post if here is not None else None
    return run if isinstance(run, StationRun) else None
