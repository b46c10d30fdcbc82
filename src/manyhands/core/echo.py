"""What workers print, log and warn, in the program's own streams and handlers."""

from __future__ import annotations

import sys
from _pickle import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def list_log_levels() -> dict[str, int] | None:
    """Levels of this process's loggers; None where logging was not set up, and goes to standard error."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    named = logging.getLogger().manager.loggerDict.items()
    loggers = {"": logging.getLogger()} | {
        name: logger
        for name, logger in list(named)
        if isinstance(logger, logging.Logger) and not name.startswith("concurrent.")
    }
    is_set_up = any(
        logger.level != (logging.NOTSET if name else logging.WARNING)
        or any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers)
        for name, logger in loggers.items()
    )
    return (
        {name: g.level for name, g in loggers.items() if g.level or not name} if is_set_up else None
    )


def write(stream: str, text: Any) -> None:
    """Print what a worker printed; what the program's own streams make of it is its affair."""
    try:
        if stream == "logging":
            _log(text)
        else:
            target = sys.stdout if stream == "stdout" else sys.stderr
            target.write(text)
            target.flush()
    except Exception:
        return


def warn(notices: list[str]) -> None:
    """Tell the user what the store has to say; where warnings are errors, the work goes on all the same."""
    import warnings

    while notices:
        try:
            warnings.warn(notices.pop(0), RuntimeWarning, stacklevel=2)
        except Exception:
            continue


def _log(payload: bytes) -> None:
    import logging

    record = logging.makeLogRecord(loads(payload))
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
