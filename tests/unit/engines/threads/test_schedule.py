"""Which call is next, and what those that run hold."""

import random
from typing import Any

import pytest

from manyhands.core.model import CallOptions
from manyhands.core.resources import Capacity, make_need
from manyhands.engines.threads.schedule import Fate, Job, Schedule, Seat
from manyhands.engines.threads.waits import Waiter
from tests.unit.engines.sinks import call


def make_schedule(cpus: float = 2, **options: Any) -> Schedule:
    return Schedule(Capacity(cpus, **options))


class Queue:
    """Pushes jobs with increasing keys and orders."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.keys = 0

    def push(self, depth: int = 0, fate: Fate | None = None, **options: Any) -> int:
        self.keys += 1
        made = call(self.keys, abs, **options)
        self.schedule.push(Job(made, depth, self.keys, made.options.need, fate=fate))
        return self.keys

    def start(self) -> list[int]:
        """Start all that can be started."""
        started = []
        while (found := self.schedule.start_next()) is not None:
            started.append(found[0].call.key)
        return started


@pytest.fixture
def schedule() -> Schedule:
    return make_schedule()


@pytest.fixture
def queue(schedule: Schedule) -> Queue:
    return Queue(schedule)


def get_seat(schedule: Schedule) -> Seat:
    found = schedule.start_next()
    assert found is not None
    return found[1]


def test_calls_start_in_their_order_while_there_is_room(queue: Queue) -> None:
    for _ in range(4):
        queue.push()
    assert queue.start() == [1, 2]
    assert queue.start() == []


def test_priority_comes_before_depth_and_depth_before_order() -> None:
    queue = Queue(make_schedule(10))
    queue.push()
    queue.push(depth=1)
    queue.push(priority=1)
    queue.push(depth=3)
    queue.push(priority=-1, depth=9)
    queue.push()
    assert queue.start() == [3, 4, 2, 1, 6, 5]


def test_a_call_that_does_not_fit_lets_others_pass_that_need_other_things() -> None:
    queue = Queue(make_schedule(4, gpus=("0", "1")))
    queue.push(need=make_need(gpus=1))
    queue.push(need=make_need(gpus=2))
    queue.push(need=make_need(gpus=1))
    queue.push()
    assert queue.start() == [1, 4]


def test_a_call_that_waits_is_not_starved() -> None:
    schedule = make_schedule(2)
    queue = Queue(schedule)
    queue.push()
    seat = get_seat(schedule)
    queue.push(need=make_need(cpus=2))
    for _ in range(5):
        queue.push()
    assert queue.start() == []
    schedule.leave(seat)
    assert queue.start() == [2]


def test_calls_without_cpus_start_at_once(queue: Queue) -> None:
    for _ in range(3):
        queue.push()
    queue.push(need=make_need(cpus=0))
    assert queue.start() == [1, 2, 4]


def test_fractions_of_cpus(queue: Queue) -> None:
    for _ in range(9):
        queue.push(need=make_need(cpus=0.25))
    assert queue.start() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_is_withdrawn_does_not_start(queue: Queue, schedule: Schedule) -> None:
    for _ in range(5):
        queue.push()
    job = schedule.withdraw(1)
    assert job is not None
    assert job.call.key == 1
    assert schedule.withdraw(1) is None
    assert schedule.withdraw(99) is None
    assert queue.start() == [2, 3]


def test_what_is_withdrawn_is_not_kept(queue: Queue, schedule: Schedule) -> None:
    for _ in range(100):
        queue.push()
    for key in range(2, 101):
        schedule.withdraw(key)
    assert sum(map(len, schedule._lanes.values())) <= 2


def test_all_that_waits_can_be_taken_back(queue: Queue, schedule: Schedule) -> None:
    for _ in range(3):
        queue.push()
    assert queue.start() == [1, 2]
    assert [job.call.key for job in schedule.clear()] == [3]
    assert schedule._lanes == {}


def test_calls_of_a_call_that_came_to_nothing_do_not_start(
    queue: Queue, schedule: Schedule
) -> None:
    outer = Fate(None)
    inner = Fate(outer)
    queue.push(fate=inner)
    queue.push()
    outer.is_lost = True
    assert queue.start() == [2]
    assert schedule.withdraw(1) is not None


def test_devices_are_told_apart() -> None:
    schedule = make_schedule(4, gpus=("5", "7"))
    queue = Queue(schedule)
    queue.push(need=make_need(gpus=1))
    queue.push(need=make_need(gpus=1))
    first, second = get_seat(schedule), get_seat(schedule)
    assert (first.devices, second.devices) == (("5",), ("7",))
    schedule.leave(first)
    schedule.leave(first)
    schedule.capacity.validate()
    queue.push(need=make_need(gpus=1))
    assert get_seat(schedule).devices == ("5",)


# Seats of calls that wait.


def test_a_call_that_waits_gives_its_cpus_up(queue: Queue, schedule: Schedule) -> None:
    for _ in range(3):
        queue.push(need=make_need(cpus=2))
    seat = get_seat(schedule)
    schedule.park(seat)
    assert not seat.has_cpus
    other = get_seat(schedule)
    waiter = Waiter(1, seat)
    schedule.ask_return(waiter)
    schedule.ask_return(waiter)
    schedule.let_return()
    assert not waiter.is_back
    schedule.leave(other)
    assert queue.start() == [], "a new call came before one that has begun"
    schedule.let_return()
    assert waiter.is_back
    assert seat.has_cpus
    schedule.leave(seat)
    schedule.capacity.validate()
    assert queue.start() == [3]


def test_a_call_that_cannot_wait_goes_on_beside_others(queue: Queue, schedule: Schedule) -> None:
    """Nothing new begins until there are as many cpus again as calls take."""
    for _ in range(3):
        queue.push(need=make_need(cpus=2))
    queue.push(need=make_need(cpus=0))
    seat = get_seat(schedule)
    schedule.park(seat)
    other = get_seat(schedule)
    waiter = Waiter(1, seat)
    schedule.ask_return(waiter)
    schedule.return_at_once(waiter)
    schedule.return_at_once(waiter)
    assert (seat.busy, seat.has_cpus, waiter.is_back) == (1, True, True)
    assert queue.start() == [4], "it needs no cpus"
    schedule.leave(seat)
    assert queue.start() == []
    schedule.leave(other)
    schedule.capacity.validate()
    assert queue.start() == [3]


def test_a_seat_is_shared_by_the_calls_of_an_actor(queue: Queue, schedule: Schedule) -> None:
    queue.push(need=make_need(cpus=2))
    seat = get_seat(schedule)
    seat.busy = 2
    schedule.park(seat)
    assert seat.has_cpus, "another of its calls computes"
    schedule.park(seat)
    assert not seat.has_cpus
    waiters = [Waiter(1, seat), Waiter(2, seat)]
    for waiter in waiters:
        schedule.ask_return(waiter)
    schedule.let_return()
    assert [waiter.is_back for waiter in waiters] == [True, True]
    assert seat.busy == 2


def test_a_seat_is_free_when_those_who_are_left_wait(queue: Queue, schedule: Schedule) -> None:
    queue.push(need=make_need(cpus=2))
    seat = get_seat(schedule)
    seat.busy = 2
    schedule.park(seat)
    schedule.end_turn(seat, 1)
    assert not seat.has_cpus
    schedule.ask_return(Waiter(1, seat))
    schedule.let_return()
    schedule.end_turn(seat, 0)
    assert seat.has_cpus, "an actor with nothing to do keeps them"


def test_who_waits_on_a_seat_that_was_given_up_goes_on(queue: Queue, schedule: Schedule) -> None:
    queue.push(need=make_need(cpus=2))
    seat = get_seat(schedule)
    schedule.park(seat)
    waiter = Waiter(1, seat)
    schedule.leave(seat)
    schedule.ask_return(waiter)
    schedule.let_return()
    assert waiter.is_back
    schedule.capacity.validate()
    assert schedule.capacity.fits(make_need(cpus=2))


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost_or_overdrawn(seed: int) -> None:
    """Random calls, waits, returns and withdrawals; in the end all is free, and each call started once at most."""
    chance = random.Random(seed)
    schedule = make_schedule(3, gpus=("0", "1"), memory=1000, named={"licence": 2})
    needs = [
        make_need(),
        make_need(cpus=0),
        make_need(cpus=0.5),
        make_need(cpus=3),
        make_need(gpus=1),
        make_need(gpus=0.5, memory=400),
        make_need(cpus=2, resources={"licence": 1}),
    ]
    queue = Queue(schedule)
    waiting: set[int] = set()
    running: dict[int, Seat] = {}
    parked: dict[int, Seat] = {}
    returning: dict[int, Waiter] = {}

    def settle() -> None:
        schedule.let_return()
        while (found := schedule.start_next()) is not None:
            job, seat = found
            waiting.remove(job.call.key)
            running[job.call.key] = seat
        for key in [key for key, waiter in returning.items() if waiter.is_back]:
            running[key] = parked.pop(key)
            del returning[key]
        schedule.capacity.validate()

    for _ in range(300):
        what = chance.random()
        if what < 0.4:
            waiting.add(
                queue.push(
                    need=chance.choice(needs),
                    priority=chance.randrange(3),
                    depth=chance.randrange(3),
                )
            )
        elif what < 0.6 and running:
            schedule.leave(running.pop(chance.choice(list(running))))
        elif what < 0.75 and running:
            key = chance.choice(list(running))
            parked[key] = running.pop(key)
            schedule.park(parked[key])
        elif what < 0.9 and parked.keys() - returning.keys():
            key = chance.choice(sorted(parked.keys() - returning.keys()))
            returning[key] = Waiter(key, parked[key])
            schedule.ask_return(returning[key])
        elif waiting:
            key = chance.choice(sorted(waiting))
            assert schedule.withdraw(key) is not None
            waiting.remove(key)
        settle()
    while waiting or running or parked:
        for seat in running.values():
            schedule.leave(seat)
        running.clear()
        for key in parked.keys() - returning.keys():
            returning[key] = Waiter(key, parked[key])
            schedule.ask_return(returning[key])
        settle()
    assert schedule.capacity.fits(make_need(cpus=3, gpus=2, memory=1000))
    assert schedule.start_next() is None
    assert schedule._jobs == {}


def test_a_jobs_options_are_its_calls() -> None:
    options = CallOptions(priority=4)
    job = Job(call(1, abs, priority=4), 2, 7, options.need)
    assert job.options.priority == 4
    assert job.rank == (-4, -2, 7)
