"""What workers send: results, deaths' legacies, what calls ask for while they run; and what becomes of it."""

from __future__ import annotations

from _pickle import loads
from struct import calcsize, unpack_from
from time import monotonic

from manyhands.core.exceptions import unpack_exception
from manyhands.engines.local import messages as m
from manyhands.engines.local.stages import Actor
from manyhands.errors import (
    CallInterrupted,
    InvalidArgumentError,
    StoreFullError,
    WorkerStartError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from manyhands.core.parcels import Payload
    from manyhands.engines.local.engine import LocalEngine
    from manyhands.engines.local.limits import Ending
    from manyhands.engines.local.pool_parts import Entry, WorkerState
    from manyhands.engines.local.process import WorkerProcess

_ENTRY_SIZE = calcsize(m.JOURNAL_ENTRY)


class Intake:
    """Takes in what workers send; used by the leading thread.

    Parameters
    ----------
    engine
        Whose workers they are.
    """

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def take_messages(self, process: WorkerProcess) -> None:
        """All that a worker has sent."""
        while True:
            try:
                received = process.channel.receive(wait=False)
            except (EOFError, OSError):
                return
            if received is None:
                return
            self._take(process, *received)

    def _take(self, process: WorkerProcess, message: tuple[Any, ...], fds: tuple[int, ...]) -> None:
        kind = message[0]
        if kind == m.RESULTS:
            self._take_results(process, message)
        elif kind == m.READY:
            self._take_ready(process, message[1])
        elif kind == m.GIVE_BACK:
            worker = self._engine.pool.workers.get(process.number)
            if worker is not None:
                worker.known.difference_update(message[2])
                if message[3]:
                    self._engine.late_store.get().take_back(process.number, message[3])
                self._engine.pool.give_back(worker, message[1])
        elif kind >= m.MADE:
            self._take_from_call(process, message)
        elif kind == m.GRANT:
            self._engine.grant_from(message[1], message[2])
        elif kind == m.RECORD:
            self._engine.output.append(("logging", message[1]))
        elif kind == m.HEAP:
            self._engine.late_store.get().add_heap(message[1], fds[0], message[2])
        elif kind == m.DROPPED:
            self._engine.late_store.get().drop(process.number, message[1])
        elif kind == m.NEED_ROOM:
            is_there = self._engine.late_store.get().make_room(message[1])
            if not is_there:
                process.refusal = self._engine.late_store.get().explain_fullness(message[1])
            self._engine.courier.tell_room(process)
            process.answer_room(is_there=is_there)

    def _take_from_call(self, process: WorkerProcess, message: tuple[Any, ...]) -> None:
        """What a call sends while it runs."""
        kind, nesting = message[0], self._engine.nesting
        if kind == m.SUBMIT:
            entry = nesting.take_call(process, message)
            misfit = self._engine.explain_need(entry.options.need)
            if misfit is None:
                self._engine.route(entry)
                self._engine.pool.enqueue(entry)
            else:
                what = f"call {entry.key}, {entry.function.name}: {misfit}"
                nesting.end_with(entry.key, InvalidArgumentError(what))
        elif kind == m.MADE:
            if not nesting.is_used:
                self._engine.staff.preload()
            nesting.take_function(process, message)
        elif kind in (m.BLOCKED, m.WAKE, m.PAUSE):
            self._take_wait(process, message)
        elif kind == m.CANCEL:
            withdrawn: set[int] = set()
            self._engine.withdraw(set(message[2]), withdrawn, message[3])
            nesting.tell_cancelled(process, message[1], message[2], withdrawn)
        elif kind == m.YIELD:
            self._take_item(process, *message[1:])
        elif kind == m.JOIN:
            worker = self._engine.pool.workers.get(process.number)
            if worker is not None:
                self._engine.pool.set_aside(worker, message[1])
                self._engine.joins[message[1]] = message[2]
        elif kind == m.STUCK:
            error = unpack_exception(message[2])
            is_cancelled = isinstance(error, CallInterrupted)
            self._engine.limits.end_with(message[1], None if is_cancelled else error)
            process.kill()
        elif kind == m.ACT:
            self._start_actor(process, message)
        elif kind == m.ASK:
            self._engine.questions.append((process, *message[1:]))
        else:
            self._engine.stages.keep(message[1], nesting.unpack(process, *message[2:]))

    def _take_wait(self, process: WorkerProcess, message: tuple[Any, ...]) -> None:
        """A call waits for others, or does so no longer."""
        kind, nesting = message[0], self._engine.nesting
        worker = self._engine.pool.workers.get(process.number)
        if kind == m.BLOCKED:
            nesting.take_blocked(process, message[1], message[2])
        elif kind == m.WAKE:
            nesting.take_wake(process, message[1])
        elif worker is not None:
            self._engine.pool.pause(worker, is_paused=message[1])

    def _start_actor(self, process: WorkerProcess, message: tuple[Any, ...]) -> None:
        """A call starts an actor, which is the session's like any other."""
        number, where = message[1], message[-1]
        stages = self._engine.stages
        try:
            making = self._engine.sink.adopt(where.life)
        except InvalidArgumentError as error:
            stages.refuse(number, error)
            return
        stages.start(
            number, Actor(*self._engine.nesting.take_actor(process, message, making)), where
        )

    def _take_item(self, process: WorkerProcess, key: int, packed: Any, born: Any) -> None:
        payload = self._engine.nesting.unpack(process, packed, born)
        if m.get_origin(key):
            self._engine.nesting.add_item(key, payload)
        else:
            self._engine.items.append((key, payload))

    def answer(self, process: WorkerProcess, number: int, question: str, arguments: bytes) -> None:
        """Answer what a call asks the session, outside of all bookkeeping."""

        def ask() -> Any:
            if question == "is_running":
                return self._engine.is_running(*loads(arguments))
            return self._engine.sink.answer(question, *loads(arguments))

        if process.number in self._engine.processes:
            self._engine.nesting.answer(process, number, ask)

    def _take_results(self, process: WorkerProcess, message: tuple[Any, ...]) -> None:
        _, keys, payloads, seconds, failed, busy, wrote, born, dropped = message
        if wrote:
            self.take_output(process)
        store = self._engine.late_store.current
        if not all(type(one) is bytes for one in payloads):
            payloads = self._engine.late_store.get().unpack(payloads, process.number, born)
        worker = self._engine.pool.workers.get(process.number)
        if worker is None:
            return
        total = sum(seconds)
        self._engine.statistics.computing += total
        self._engine.statistics.moving += busy - total
        entries = self._engine.pool.finish(worker, keys, seconds)
        if store is not None and (born or dropped):
            store.drop(process.number, dropped)
            store.settle()
            self._engine.courier.tell_room(process)
        is_usual = not (
            self._engine.limits.endings or self._engine.nesting.is_used or worker.stages
        )
        if is_usual and not failed and None not in entries:
            self._engine.results += zip(keys, payloads, strict=True)
        else:
            for index, entry in enumerate(entries):
                if entry is not None:
                    self.settle(process, entry, payloads[index], failed=index in failed)
        if process.is_orphan:
            self._engine.staff.retire(process)
        elif worker.is_closing or worker.calls >= self._engine.staff.most_calls:
            self._engine.staff.dismiss_spent(process, worker)

    def take_journal(self, process: WorkerProcess, worker: WorkerState) -> None:
        """Results that the dead worker had computed and not sent."""
        journal = bytes(process.get_journal())
        place = 0
        while place + _ENTRY_SIZE <= len(journal):
            key, _, kind, size = unpack_from(m.JOURNAL_ENTRY, journal, place)
            place += _ENTRY_SIZE + size
            entry = worker.inflight.pop(key, None)
            if entry is None or place > len(journal):
                continue
            content = journal[place - size : place]
            payload: Payload = content
            failed = kind == m.FAILED
            if kind == m.SHARED:
                packed, born, failed = loads(content)
                payload = self._engine.late_store.get().unpack([packed], process.number, born)[0]
            self.settle(process, entry, payload, failed=failed)

    def settle(
        self, process: WorkerProcess, entry: Entry, payload: Payload, *, failed: bool
    ) -> None:
        """A call has ended."""
        key = entry.key
        if self._engine.joins:
            self._engine.joins.pop(key, None)
        if key in self._engine.limits.endings:
            packed = self._read_failure(payload) if failed else None
            self.end_early(entry, self._engine.limits.conclude(key, packed))
        elif m.get_origin(key):
            self._engine.nesting.end(key, payload, failed=failed)
        elif not failed:
            self._engine.results.append((key, payload))
            if entry.stage:
                self._engine.stages.note_result(entry)
        else:
            error = unpack_exception(self._read_failure(payload))
            if isinstance(error, StoreFullError) and process.refusal:
                error.args = (f"a result was too large: {process.refusal}",)
            self._engine.fail(entry, error)

    def _read_failure(self, payload: Payload) -> bytes:
        """The bytes of a packed exception."""
        read: bytes = (
            payload
            if isinstance(payload, bytes)
            else self._engine.late_store.get().read_stream(payload)
        )
        return read

    def end_early(self, entry: Entry, ending: Ending | None) -> None:
        """A call that had to end has ended; of one that was cancelled nobody hears."""
        if ending is not None and ending.error is not None:
            self._engine.fail(entry, ending.error)

    def _take_ready(self, process: WorkerProcess, failure: bytes | None) -> None:
        if failure is not None:
            cause = unpack_exception(failure)
            error = WorkerStartError(
                f"the initializer failed in a worker: {type(cause).__name__}: {cause}"
            )
            error.__cause__ = cause
            self._engine.give_up(error)
            return
        process.is_ready = True
        process.send_due()
        worker = self._engine.pool.workers.get(process.number)
        if worker is not None:
            worker.is_ready = True
        self._engine.staff.note_birth()
        if not self._engine.statistics.starting:
            self._engine.statistics.starting = monotonic() - self._engine.began_at

    def take_output(self, process: WorkerProcess, *, last: bool = False) -> None:
        for name, reader in (("stdout", process.stdout), ("stderr", process.stderr)):
            lines: list[str] = []
            if not reader.read(lines.append, last=last):
                self._engine.driver.unwatch(reader.fd)
            self._engine.output += [(name, text) for text in lines]
