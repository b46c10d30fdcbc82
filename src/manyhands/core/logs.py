"""What a worker logs, on its way to the program."""

from __future__ import annotations

from _pickle import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from typing import Any


def forward_logging(levels: dict[str, int], send: Callable[[bytes], object]) -> logging.Handler:
    """Send every log record that passes the parent's levels to the parent, whose handlers see to it.

    Parameters
    ----------
    levels
        Of the parent's loggers that have one of their own; ``""`` is the root logger.
    send
        Takes a pickled dictionary of the record's attributes.

    Returns
    -------
    logging.Handler
        What was added to the root logger.
    """
    import logging

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                send(dumps(_flatten(record), 5))
            except Exception:
                self.handleError(record)

    def _flatten(record: logging.LogRecord) -> dict[str, Any]:
        state = {**record.__dict__, "msg": record.getMessage(), "args": None}
        if record.exc_info:
            state["exc_text"] = logging.Formatter().formatException(record.exc_info)
            state["exc_info"] = None
        for name, value in state.items():
            if not isinstance(value, (str, int, float, bool, type(None))):
                state[name] = str(value)
        return state

    handler = Forward()
    logging.getLogger().addHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
    return handler
