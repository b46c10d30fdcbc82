"""Actors: objects that live in workers, keep their state, and run their methods in order."""

from __future__ import annotations

import asyncio
import threading
from itertools import islice
from typing import TYPE_CHECKING, Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class _Counter:
    """An actor with a state that a number says all of."""

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value

    def add_below(self, amount: int) -> int:
        """Add what a call gives."""
        return self.add(mh.submit(work.square, amount).result(LIMIT))

    def fail(self, message: str) -> None:
        self.value += 1
        raise ValueError(message)

    def count_on(self) -> Iterator[int]:
        for _ in range(50):
            yield self.add()

    def get_pid(self) -> int:
        return work.get_pid()

    def measure(self, value: Any) -> int:
        return work.measure(value)


class _Log:
    """An actor that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def add(self, line: Any) -> None:
        self.lines.append(line)

    def read(self) -> list[Any]:
        return self.lines


class _Node:
    """An actor that calls others."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.others: list[Any] = []

    def know(self, others: list[Any]) -> None:
        self.others = others

    def get(self) -> int:
        return self.value

    def total(self) -> int:
        futures = [other.get.submit() for other in self.others]
        return self.value + int(sum(mh.gather(futures, timeout=LIMIT)))

    def pass_on(self, hops: int) -> int:
        """How often it was passed on along the first of the others."""
        if not hops:
            return 0
        return 1 + int(self.others[0].pass_on(hops - 1))


class _Gatekeeper:
    """An actor whose calls wait for a gate, in threads."""

    def __init__(self, folder: str) -> None:
        self.gate = work.Gate(folder)
        self.diary = work.Diary(folder)

    def enter(self, value: int) -> int:
        return int(self.gate.enter(value))

    def stay(self) -> None:
        self.diary.stay(0.005)


class _AsyncMeeting:
    """An actor with ``async`` methods."""

    def __init__(self) -> None:
        self.present = 0
        self.everybody = asyncio.Event()

    async def meet(self, number: int) -> int:
        self.present += 1
        if self.present >= number:
            self.everybody.set()
        await self.everybody.wait()
        return self.present

    async def fail(self) -> None:
        await asyncio.sleep(0)
        work.fail_with_custom_error(5)

    async def await_square(self, x: int) -> int:
        return int(await mh.submit(work.square, x))

    async def count_on(self) -> AsyncIterator[int]:
        for number in range(50):
            await asyncio.sleep(0)
            yield number

    def get(self) -> int:
        return self.present


@case("actors")
def an_actor_keeps_its_state(open_session: OpenSession) -> None:
    """The methods of an actor run on one object, which is made of the arguments of `start`."""
    with open_session(workers=2):
        counter = mh.actor(_Counter).start(10)
        check_equal([counter.add(x) for x in range(5)], [10, 11, 13, 16, 20])
        other = mh.actor(_Counter).start(start=100)
        check_equal((other.add(), counter.add(amount=2)), (101, 22))
        check_equal(_Counter(3).add(), 4)
        check_equal(mh.actor(_Counter)(3).add(), 4)
        for handle in (counter, other):
            handle.stop()


@case("actors")
def calls_of_one_caller_run_in_order(open_session: OpenSession) -> None:
    """An actor runs the calls of one caller one after another, in the order in which they were submitted."""
    with open_session(workers=2) as session:
        log = mh.actor(_Log).start()
        futures = [log.add.submit(x) for x in range(500)]
        check_equal(log.read(), list(range(500)))
        mh.gather(futures, timeout=LIMIT)
        mh.gather([session.submit(_tell, log, n) for n in range(4)], timeout=LIMIT)
        lines = log.read()[500:]
        check_equal(len(lines), 4 * 50)
        for number in range(4):
            own = [line for line in lines if line[0] == number]
            check_equal(own, [(number, x) for x in range(50)])


@case("actors", "concurrent")
def an_actor_runs_one_call_at_a_time(open_session: OpenSession) -> None:
    """Several callers' calls never run at once, unless the actor says so."""
    with open_folder() as folder, open_session(workers=2):
        keeper = mh.actor(_Gatekeeper).start(str(folder))
        threads = [
            threading.Thread(target=lambda: [keeper.stay() for _ in range(10)]) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        diary = work.Diary(folder)
        check_equal((len(diary.read()), diary.count_most()), (60, 1))


@case("actors", "isolates")
def an_actor_has_a_process_of_its_own(open_session: OpenSession) -> None:
    """Actors are neither in the caller's process nor in those of calls or of each other."""
    with open_session(workers=2) as session:
        actors = [mh.actor(_Counter).start() for _ in range(3)]
        pids = {actor.get_pid() for actor in actors}
        check_equal(len(pids), 3)
        check(not pids & {work.get_pid(), *session.map(work.get_pid, range(50))}, "shares one")


@case("actors", "concurrent")
def actors_run_beside_a_busy_session(open_session: OpenSession) -> None:
    """An actor that says nothing of cpus answers though every worker is busy, and holds none up."""
    with open_folder() as folder, open_session(workers=1) as session:
        gate = work.Gate(folder)
        busy = session.submit(gate.enter)
        wait_for(gate.count_entered, "the worker is busy")
        counters = [mh.actor(_Counter).start(n) for n in range(3)]
        check_equal([counter.add() for counter in counters], [1, 2, 3])
        gate.open()
        busy.result(LIMIT)


@case("actors", "concurrent")
def an_actor_holds_what_it_needs(open_session: OpenSession) -> None:
    """An actor with `cpus` or named resources holds them as long as it lives; another waits until it is stopped."""
    with open_folder() as folder, open_session(workers=2, resources={"seat": 1}):
        seated = mh.actor(_Counter, resources={"seat": 1}).start()
        check_equal(seated.add(), 1)
        diary = work.Diary(folder)
        waiting = mh.task(diary.stay, resources={"seat": 1}).submit(0)
        second = mh.actor(_Counter, resources={"seat": 1}).start(10)
        answer = second.add.submit()
        check_equal(mh.submit(work.square, 3).result(LIMIT), 9)
        check_equal((diary.read(), answer.done()), ([], False))
        seated.stop()
        check_equal(answer.result(LIMIT), 11)
        second.stop()
        waiting.result(LIMIT)


@case("actors")
def an_actor_too_large_says_so(open_session: OpenSession) -> None:
    """The calls of an actor that needs more than the session has fail, and say what there is."""
    with open_session(workers=1, resources={"seat": 1}):
        options: Any
        for options, word in (({"cpus": 4}, "has 1"), ({"resources": {"seat": 2}}, "'seat'")):
            try:
                handle = mh.actor(_Counter, **options).start()
                error: Any = handle.add.submit().exception(LIMIT)
                text = f"{error} {error.__cause__}"
            except mh.InvalidArgumentError as refused:
                text = str(refused)
            check(word in text, f"no {word!r} in: {text}")


@case("actors")
def arguments_of_actors_may_be_futures(open_session: OpenSession) -> None:
    """Futures and refs are arguments of `start` and of methods, and results of methods are arguments of calls."""
    with open_session(workers=2) as session:
        submit: Any = session.submit
        counter = mh.actor(_Counter).start(submit(work.square, 3))
        check_equal(counter.add(submit(work.add, 1, 1)), 11)
        first = counter.add.submit(1)
        check_equal(submit(work.square, first).result(LIMIT), 144)
        check_equal(counter.add.submit(first).result(LIMIT), 24)
        block = bytes(200_000)
        check_equal(counter.measure(session.put(block)), 200_000)
        check_equal(counter.measure([session.put(block)]), 200_000)
        failed = counter.add.submit(submit(work.fail, "the input"))
        check(isinstance(failed.exception(LIMIT), mh.DependencyError), f"ended as {failed!r}")
        check_equal(counter.get(), 24)


@case("actors")
def handles_travel(open_session: OpenSession) -> None:
    """A handle means the same actor in calls, in calls of calls, in other actors and as a result."""
    with open_session(workers=2) as session:
        counter = mh.actor(_Counter).start()
        check_equal(session.submit(_add_by_handle, counter, 2).result(LIMIT), 2)
        check_equal(session.submit(_add_deep, [counter], 3).result(LIMIT), 3)
        check_equal(max(session.map(_add_by_handle, [counter] * 10, [1] * 10)), 13)
        back = session.submit(work.echo, counter).result(LIMIT)
        check(back == counter, f"{back!r} is not {counter!r}")
        check_equal((back.get(), len({back, counter})), (13, 1))
        node = mh.actor(_Node).start(1)
        node.know([counter])
        check_equal(node.total(), 14)


@case("actors")
def actors_make_calls(open_session: OpenSession) -> None:
    """A method may submit calls and wait for them, with one worker too."""
    with open_session(workers=1):
        counter = mh.actor(_Counter).start()
        check_equal([counter.add_below(x) for x in range(5)], [0, 1, 5, 14, 30])


@case("actors")
def a_call_may_start_an_actor(open_session: OpenSession) -> None:
    """An actor that a call has started lives on after it, and answers whoever has its handle."""
    with open_session(workers=2) as session:
        counter = session.submit(_start_counter, 5).result(LIMIT)
        check_equal(counter.add(), 6)
        check_equal(session.submit(_add_by_handle, counter, 1).result(LIMIT), 7)
        check_equal(mh.find_actor("born-in-a-call").get(), 7)


@case("actors")
def actors_have_names(open_session: OpenSession) -> None:
    """`find_actor` finds an actor by its name, here and in calls; a name is free again when its actor is dead."""
    with open_session(workers=2) as session:
        counter = mh.actor(_Counter, name="hits").start()
        counter.add()
        check(mh.find_actor("hits") == counter, "found another")
        check_equal(session.submit(_add_by_name, "hits", 2).result(LIMIT), 3)
        with expect(mh.InvalidArgumentError):
            mh.actor(_Counter, name="hits").start()
        with expect(mh.InvalidArgumentError) as caught:
            mh.find_actor("misses")
        check("misses" in str(caught.error), f"says: {caught.error}")
        error = session.submit(_add_by_name, "misses", 2).exception(LIMIT)
        check(isinstance(error, mh.InvalidArgumentError), f"found {error!r}")
        counter.stop()
        with expect(mh.InvalidArgumentError):
            mh.find_actor("hits")
        again = mh.actor(_Counter).options(name="hits").start(10)
        check_equal(mh.find_actor("hits").add(), 11)
        check(again != counter, "two actors are one")


@case("actors")
def errors_leave_an_actor_alive(open_session: OpenSession) -> None:
    """What a method raises arrives as itself, and the actor goes on with the state that it then has."""
    with open_session(workers=2):
        counter = mh.actor(_Counter).start()
        with expect(ValueError) as caught:
            counter.fail("in a method")
        check_equal(str(caught.error), "in a method")
        wrong = counter.add.submit("x").exception(LIMIT)
        check(isinstance(wrong, TypeError), f"found {wrong!r}")
        check_equal(counter.add(), 2)


@case("actors")
def unknown_methods_fail_here(open_session: OpenSession) -> None:
    """A method that the class has not, a private one, and an attribute are errors at once, which say what there is."""
    with open_session(workers=1):
        counter = mh.actor(_Counter).start()
        for name in ("subtract", "value", "_hidden"):
            with expect(AttributeError) as caught:
                getattr(counter, name)
            check("add" in str(caught.error), f"does not say what there is: {caught.error}")


@case("actors")
def wrong_actors_fail_at_once(open_session: OpenSession) -> None:
    """What cannot be an actor, or be meant with one, is an error before any work."""
    options: Any
    wrong: Any = work.square
    with open_session(workers=1):
        with expect(mh.NotCallableError):
            mh.actor(wrong)
        for options in (
            {"restarts": -1},
            {"max_concurrency": 0},
            {"checkpoint_every": 0},
            {"cpus": -1},
        ):
            with expect(mh.InvalidArgumentError):
                mh.actor(_Counter, **options)
        unknown: Any = {"retries": 1}
        with expect(TypeError):
            mh.actor(_Counter, **unknown)


@case("actors")
def actors_stream(open_session: OpenSession) -> None:
    """A generator method is streamed, changes the actor's state as it goes on, and ends when its stream is closed."""
    with open_session(workers=2) as session:
        counter = mh.actor(_Counter).start()
        check_equal(list(counter.count_on.stream()), list(range(1, 51)))
        check_equal(counter.get(), 50)
        with counter.count_on.stream() as stream:
            check_equal(list(islice(stream, 3)), [51, 52, 53])
        check(53 <= counter.get() < 100, "the generator went on to its end")
        check_equal(session.submit(_sum_counts, counter).result(LIMIT) > 0, True)


@case("actors", "concurrent")
def an_actor_may_run_threads(open_session: OpenSession) -> None:
    """With `max_concurrency` so many calls run at once, in threads, and no more."""
    with open_folder() as folder, open_session(workers=1):
        keeper = mh.actor(_Gatekeeper, max_concurrency=3).start(str(folder))
        gate = work.Gate(folder)
        futures = [keeper.enter.submit(x) for x in range(5)]
        wait_for(lambda: gate.count_entered() == 3, "three calls run at once")
        check_equal(mh.submit(work.square, 3).result(LIMIT), 9)
        check_equal(gate.count_entered(), 3)
        gate.open()
        check_equal(mh.gather(futures, timeout=LIMIT), list(range(5)))
        mh.gather([keeper.stay.submit() for _ in range(20)], timeout=LIMIT)
        check(work.Diary(folder).count_most() <= 3, "more ran at once than may")


@case("actors", "concurrent")
def async_methods_run_at_once(open_session: OpenSession) -> None:
    """Many calls of ``async`` methods are under way at once, on one loop; plain methods run among them."""
    with open_session(workers=1):
        meeting = mh.actor(_AsyncMeeting).start()
        futures = [meeting.meet.submit(100) for _ in range(99)]
        wait_for(lambda: meeting.get() == 99, "99 calls are under way")
        check_equal(sum(future.done() for future in futures), 0)
        check_equal(meeting.meet(100), 100)
        check_equal(mh.gather(futures, timeout=LIMIT), [100] * 99)
        check(isinstance(meeting.fail.submit().exception(LIMIT), work.CustomError), "no error")
        check_equal(mh.gather([meeting.await_square.submit(x) for x in range(5)])[-1], 16)
        check_equal(list(meeting.count_on.stream()), list(range(50)))


@case("actors", "concurrent")
def async_methods_have_a_limit(open_session: OpenSession) -> None:
    """`max_concurrency` holds for ``async`` methods too."""
    with open_session(workers=1):
        meeting = mh.actor(_AsyncMeeting, max_concurrency=3).start()
        futures = [meeting.meet.submit(3) for _ in range(2)]
        wait_for(lambda: meeting.get() == 2, "two calls are under way")
        check_equal(meeting.meet(3), 3)
        mh.gather(futures, timeout=LIMIT)


@case("actors")
def methods_can_be_awaited(open_session: OpenSession) -> None:
    """A coroutine awaits the calls of actors, and takes their streams."""

    async def use() -> list[Any]:
        counter = mh.actor(_Counter).start()
        found = [await counter.add.submit() for _ in range(3)]
        return [*found, *[item async for item in counter.count_on.stream()]]

    with open_session(workers=2):
        check_equal(asyncio.run(asyncio.wait_for(use(), LIMIT)), list(range(1, 54)))


@case("actors", "concurrent")
def many_light_actors_call_each_other(open_session: OpenSession) -> None:
    """Fifty actors with `cpus=0` call each other, all at once and along a ring, and none waits for ever."""
    with open_session(workers=2):
        nodes = [mh.actor(_Node, cpus=0).start(n) for n in range(50)]
        for number, node in enumerate(nodes):
            node.know([*nodes[number + 1 :], *nodes[:number]])
        ring = nodes[0].pass_on.submit(49)
        check_equal(ring.result(LIMIT), 49)
        total = sum(range(50))
        # Two that wait for each other would wait for ever, so a node calls only those behind it.
        for number, node in enumerate(nodes):
            node.know(nodes[number + 1 :])
        futures = [node.total.submit() for node in nodes]
        expected = [total - sum(range(n)) for n in range(50)]
        check_equal(mh.gather(futures, timeout=LIMIT), expected)


@case("actors", "isolates")
def light_actors_share_processes(open_session: OpenSession) -> None:
    """Two hundred light actors live in a few processes, each with a state of its own."""
    with open_session(workers=2) as session:
        counters = [mh.actor(_Counter, cpus=0).start(n) for n in range(200)]
        found = mh.gather([counter.add.submit() for counter in counters], timeout=LIMIT)
        check_equal(found, list(range(1, 201)))
        pids = mh.gather([counter.get_pid.submit() for counter in counters], timeout=LIMIT)
        check(len(set(pids)) <= 25, f"they live in {len(set(pids))} processes")
        counters[0].kill()
        check_equal(counters[1].add(), 3)
        check_equal(session.map(work.square, range(20)), [x * x for x in range(20)])


@case("actors")
def actors_are_listed(open_session: OpenSession) -> None:
    """`session.actors()` tells class, name and state of every actor, in the order of their start."""
    with open_session(workers=2) as session:
        check_equal(session.actors(), [])
        first = mh.actor(_Counter, name="first", restarts=2).start()
        second = mh.actor(_Log).start()
        first.add()
        second.read()
        facts = [(f.class_name, f.name, f.state, f.restarts) for f in session.actors()]
        check_equal(facts, [("_Counter", "first", "alive", 2), ("_Log", None, "alive", 0)])
        first.stop()
        check_equal([fact.state for fact in session.actors()], ["dead", "alive"])
        check("Counter" in repr(first) and "first" in repr(first), repr(first))


@case("actors")
def actors_of_local_classes_live(open_session: OpenSession) -> None:
    """A class made inside a function, and a built-in one, make actors."""
    base = 100

    class Local:
        def get(self) -> int:
            return base

    with open_session(workers=1):
        check_equal(mh.actor(Local).start().get(), 100)
        values = mh.actor(list).start([3, 1, 2])
        values.sort()
        check_equal((values.index(3), values.pop()), (2, 3))


@case("actors", "concurrent")
def closing_the_session_ends_actors(open_session: OpenSession) -> None:
    """When a session closes its actors end, and calls that wait for them are cancelled."""
    with open_folder() as folder:
        session = open_session(workers=1)
        with session:
            keeper = mh.actor(_Gatekeeper).start(str(folder))
            futures = [keeper.enter.submit(x) for x in range(3)]
            gate = work.Gate(folder)
            wait_for(gate.count_entered, "the first call began")
            session.close(grace=0.01)
        check(all(future.cancelled() for future in futures), f"left as {futures!r}")
        gate.open()
        with expect(mh.SessionClosedError):
            session.start_call(work.square, (3,), {})


def _tell(log: Any, number: int) -> None:
    futures = [log.add.submit((number, x)) for x in range(50)]
    mh.gather(futures, timeout=LIMIT)


def _add_by_handle(counter: Any, amount: int) -> int:
    return int(counter.add(amount))


def _add_deep(counters: list[Any], depth: int) -> int:
    if depth == 0:
        return int(counters[0].add())
    return mh.submit(_add_deep, counters, depth - 1).result(LIMIT)


def _add_by_name(name: str, amount: int) -> int:
    return int(mh.find_actor(name).add(amount))


def _start_counter(start: int) -> Any:
    return mh.actor(_Counter, name="born-in-a-call").start(start)


def _sum_counts(counter: Any) -> int:
    return sum(counter.count_on.stream())
