"""Carries out what the life cycle of calls decides, for those that have inputs or have failed."""

from __future__ import annotations

import random
import threading
from functools import partial
from itertools import count
from time import sleep

from manyhands.core.handles import get_failure, has_succeeded, peek_error, replace_handles
from manyhands.core.model import Call
from manyhands.core.refs import Ref
from manyhands.core.resources import ONE_CPU
from manyhands.errors import DependencyError, InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future as StandardFuture
    from typing import Any

    from manyhands.core.engine import Chain, Engine
    from manyhands.core.future import Future
    from manyhands.core.lifecycle import Cancel, Effect, Fail, Lifecycle

    End = Callable[[int, BaseException | None], None]


class Ledger:
    """The calls of a session that need an account.

    Parameters
    ----------
    engine
        Runs them.
    futures
        The session's, by key.
    make_future
        Their class.
    owner
        The session.
    end
        Ends a call of the session without a result: with an error, or as cancelled where there is none.

    Attributes
    ----------
    retried : int
        Attempts after the first.
    """

    def __init__(
        self,
        engine: Engine,
        futures: dict[int, Future[Any]],
        make_future: type[Future[Any]],
        owner: object,
        end: End,
    ) -> None:
        self.retried = 0
        self._engine = engine
        self._futures = futures
        self._make_future = make_future
        self._owner = owner
        self._end = end
        self._lock = threading.RLock()  # of the life cycle and of what belongs to it
        self._life: Lifecycle | None = None  # until a call has inputs or retries
        self._kept: dict[int, Call] = {}  # calls that wait for inputs
        self._delayed: dict[int, Any] = {}  # attempts that are due in a while
        self._inputs: dict[int, StandardFuture[Any]] = {}  # what calls wait for
        self._foreign_keys = count(-1, -1)
        self._chain: Chain | None = engine if engine.capabilities.chains else None  # type: ignore[assignment]

    @property
    def is_used(self) -> bool:
        """Whether any call has an account."""
        return bool(self._inputs or self._life)

    def _get_life(self) -> Lifecycle:
        """The account, begun when the first call needs it."""
        with self._lock:
            if self._life is None:
                from manyhands.core.lifecycle import Lifecycle

                self._life = Lifecycle()
            return self._life

    # Events.

    def admit(self, call: Call, inputs: list[StandardFuture[Any]]) -> None:
        """A new call that waits for inputs."""
        if self._chain is not None:
            self._send_ahead(self._chain, call, inputs)
        with self._lock:
            awaited = {
                self._name_input(future): future for future in inputs if not has_succeeded(future)
            }
            self._inputs.update(awaited)
            self._kept[call.key] = call
            effects = self._get_life().admit(call.key, awaited)
        self._perform(effects, None)
        for key, future in awaited.items():
            # Ours tell us when they end; but one that ended before the account was made has told nobody.
            if key < 0:
                future.add_done_callback(partial(self._take_input, key))
            elif future.done():
                self._take_input(key, future)

    def _send_ahead(self, chain: Chain, call: Call, inputs: list[StandardFuture[Any]]) -> None:
        """Let the engine have a call before its inputs have ended, where it has these too."""
        stand_ins: dict[int, Any] = {}
        for future in inputs:
            if not future.done():
                stand_in = chain.foresee(self._name_input(future))
                if stand_in is None:
                    return
                stand_ins[id(future)] = stand_in
            elif not has_succeeded(future):
                return

        def hand_on(handle: Any) -> Any:
            stand_in = stand_ins.get(id(handle))
            return self._hand_on(handle) if stand_in is None else stand_in

        if not stand_ins:
            return
        try:
            chain.anticipate(self._fill(call, hand_on))
        except Exception:
            return  # it will be the call's error when its inputs have ended

    def succeed(self, keys: Iterable[int]) -> None:
        """Calls of the session have ended well."""
        for key in keys:
            self._carry_out(self._get_life().succeed, key)

    def fail(self, key: int, error: BaseException, attempt: Any) -> None:
        """An attempt at a call has failed; without an `attempt` it is not tried again."""
        life = self._get_life()
        with self._lock:
            effects = (
                life.refuse(key)
                if attempt is None
                else life.fail(key, error, attempt.options.policy, random.random())
            )
        self._perform(effects, error, attempt)

    def withdraw_unsent(self, keys: set[int]) -> set[int]:
        """Those of the calls that the engine has not got, since they wait for inputs or for their next attempt.

        It will not get them any more; `cancel` is to follow.
        """
        with self._lock:
            life = self._life
            unsent = {key for key in keys if life is not None and not life.is_with_engine(key)}
            for key in unsent:  # at once: their time may come in another thread
                self._drop(key)
        return unsent

    def cancel(self, key: int) -> None:
        """A call was withdrawn."""
        self._kept.pop(key, None)
        self._delayed.pop(key, None)
        if self.is_used:
            self._carry_out(self._get_life().cancel, key)

    def hand_over(self, call: Call) -> None:
        """Give a call to the engine; what keeps it from running becomes its error."""
        try:
            if call.options.need is not ONE_CPU:
                misfit = self._engine.explain_misfit(call)
                if misfit is not None:
                    raise InvalidArgumentError(misfit)
            self._engine.submit(self.fill_in(call) if call.has_inputs else call)
        except Exception as error:
            self.fail(call.key, error, None)

    def clear(self) -> None:
        """The session ends."""
        with self._lock:
            self._kept.clear()
            self._delayed.clear()

    # Effects.

    def _carry_out(self, event: Callable[[int], list[Effect]], key: int) -> None:
        with self._lock:
            effects = event(key)
        self._perform(effects, None)
        self._inputs.pop(key, None)

    def _perform(
        self, effects: list[Effect], error: BaseException | None, attempt: Any = None
    ) -> None:
        from manyhands.core.lifecycle import Again, Cancel, Fail, Submit

        has_ended = False
        for effect in effects:
            if isinstance(effect, Submit):
                with self._lock:
                    call = self._kept.pop(effect.key, None)
                if call is not None:  # else the session was closed meanwhile
                    self.hand_over(call)
            elif isinstance(effect, Again):
                self._try_again(effect, attempt)
            elif isinstance(effect, Cancel):
                self._drop(effect.key)
                self._end(effect.key, None)
                has_ended = True
            else:
                assert isinstance(effect, Fail)
                failure = error if effect.cause is None else self._blame(effect.key, effect.cause)
                self._drop(effect.key)
                if failure is not None:
                    if effect.history:
                        note_attempts(failure, effect.history)
                    self._end(effect.key, failure)
                has_ended = True
        for effect in effects:
            if isinstance(effect, (Fail, Cancel)):
                self._end_late(effect, error)
        for effect in effects:  # what they waited for was needed for the words of their errors
            if isinstance(effect, (Fail, Cancel)):
                self._inputs.pop(effect.key, None)
        if has_ended:
            self._engine.rouse()

    def _end_late(self, effect: Fail | Cancel, error: BaseException | None) -> None:
        """End what began to wait for a call while it ended: the account knew it no more, and its future not yet."""
        life = self._get_life()
        with self._lock:
            event = life.cancel if type(effect).__name__ == "Cancel" else life.refuse
            late = [other for other in event(effect.key) if other.key != effect.key]
        if late:
            self._perform(late, error)

    def _drop(self, key: int) -> None:
        self._kept.pop(key, None)
        self._delayed.pop(key, None)
        if self._chain is not None:
            self._chain.forsake(key)

    def _try_again(self, effect: Any, attempt: Any) -> None:
        self.retried += 1
        key = effect.key
        with self._lock:
            self._delayed[key] = attempt
        if effect.delay <= 0:
            self._resume(key)
        elif self._engine.capabilities.concurrent:
            from manyhands.core.timers import timers

            timers.call_later(effect.delay, partial(self._resume, key))
        else:  # the caller waits in any case
            sleep(effect.delay)
            self._resume(key)

    def _resume(self, key: int) -> None:
        with self._lock:
            attempt = self._delayed.pop(key, None)
            is_due = attempt is not None and self._get_life().resume(key)
        if not is_due:
            return
        try:
            self._engine.resubmit(key, attempt)
        except Exception as error:
            self.fail(key, error, None)

    # Inputs.

    def _name_input(self, future: StandardFuture[Any]) -> int:
        """A key for a future that a call waits for: its own, or one for a future that is not this session's."""
        if isinstance(future, self._make_future) and future.owner is self._owner:
            return future.key
        return next(self._foreign_keys)

    def _take_input(self, key: int, future: StandardFuture[Any]) -> None:
        """An input has ended."""
        if future.cancelled():
            self._carry_out(self._get_life().cancel, key)
        elif (error := peek_error(future)) is None:
            self._carry_out(self._get_life().succeed, key)
        else:
            with self._lock:
                effects = [effect for effect in self._get_life().refuse(key) if effect.key != key]
            self._perform(effects, error)
            self._inputs.pop(key, None)

    def _blame(self, key: int, cause: int) -> DependencyError:
        """The error of a call whose input failed."""
        source = self._inputs.get(cause)
        name = self._futures[key].name if key in self._futures else str(key)
        what = repr(source) if source is not None else f"call {cause}"
        error = DependencyError(
            f"call {key}, {name}, was not run, because its input failed: {what}"
        )
        if source is not None and source.done():
            error.__cause__ = get_failure(source)
        return error

    def fill_in(self, call: Call) -> Call:
        """The call with results and stored values in the place of futures and refs, or what stands for them."""
        return self._fill(call, self._hand_on)

    def _fill(self, call: Call, hand_on: Callable[[Any], Any]) -> Call:
        args = tuple(replace_handles(arg, hand_on) for arg in call.args)
        kwargs = {name: replace_handles(arg, hand_on) for name, arg in call.kwargs.items()}
        return Call(call.key, call.fn, args, kwargs, call.options)

    def _hand_on(self, handle: Any) -> Any:
        if type(handle) is Ref:
            return self._engine.forward(handle.record)
        if isinstance(handle, self._make_future) and handle.owner is self._owner:
            return handle.hand_on(self._engine.forward)
        return handle.result()


_NOTED = 10
"""Attempts that an error tells of by themselves; of more, the first and the last ones."""


def note_attempts(error: BaseException, history: tuple[BaseException, ...]) -> None:
    """Add to an error what became of the attempts before it."""
    errors = [*history, error]
    lines = [f"All {len(errors)} attempts failed:"]
    shown = range(len(errors))
    for index in shown:
        if len(errors) > _NOTED and 3 <= index < len(errors) - (_NOTED - 3):
            if index == 3:
                lines.append(f"  … {len(errors) - _NOTED} more …")
            continue
        lines.append(f"  {index + 1}. {describe_briefly(errors[index])}")
    error.add_note("\n".join(lines))


def describe_briefly(error: BaseException) -> str:
    """Class and first line of an error."""
    try:
        first = str(error).strip().partition("\n")[0]
    except Exception:
        first = "(its text cannot be had)"
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
