"""One attempt at a call inside this process: what the engines without processes of their own do."""

from __future__ import annotations

from contextvars import copy_context

from manyhands.core import place
from manyhands.core.future import Future
from manyhands.errors import WorkerDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from typing import Any, TypeAlias

    from manyhands.core.engine import Sink
    from manyhands.core.model import Call
    from manyhands.core.roles import Post

    Outcome: TypeAlias = tuple[Any, BaseException | None]


def attempt(
    call: Call, sink: Sink, post: Post | None = None, context: Context | None = None
) -> Outcome:
    """Run the call here; its value, or its error.

    ``sys.exit`` ends a worker process, and here there is none: the call fails as it would there.

    Parameters
    ----------
    call
    sink
        The session that the call belongs to: calls made by it belong there too.
    post
        What it sends to its session while it runs; None where it can send nothing.
    context
        Of context variables; a copy of this thread's where left out. What the call sets stays in there.
    """
    here = place.Place(sink, call.key, post)
    return (context if context is not None else copy_context()).run(_attempt, call, here)


def _attempt(call: Call, here: place.Place) -> Outcome:
    place.here.set(here)
    try:
        return call.fn(*call.args, **call.kwargs), None
    except SystemExit as request:
        return None, describe_exit(call, request)
    except BaseException as error:
        return None, error


async def attempt_rest(call: Call, awaitable: Any) -> Outcome:
    """What becomes of a call that gave something to await."""
    try:
        return await awaitable, None
    except SystemExit as request:  # it would end the event loop
        return None, describe_exit(call, request)
    except BaseException as error:
        return None, error


def is_awaitable(value: object) -> bool:
    """Whether a call that gave `value` goes on in an event loop. Our futures can be awaited too, but need none."""
    return hasattr(type(value), "__await__") and not isinstance(value, Future)


def follow(future: Future[Any], end: Callable[[Any, BaseException | None], object]) -> None:
    """Have what a future ends with be the end of a call that gave it: `end` gets the result, or the error.

    One that is cancelled gives the error that asking for its result would.
    """

    def pass_on(ended: Future[Any]) -> None:
        try:
            outcome: Outcome = ended.result(), None
        except BaseException as error:
            outcome = None, error
        end(*outcome)

    future.add_done_callback(pass_on)


def describe_call(call: Call) -> str:
    """What errors call it."""
    from manyhands.core.functions import name_callable

    return call.options.name or name_callable(call.fn)


def describe_exit(call: Call, request: SystemExit) -> WorkerDiedError:
    """What a call that ended by ``sys.exit`` has done to its worker."""
    name = describe_call(call)
    error = WorkerDiedError(f"call {call.key}, {name}, called sys.exit({request.code!r})")
    error.call, error.key = name, call.key
    error.exit_code = (
        request.code if isinstance(request.code, int) else int(request.code is not None)
    )
    error.__cause__ = request
    return error


def has_exited(error: BaseException) -> bool:
    """Whether a call's error is that it ended its worker; not so where it passes on what it heard of another's end."""
    return (
        isinstance(error, WorkerDiedError) and error.__traceback__ is None
    )  # `describe_exit` raises nothing
