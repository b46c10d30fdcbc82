"""What goes to workers, and what comes back unread."""

from collections import deque
from typing import Any

from manyhands.core.functions import Function
from manyhands.core.resources import Capacity, make_need
from manyhands.engines.local import messages as m
from manyhands.engines.local.courier import Courier, LateStore
from manyhands.engines.local.pool_parts import Entry, StageState
from manyhands.engines.local.pool_state import PoolState


class FakeProcess:
    """A worker that reads nothing, or reads when the parent does."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ordered = 0
        self.channel = self.inbox = self
        self.unread: deque[tuple[Any, ...]] = deque()
        self.read: list[tuple[Any, ...]] = []
        self.reads_beside = False

    def send(self, message: tuple[Any, ...], _fds: tuple[int, ...], *, wait: bool) -> bool:
        assert not wait
        self.unread.append(message)
        return True

    def receive(self, *, wait: bool) -> tuple[tuple[Any, ...], tuple[int, ...]] | None:
        """The parent takes a message, and the worker the next."""
        assert not wait
        if not self.unread:
            return None
        message = self.unread.popleft()
        if self.reads_beside and self.unread:
            self.read.append(self.unread.popleft())
        return message, ()


def send_to_actor(*keys: int) -> tuple[PoolState, Courier, FakeProcess]:
    """An actor that runs calls one by one is sent calls, each in a message of its own."""
    pool = PoolState(Capacity(2))
    pool.add_stage(StageState(7, make_need(cpus=0), 99, is_light=False, is_host=False))
    worker = pool.add_worker(3, stage=7)
    process = FakeProcess(3)
    courier = Courier(pool, {3: process}, None, LateStore(None))  # type: ignore[dict-item, arg-type]
    function = Function(1, "simulate", b"")
    function.seconds = 1e-6  # so many are sent ahead
    for key in keys:
        pool.enqueue(Entry(key, function, b"%d" % key, stage=7))
        for _, entries in pool.plan():
            assert courier.send_calls(worker, entries)
    return pool, courier, process


def list_calls(messages: Any) -> list[int]:
    """Keys of the calls in numbered messages, by their numbers."""
    ordered = sorted(message[1:] for message in messages if message[0] == m.ORDERED)
    return [key for _, inner in ordered if inner[0] == m.CALLS for key in inner[1]]


def test_what_an_actor_is_sent_is_numbered() -> None:
    _, _, process = send_to_actor(1, 2)
    assert [message[:2] for message in process.unread] == [(m.ORDERED, n) for n in range(3)]
    assert [message[2][0] for message in process.unread] == [m.FUNCTION, m.CALLS, m.CALLS]


def test_calls_of_an_actor_keep_their_places_when_one_is_taken_back() -> None:
    pool, courier, process = send_to_actor(1, 2, 3)
    process.reads_beside = True
    assert courier.take_back(process, pool.workers[3], {2})  # type: ignore[arg-type]
    assert list_calls([*process.read, *process.unread]) == [1, 3]
    assert [entry.key for entry in pool.list_queued()] == [2]
    assert sorted(message[1] for message in [*process.read, *process.unread]) == [0, 1, 2, 3]
    pool.validate()


def test_all_calls_of_an_actor_come_back_from_a_worker_that_has_ended() -> None:
    pool, courier, process = send_to_actor(1, 2)
    assert courier.take_back(process, pool.workers[3])  # type: ignore[arg-type]
    assert [entry.key for entry in pool.list_queued()] == [1, 2]
    assert list_calls(process.unread) == []
