"""Calls that have to end: interrupted first, then ended with their workers."""

from typing import Any

import pytest

from manyhands.core.exceptions import pack_exception
from manyhands.core.functions import Function
from manyhands.core.model import CallOptions
from manyhands.core.resources import ONE_CPU, Capacity, Need, make_need
from manyhands.core.timeouts import GRACE_SECONDS
from manyhands.engines.local import limits as limits_module
from manyhands.engines.local import messages as m
from manyhands.engines.local.limits import Limits
from manyhands.engines.local.memory_watch import MachineMemory, Verdict, WorkerMemory
from manyhands.engines.local.pool_parts import Entry, StageState, WorkerState
from manyhands.engines.local.pool_state import PoolState
from manyhands.errors import CallInterrupted, CallTimeoutError, OutOfMemoryError


class FakeProcess:
    """A worker that is at what the test says."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid: int | None = 1000 + number
        self.current = 0
        self.started = 0.0
        self.interrupts: list[int] = []
        self.repeats: list[int] = []
        self.forbidden: list[int] = []
        self.stacks = 0
        self.kills = 0

    def get_current(self) -> int:
        return self.current

    def get_started(self) -> float:
        return self.started

    def interrupt(self, key: int) -> None:
        self.interrupts.append(key)

    def interrupt_again(self, key: int) -> None:
        self.repeats.append(key)

    def forbid(self, key: int) -> None:
        self.forbidden.append(key)

    def allow(self, key: int) -> None:
        if key in self.forbidden:
            self.forbidden.remove(key)

    def ask_stack(self) -> None:
        self.stacks += 1

    def kill(self) -> None:
        self.kills += 1


class FakeCourier:
    def __init__(self) -> None:
        self.sent: list[tuple[int, tuple[Any, ...]]] = []
        self.is_full = False

    def send(self, process: FakeProcess, message: tuple[Any, ...]) -> bool:
        if self.is_full:
            return False
        self.sent.append((process.number, message))
        return True


class FakeWatch:
    """Says what the test has it say."""

    def __init__(self) -> None:
        self.pause = 2.0
        self.begun: list[tuple[int, int, int]] = []
        self.looks: list[list[WorkerMemory]] = []
        self.victim = 0
        self.is_closed = False

    def begin(self, number: int, pid: int, key: int) -> None:
        self.begun.append((number, pid, key))

    def look(self, workers: list[WorkerMemory], now: float) -> Verdict | None:
        self.looks.append(workers)
        for worker in workers:
            if worker.number == self.victim:
                worker.own = 5 << 30
                machine = MachineMemory("the machine", 8 << 30, 1 << 20, 1 << 28)
                return Verdict(worker, None if worker.limit else machine, [], now)
        return None

    def close(self) -> None:
        self.is_closed = True


_NEVER = 1e9
"""When memory is looked at."""


class House:
    """Limits over a pool of two workers, at times that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(limits_module, "monotonic", lambda: self.now)
        self.pool = PoolState(Capacity(4, memory=1 << 40))
        self.processes: dict[int, Any] = {}
        for number in (1, 2):
            self.pool.add_worker(number)
            self.processes[number] = FakeProcess(number)
        self.courier = FakeCourier()
        self.limits = Limits(self.pool, self.processes, self.courier)  # type: ignore[arg-type]
        self.watch = FakeWatch()
        self.limits._watch = self.watch  # type: ignore[assignment]
        self.limits._looked_at = _NEVER  # but in tests of it alone

    def send(
        self, *keys: int, timeout: float | None = None, need: Need = ONE_CPU, stage: int = 0
    ) -> WorkerState:
        """Have a worker be sent calls."""
        function = Function(1, "simulate", b"")
        function.seconds = 1e-6
        options = CallOptions(timeout=timeout, need=need, actor=stage)
        for key in keys:
            self.pool.enqueue(Entry(key, function, b"", options, stage=stage))
        worker = None
        for worker, entries in self.pool.plan():
            self.limits.note_sending(worker, entries)
        assert worker is not None
        return worker

    def check(self) -> float | None:
        """Seconds until the next look; None for none but at memory."""
        pause = self.limits.check()
        return None if pause is not None and pause > _NEVER / 2 else pause

    def begin(self, worker: WorkerState, key: int) -> FakeProcess:
        """The worker begins a call now."""
        process: FakeProcess = self.processes[worker.number]
        process.current, process.started = key, self.now
        return process


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


def test_calls_without_limits_are_not_looked_at(house: House) -> None:
    house.begin(house.send(1), 1)
    house.limits._looked_at = house.now
    assert house.check() == 1.0, "until the first look at memory"


# Time-outs.


def test_a_call_past_its_time_is_interrupted(house: House) -> None:
    process = house.begin(house.send(1, timeout=2.0), 1)
    assert house.check() == 2.0
    house.now += 1.5
    assert house.check() == pytest.approx(0.5)
    assert process.interrupts == []
    house.now += 0.5
    assert house.check() is not None
    assert process.interrupts[0] == 1
    ending = house.limits.endings[1]
    assert isinstance(ending.error, CallTimeoutError)
    assert "call 1, simulate, had run for 2 s" in str(ending.error)
    assert process.kills == 0


def test_time_counts_from_the_start_in_a_worker(house: House) -> None:
    process = house.begin(house.send(1, 2, timeout=2.0), 1)
    for _ in range(3):  # the second waits behind the first
        house.now += 1.9
        house.check()
        process.started = house.now
    assert process.interrupts == []
    process.current, process.started = 2, house.now
    house.now += 2.0
    house.check()
    assert process.interrupts[0] == 2


def test_what_the_worker_began_before_is_another_call(house: House) -> None:
    """A worker's note of when it began is that of its last call with a time-out."""
    house.processes[1].started = house.processes[2].started = house.now - 50
    worker = house.send(1, timeout=2.0)
    house.processes[worker.number].current = 1
    assert house.check() == 2.0
    assert house.processes[worker.number].interrupts == []


def test_a_call_that_ends_in_time_is_forgotten(house: House) -> None:
    worker = house.send(1, timeout=2.0)
    process = house.begin(worker, 1)
    house.check()
    house.pool.finish(worker, [1], [1.0])
    assert house.limits.conclude(1, None) is None
    process.current = 0
    house.now += 10
    assert house.check() is None
    assert process.interrupts == []


def test_a_call_that_came_back_counts_anew(house: House) -> None:
    worker = house.send(1, timeout=2.0)
    house.pool.give_back(worker, [1])
    assert house.check() is None
    house.now += 10
    process = house.begin(house.send(timeout=2.0), 1)
    assert house.check() == 2.0
    assert process.interrupts == []


def test_a_call_that_does_not_yield_ends_with_its_worker(house: House) -> None:
    process = house.begin(house.send(1, timeout=2.0), 1)
    house.now += 2.0
    house.check()
    pauses = []
    while not process.kills:
        pause = house.check()
        if pause is None:
            break
        pauses.append(pause)
        house.now += pause
        assert len(pauses) < 50
    assert sum(pauses) == pytest.approx(GRACE_SECONDS, abs=0.1)
    assert set(process.interrupts) == {1}
    assert (process.stacks, process.kills) == (1, 1)
    assert house.check() is None, "its end is on the way"
    assert process.kills == 1


def test_the_error_of_a_call_that_yielded_tells_where_it_stood(house: House) -> None:
    worker = house.send(1, timeout=2.0)
    process = house.begin(worker, 1)
    house.now += 2.5
    house.check()
    house.pool.finish(worker, [1], [2.5])
    process.current = 0
    try:
        raise CallInterrupted
    except CallInterrupted as interrupt:
        packed = pack_exception(interrupt)
    ending = house.limits.conclude(1, packed)
    assert ending is not None
    error = ending.error
    assert isinstance(error, CallTimeoutError)
    assert error.seconds == 2.5
    assert "test_the_error_of_a_call_that_yielded_tells_where_it_stood" in error.stack
    assert house.limits.endings == {}


def test_the_error_of_a_call_that_did_not_yield_tells_what_its_worker_wrote(house: House) -> None:
    worker = house.send(1, timeout=2.0)
    house.begin(worker, 1)
    house.now += 2.0
    house.check()
    house.pool.lose(worker, [1])
    ending = house.limits.conclude(1, None, "File x, line 3 in f")
    assert ending is not None and isinstance(ending.error, CallTimeoutError)
    assert ending.error.stack == "File x, line 3 in f"
    assert house.check() is None


def test_a_call_that_waits_for_others_is_not_killed_for_want_of_cpus(house: House) -> None:
    worker = house.send(1, timeout=2.0)
    process = house.begin(worker, 1)
    house.pool.block(worker)
    house.now += 2.0
    house.check()
    assert process.interrupts[0] == 1
    for _ in range(10):
        house.now += GRACE_SECONDS
        house.check()
    assert process.kills == 0
    house.pool.ask_resume(worker)
    assert house.pool.resume() == [worker]
    for _ in range(10):
        house.now += GRACE_SECONDS
        house.check()
    assert process.kills == 1


def test_workers_that_run_calls_beside_each_other_see_to_time_themselves(house: House) -> None:
    house.pool.add_stage(StageState(7, make_need(cpus=0), 9, is_light=False, is_host=True))
    house.pool.add_worker(3, is_host=True, stage=7)
    house.processes[3] = FakeProcess(3)
    house.send(1, timeout=2.0, stage=7)
    house.now += 1.9
    assert house.check() == pytest.approx(0.1 + 2 * GRACE_SECONDS)
    house.limits.cancel(1, 3)
    assert house.courier.sent == [(3, (m.STOP, 1))]
    assert house.processes[3].forbidden == [1], "it may not have begun"
    assert house.processes[3].interrupts == []


def test_a_worker_whose_socket_is_full_is_told_at_the_next_look(house: House) -> None:
    house.pool.add_stage(StageState(7, make_need(cpus=0), 9, is_light=False, is_host=True))
    house.pool.add_worker(3, is_host=True, stage=7)
    process = house.processes[3] = FakeProcess(3)
    house.send(1, stage=7)
    house.courier.is_full = True
    house.limits.cancel(1, 3)
    pause = house.check()
    assert pause is not None and pause < 0.1
    house.now += GRACE_SECONDS * 0.9
    house.courier.is_full = False
    assert house.check() is not None
    assert house.courier.sent == [(3, (m.STOP, 1))], "from here on it has time to end"
    house.now += GRACE_SECONDS * 0.9
    house.check()
    assert house.courier.sent == [(3, (m.STOP, 1))]
    assert (process.stacks, process.kills) == (0, 0)


def test_a_worker_that_cannot_be_told_is_ended_in_the_end(house: House) -> None:
    house.pool.add_stage(StageState(7, make_need(cpus=0), 9, is_light=False, is_host=True))
    house.pool.add_worker(3, is_host=True, stage=7)
    process = house.processes[3] = FakeProcess(3)
    house.send(1, stage=7)
    house.courier.is_full = True
    house.limits.cancel(1, 3)
    for _ in range(3):
        house.now += GRACE_SECONDS
        house.check()
    assert (process.stacks, process.kills) == (1, 1)


def test_one_that_cannot_see_to_it_is_ended_in_the_end(house: House) -> None:
    house.pool.add_stage(StageState(7, make_need(cpus=0), 9, is_light=False, is_host=True))
    house.pool.add_worker(3, is_host=True, stage=7)
    process = house.processes[3] = FakeProcess(3)
    house.send(1, timeout=2.0, stage=7)
    house.now += 2.0 + 2 * GRACE_SECONDS
    house.check()
    assert (process.stacks, process.kills) == (1, 0)
    house.now += 1.0
    house.check()
    assert process.kills == 1
    ending = house.limits.conclude(1, None)
    assert ending is not None and isinstance(ending.error, CallTimeoutError)


# Cancellation.


def test_a_cancelled_call_that_comes_back_from_its_worker_is_not_sent_again(house: House) -> None:
    worker = house.send(1)
    house.limits.cancel(1, worker.number)
    house.pool.give_back(worker, [1])
    assert house.check() is not None, "somebody has to drop it"
    house.limits.drop_cancelled()
    assert house.pool.list_queued() == []
    assert house.check() is None
    assert house.processes[worker.number].forbidden == []


def test_a_cancelled_call_is_interrupted_and_has_no_error(house: House) -> None:
    worker = house.send(1)
    process = house.begin(worker, 1)
    house.limits.cancel(1, worker.number)
    house.limits.cancel(1, worker.number)
    assert process.interrupts == [1], "once"
    assert process.forbidden == [1]
    house.pool.finish(worker, [1], [1.0])
    ending = house.limits.conclude(1, pack_exception(CallInterrupted()))
    assert ending is not None and ending.error is None
    assert process.forbidden == []


def test_a_cancelled_call_that_does_not_yield_ends_with_its_worker(house: House) -> None:
    worker = house.send(1)
    process = house.begin(worker, 1)
    house.limits.cancel(1, worker.number)
    for _ in range(4):
        house.check()
        house.now += 0.6 * GRACE_SECONDS
    assert process.kills == 1


@pytest.mark.parametrize("is_blocked", [False, True])
def test_a_worker_is_told_again_before_it_is_ended(house: House, is_blocked: bool) -> None:
    worker = house.send(1)
    process = house.begin(worker, 1)
    if is_blocked:
        house.pool.block(worker)
    house.limits.cancel(1, worker.number)
    for _ in range(3):
        pause = house.check()
        assert pause is not None
        house.now += pause
    assert process.repeats == [1, 1, 1]
    assert process.kills == process.stacks == 0


def test_a_cancelled_call_that_has_not_begun_costs_no_worker(house: House) -> None:
    """It is in the worker's hands behind another call, which goes on for long."""
    worker = house.send(1, 2)
    process = house.begin(worker, 1)
    house.limits.cancel(2, worker.number)
    for _ in range(10):
        pause = house.check()
        assert pause is not None
        house.now += pause
    assert process.kills == process.stacks == 0
    process.current = 2  # now it has begun
    house.check()
    assert process.interrupts[-1] == 2


def test_a_cancelled_call_that_came_back_or_is_lost_is_forgotten(house: House) -> None:
    worker = house.send(1)
    house.limits.cancel(1, worker.number)
    house.pool.give_back(worker, [1])
    house.pool.withdraw(1)
    assert house.check() is None
    assert house.limits.endings == {}


def test_a_time_out_does_not_come_after_a_cancellation(house: House) -> None:
    worker = house.send(1, timeout=2.0)
    house.begin(worker, 1)
    house.limits.cancel(1, worker.number)
    house.now += 2.0
    house.check()
    assert house.limits.endings[1].error is None


def test_a_call_that_is_cancelled_while_its_time_out_ends_it_has_no_error(house: House) -> None:
    worker = house.send(1, timeout=2.0)
    process = house.begin(worker, 1)
    house.now += 2.0
    house.check()
    house.limits.cancel(1, worker.number)
    assert house.limits.endings[1].error is None
    assert process.interrupts == [1], "once"
    assert process.forbidden == [1]
    for _ in range(4):
        house.now += 0.6 * GRACE_SECONDS
        house.check()
    assert process.kills == 1


def test_a_cancelled_call_whose_worker_is_ended_has_no_error(house: House) -> None:
    worker = house.send(1)
    house.begin(worker, 1)
    house.limits.cancel(1, worker.number)
    house.limits.end_with(1, RuntimeError("the actor was stopped"))
    ending = house.limits.conclude(1, None)
    assert ending is not None and ending.error is None


def test_a_call_whose_worker_is_ended_is_left_to_that(house: House) -> None:
    worker = house.send(1, timeout=2.0)
    process = house.begin(worker, 1)
    error = RuntimeError("the actor was stopped")
    house.limits.end_with(1, error)
    house.now += 10
    assert house.check() is None
    assert (process.interrupts, process.kills) == ([], 0)
    ending = house.limits.conclude(1, None)
    assert ending is not None and ending.error is error


# Memory.


def test_a_call_with_a_memory_limit_is_looked_at_soon(house: House) -> None:
    house.limits._looked_at = house.now
    worker = house.send(1, need=make_need(memory="1GB"))
    assert house.watch.begun == [(worker.number, 1000 + worker.number, 1)]
    pause = house.check()
    assert pause is not None and pause <= 0.1
    house.begin(worker, 1)
    house.now += pause
    assert house.check() == 2.0, "and then as the watch says"
    (seen,) = house.watch.looks
    assert [(w.number, w.key, w.call, w.limit) for w in seen if w.key] == [
        (worker.number, 1, "simulate", 10**9)
    ]
    assert {w.number for w in seen} == {1, 2}


def test_a_call_past_its_limit_ends_with_its_worker(house: House) -> None:
    worker = house.send(1, need=make_need(memory="1GB"))
    process = house.begin(worker, 1)
    house.limits._looked_at = 0.0
    house.watch.victim = worker.number
    house.check()
    assert (process.kills, process.interrupts) == (1, [])
    house.pool.lose(worker, [1])
    ending = house.limits.conclude(1, None)
    assert ending is not None and isinstance(ending.error, OutOfMemoryError)
    assert ending.error.limit == 10**9


def test_the_greediest_call_ends_where_the_machine_is_near_its_end(house: House) -> None:
    worker = house.send(1)
    process = house.begin(worker, 1)
    house.limits._looked_at = 0.0
    house.watch.victim = worker.number
    house.check()
    assert process.kills == 1
    ending = house.limits.conclude(1, None)
    assert ending is not None and isinstance(ending.error, OutOfMemoryError)
    assert ending.error.limit is None


def test_calls_of_an_actor_have_its_limit(house: House) -> None:
    need = make_need(cpus=0, memory="3GB")
    house.pool.add_stage(StageState(7, need, 9, is_light=False, is_host=False))
    house.pool.add_worker(3, stage=7)
    house.processes[3] = FakeProcess(3)
    worker = house.send(1, stage=7)
    house.begin(worker, 1)
    house.limits._looked_at = 0.0
    house.check()
    assert [w.limit for w in house.watch.looks[0] if w.key] == [3 * 10**9]


def test_memory_is_not_looked_at_where_nothing_runs(house: House) -> None:
    house.limits._looked_at = 0.0
    assert house.check() is None
    assert house.watch.looks == []


def test_descriptors_are_given_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.limits.close()
    assert house.watch.is_closed
    House(monkeypatch).limits.close()
