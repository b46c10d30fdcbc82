"""Workers that run calls beside each other: what has ended does not wait for what has not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import manyhands as mh
from manyhands.testing.checks import LIMIT, wait_for
from manyhands.testing.work import Gate


class Threaded:
    def quick(self, x: int) -> int:
        return x

    def enter(self, gate: Gate) -> str:
        gate.enter()
        return "entered"


class Asynchronous:
    async def quick(self, x: int) -> int:
        return x

    async def block_the_loop(self, gate: Gate) -> str:
        gate.enter()
        return "entered"


def test_results_do_not_wait_for_a_slow_call_beside_them(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with mh.Session("local", workers=1):
        actor = mh.actor(Threaded, max_concurrency=4).start()
        before = [actor.quick.submit(x) for x in range(100)]
        slow = actor.enter.submit(gate)
        after = [actor.quick.submit(x) for x in range(100)]
        assert mh.gather([*before, *after], timeout=LIMIT) == [*range(100), *range(100)]
        assert not slow.done()
        gate.open()
        assert slow.result(LIMIT) == "entered"


def test_results_do_not_wait_for_a_call_that_blocks_the_loop(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with mh.Session("local", workers=1):
        actor = mh.actor(Asynchronous).start()
        before = [actor.quick.submit(x) for x in range(100)]
        blocking = actor.block_the_loop.submit(gate)
        assert mh.gather(before, timeout=LIMIT) == list(range(100))
        assert not blocking.done()
        gate.open()
        assert blocking.result(LIMIT) == "entered"


@pytest.mark.parametrize("kind", [Threaded, Asynchronous])
def test_shared_values_are_let_go_of_when_all_calls_of_their_message_have_ended(kind: type) -> None:
    with mh.Session("local", workers=1) as session:
        actor = mh.actor(kind, **({} if kind is Asynchronous else {"max_concurrency": 4})).start()
        blocks = [bytes([x]) * 300_000 for x in range(20)]
        assert mh.gather([actor.quick.submit(b) for b in blocks], timeout=LIMIT) == blocks

        def is_let_go() -> bool:
            actor.quick(0)  # what a worker lets go of, it tells with its next results
            holders = [name for value in session.memory().values for name in value.holders]
            return not any("worker" in name for name in holders)

        wait_for(is_let_go, "the worker lets go of what it was sent")


class Delegating:
    def double(self, x: int) -> int:
        return 2 * mh.submit(int, x).result()

    def double_later(self, x: int) -> mh.Future[int]:
        return mh.submit(int, 2 * x)  # which the host's loop awaits

    def count(self, most: int) -> Iterator[int]:
        yield from range(most)


class Awaiting:
    async def double(self, x: int) -> int:
        return 2 * await mh.submit(int, x)

    async def double_later(self, x: int) -> int:
        first, second = await asyncio.gather(mh.submit(int, x), mh.submit(int, x))
        return first + second

    async def count(self, most: int) -> AsyncIterator[int]:
        for x in range(most):
            yield x


@pytest.mark.parametrize("kind", [Delegating, Awaiting])
def test_calls_that_all_wait_for_others_let_these_have_their_cpus(kind: type) -> None:
    with mh.Session("local", workers=1):
        actor = mh.actor(kind, max_concurrency=3, cpus=1).start()
        for _ in range(5):
            futures = [actor.double.submit(x) for x in range(7)]
            assert mh.gather(futures, timeout=LIMIT) == [2 * x for x in range(7)]
            assert actor.double_later.submit(4).result(LIMIT) == 8


@pytest.mark.parametrize("kind", [Delegating, Awaiting])
def test_a_stream_that_waits_to_be_read_lets_others_have_its_cpus(kind: type) -> None:
    with mh.Session("local", workers=1):
        actor = mh.actor(kind, max_concurrency=3, cpus=1).start()
        stream = actor.count.stream(1000)
        assert mh.submit(int, 4).result(LIMIT) == 4
        assert list(stream) == list(range(1000))
