"""Typical user code: a type checker accepts it whole and sees the types asserted here.

It is also run: every function below is called by `test_typing.py`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import assert_type

import manyhands as mh


@dataclass(frozen=True)
class Point:
    x: float
    y: float


def double(x: int) -> int:
    return 2 * x


def half(x: int) -> float:
    return x / 2


def area(width: float, height: float) -> float:
    return width * height


def label(number: int, *, prefix: str = "n") -> str:
    return f"{prefix}{number}"


def total(numbers: list[int]) -> int:
    return sum(numbers)


@mh.task
def triple(x: int) -> int:
    return 3 * x


@mh.task(retries=2, retry_on=(OSError,), name="fetch")
def fetch(name: str, *, size: int = 1) -> bytes:
    return name.encode() * size


norm = mh.task(math.hypot, retries=1)


def is_transient(error: BaseException) -> bool:
    return isinstance(error, OSError)


@mh.task(
    cpus=0.5,
    memory="1GB",
    timeout=60,
    priority=1,
    retries=3,
    retry_on=is_transient,
    worker_retries=0,
    backoff=0.01,
    backoff_cap=1,
)
def weigh(x: int) -> float:
    return x * 1.5


@mh.task
def count_down(start: int) -> Generator[int, None, None]:
    while start:
        yield start
        start -= 1


@mh.task
async def triple_later(x: int) -> int:
    await asyncio.sleep(0)
    return 3 * x


class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def checkpoint(self) -> int:
        return self.value

    @classmethod
    def restore(cls, value: int) -> Counter:
        return Counter(value)


# mypy takes no notice of what a class's decorator makes of it, so this is how typed code makes an actor's class.
counters = mh.actor(Counter, restarts=1)


def use_map() -> None:
    assert_type(mh.map(double, range(4)), list[int])
    assert_type(mh.map(half, [1, 2]), list[float])
    assert_type(mh.map(area, [1.0, 2.0], [3.0, 4.0]), list[float])
    assert_type(mh.map(str.upper, ["a", "b"]), list[str])
    assert_type(mh.map(lambda x: x + 1, [1, 2]), list[int])
    assert_type(mh.map(lambda p: p.x, [Point(1, 2)]), list[float])
    assert_type(mh.map(Point, [1.0], [2.0]), list[Point])
    assert_type(mh.map(double, [1], batch=10, progress=False, retries=1), list[int])
    assert_type(mh.map(double, [1], retry_on=(OSError, ValueError)), list[int])
    assert_type(mh.map(double, [1], retries=1, retry_on=is_transient), list[int])
    assert_type(mh.map(double, [1], timeout=60, deadline=60.0, cpus=1, priority=2), list[int])
    assert_type(mh.map(double, [1], on_error="raise"), list[int])
    for outcome in mh.map(double, [1, 2], on_error="return"):
        if isinstance(outcome, BaseException):
            raise outcome
        assert_type(outcome, int)
    assert_type(mh.starmap(area, [(1.0, 2.0), (3.0, 4.0)]), list[float])


def use_streams() -> None:
    assert_type(mh.imap(double, itertools.count()), Generator[int, None, None])
    assert_type(mh.imap_unordered(half, range(3)), Generator[float, None, None])
    firsts = list(itertools.islice(mh.imap(double, itertools.count()), 3))
    assert_type(firsts, list[int])
    with count_down.stream(3) as numbers:
        assert isinstance(numbers, mh.Stream)
        assert [next(numbers), *numbers] == [3, 2, 1]


def use_submit() -> None:
    number = mh.submit(double, 3)
    assert_type(number, mh.Future[int])
    assert_type(number.result(timeout=30), int)
    assert_type(number.exception(), BaseException | None)
    assert_type(mh.submit(label, 3, prefix="x").result(), str)
    assert_type(mh.submit(lambda: 3).result(), int)
    as_stdlib: concurrent.futures.Future[int] = number
    number.add_done_callback(lambda future: print(future.done()))
    number.cancel()
    assert_type(number.cancel(running=True), bool)
    print(as_stdlib.done())


def use_futures_as_arguments() -> None:
    first = mh.submit(double, 1)
    second = mh.submit(double, first)
    assert_type(second, mh.Future[int])
    assert_type(mh.submit(area, 2.0, mh.submit(half, 3)).result(), float)
    assert_type(triple.submit(first).result(), int)
    # A list of futures stands for the list of results.
    parts = [mh.submit(double, n) for n in range(3)]
    assert_type(mh.submit(total, parts).result(), int)


def use_tasks() -> None:
    assert_type(triple(3), int)
    assert_type(triple.submit(3), mh.Future[int])
    assert_type(triple.map([1, 2]), list[int])
    assert_type(triple.options(retries=2).submit(3).result(), int)
    assert_type(triple.options(timeout=60, memory="1GB").map([1, 2]), list[int])
    assert_type(weigh.submit(2).result(), float)
    assert_type(triple_later.submit(2).result(), int)
    assert_type(triple_later.map([1, 2]), list[int])
    assert_type(fetch("a", size=2), bytes)
    assert_type(fetch.submit("a", size=2).result(), bytes)
    assert_type(norm(3.0, 4.0), float)
    assert_type(norm.submit(3.0, 4.0).result(), float)


def use_collections_of_futures() -> None:
    futures = [mh.submit(double, n) for n in range(3)]
    assert_type(mh.gather(futures), list[int])
    assert_type(mh.gather(futures, timeout=30, deadline=60), list[int])
    for outcome in mh.gather(futures, on_error="return"):
        if isinstance(outcome, BaseException):
            raise outcome
        assert_type(outcome, int)
    done, waiting = mh.wait(futures, timeout=30, return_when="FIRST_COMPLETED")
    assert_type(done, set[mh.Future[int]])
    assert_type(waiting, set[mh.Future[int]])
    for future in mh.as_completed(futures, timeout=30):
        assert_type(future, mh.Future[int])
        assert_type(future.result(), int)


def prepare(level: int) -> None:
    print(level)


def use_sessions() -> None:
    with mh.Session("threads", workers=2) as session:
        assert_type(session, mh.Session)
        assert_type(session.map(double, [1, 2]), list[int])
        assert_type(session.submit(double, 1), mh.Future[int])
        assert_type(session.submit(triple, 1).result(), int)
        assert_type(session.imap(double, [1]), Generator[int, None, None])
        assert_type(session.starmap(area, [(1.0, 2.0)]), list[float])
        assert_type(session.report(), mh.Report)
    with mh.Session(workers=2, initializer=prepare, initargs=(1,)):
        assert_type(mh.map(double, [1]), list[int])
    inline = mh.Session("inline")
    inline.close()
    options = mh.Session(
        workers=2, min_workers=1, max_calls_per_worker=100, gpus=0, resources={"licence": 1}
    )
    with options as session:
        session.restart_workers()
        assert_type(session.actors(), list[mh.ActorFact])


def use_actors() -> None:
    assert_type(counters, mh.ActorClass[Counter])
    assert_type(counters(5).add(), int)
    counter = counters.start(10)
    assert_type(counter, mh.ActorHandle)
    assert [counter.add(1), counter.add.submit(1).result(), counter.add()] == [11, 12, 13]
    named = counters.options(name="hits").start()
    assert mh.find_actor("hits") == named
    named.kill()
    counter.stop()


async def use_await() -> float:
    number = await mh.submit(double, 1)
    assert_type(number, int)
    pair = await asyncio.gather(mh.submit(double, 1), mh.submit(half, 1))
    assert_type(pair, tuple[int, float])
    async for step in count_down.stream(2):
        print(step)
    return pair[1]


def use_report() -> None:
    report = mh.report()
    assert_type(report, mh.Report)
    assert_type(report.wall_seconds, float)
    assert_type(report.calls, int)
    print(str(report), report.to_dict())


def use_errors() -> None:
    try:
        mh.submit(double, 1).result(timeout=30)
    except mh.WorkerDiedError as error:
        print(error)
    except (mh.CallTimeoutError, mh.DeadlineError, mh.OutOfMemoryError) as error:
        print(error)
    except mh.ActorDiedError as error:
        print(error.actor)
    except mh.ManyhandsError as error:
        print(error)
    finally:
        mh.shutdown()


def use_doors() -> None:
    with mh.Executor(max_workers=2, initializer=print, initargs=("x",)) as executor:
        future = executor.submit(double, 3)
        assert_type(future, mh.Future[int])
        assert_type(future.result(timeout=60), int)
        assert_type(executor.map(double, [1], chunksize=2, timeout=5.0), Iterator[int])
        standard: concurrent.futures.Executor = executor
        standard.shutdown(wait=False, cancel_futures=True)
    with mh.Pool(2, maxtasksperchild=5) as pool:
        assert_type(pool.map(double, [1, 2]), list[int])
        assert_type(pool.apply(double, (3,)), int)
        assert_type(pool.apply_async(double, (3,), callback=print).get(timeout=1), int)
        assert_type(pool.starmap_async(double, [(1,)]).get(), list[int])
        for value in pool.imap_unordered(double, iter([1])):
            assert_type(value, int)
