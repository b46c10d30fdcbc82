"""One attempt at a call inside this process: what the engines without processes of their own do."""

from __future__ import annotations

from manyhands.errors import WorkerDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from manyhands.core.model import Call


def attempt(call: Call) -> tuple[Any, BaseException | None]:
    """Run the call here; its value, or its error.

    ``sys.exit`` ends a worker process, and here there is none: the call fails as it would there.
    """
    try:
        return call.fn(*call.args, **call.kwargs), None
    except SystemExit as request:
        return None, _describe_exit(call, request)
    except BaseException as error:
        return None, error


def _describe_exit(call: Call, request: SystemExit) -> WorkerDiedError:
    from manyhands.core.functions import name_callable

    error = WorkerDiedError(
        f"call {call.key}, {name_callable(call.fn)}, called sys.exit({request.code!r})"
    )
    error.call = name_callable(call.fn)
    error.exit_code = (
        request.code if isinstance(request.code, int) else int(request.code is not None)
    )
    error.__cause__ = request
    return error
