"""What becomes of actors that have died, in engines whose calls run in this process."""

from __future__ import annotations

from copy import copy
from functools import partial

from manyhands.core.acting import ActorMaker
from manyhands.core.attempt import describe_call
from manyhands.core.model import Call
from manyhands.errors import ActorDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from manyhands.core.objects import Snapshot


def make_again(making: Call, kept: Snapshot | None) -> Call:
    """The call that makes an actor once more: of the state that was kept, or from its arguments where there is none."""
    maker = making.fn
    restorer = maker.make_restorer() if isinstance(maker, ActorMaker) else None
    if kept is None or restorer is None:
        return making
    return Call(making.key, partial(_restore, restorer, kept), (), {}, making.options)


def _restore(restorer: ActorMaker, kept: Snapshot) -> None:
    restorer(kept.restore())


def make_stop_error(making: Call) -> ActorDiedError:
    """What calls to an actor fail with after it was stopped."""
    name = describe_call(making)
    error = ActorDiedError(f"the actor {name} was stopped, and answers no more")
    error.actor = name
    return error


def make_absence_error(call: Call) -> ActorDiedError:
    """What a call to an actor fails with that nobody has heard of."""
    return ActorDiedError(
        f"{describe_call(call)}: this session has no such actor; it may be of another session"
    )


def make_revival_error(making: Call, cause: BaseException | None) -> ActorDiedError:
    """What an actor died of that could not be made once more."""
    name = describe_call(making)
    error = ActorDiedError(f"the actor {name} could not be made again: {cause!r}")
    error.actor = name
    error.__cause__ = cause
    return error


def renew(error: BaseException) -> BaseException:
    """The same error for one more call: what is noted in it for that is not to be read elsewhere."""
    try:
        fresh = copy(error)
    except Exception:
        return error  # a class of somebody else's, which does not take its own arguments
    fresh.__cause__ = error.__cause__
    # Another library may have registered a way to copy exceptions that shares what is in them.
    fresh.__dict__ = dict(error.__dict__)
    if notes := getattr(error, "__notes__", None):
        fresh.__notes__ = [*notes]
    return fresh
