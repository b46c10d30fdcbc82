"""The clients of the chaos test: threads that make calls of all kinds and judge what comes of them."""

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from itertools import islice
from typing import Any
from zlib import crc32

import manyhands as mh
from tests.local.chaos import (
    PARTS,
    SPAN,
    Refused,
    add_arrays,
    add_to_tally,
    add_up,
    answer_block,
    check_block,
    combine,
    compute,
    doze,
    expect_tree,
    fold,
    grow,
    linger,
    make_block,
    mix,
    occupy,
    refuse,
    stumble,
    treat_item,
    trickle,
    trickle_async,
    use_device,
)
from tests.local.chaos_rules import (
    ActorCall,
    Mapping,
    Operation,
    Performer,
    Tree,
    Witness,
    describe,
)


class Client:
    """A thread that makes calls and judges their ends.

    Parameters
    ----------
    witness
    seed
    budget
        Calls to be made.
    weights
        How often it does what, by the names of its methods.
    """

    def __init__(
        self, witness: Witness, seed: str, budget: int, weights: dict[str, float], cpus: int
    ) -> None:
        self.witness = witness
        self.session = witness.session
        self.folder = witness.folder
        self.chance = random.Random(seed)
        self.left = budget
        self.cpus = cpus
        self.doing = ""
        self._weights = weights
        self._open: list[Operation] = []
        self._performers: list[Performer] = []
        self.thread = threading.Thread(target=self._run, name=f"client {seed}", daemon=True)

    def _run(self) -> None:
        names = list(self._weights)
        try:
            while self.left > 0 and not self.witness.is_over:
                self.doing = self.chance.choices(names, [*self._weights.values()])[0]
                before = self.left
                getattr(self, f"do_{self.doing}")()
                self.witness.calls += before - self.left
                self.doing += ", settle"
                self._settle(60)
            self.doing = "end"
            self._settle(0)
            for performer in self._performers:
                self._settle_performer(performer)
                performer.handle.stop()
        except BaseException as error:
            if not self.witness.is_over:
                self.witness.blame(f"client, at {self.doing}:\n{describe(error)}")

    def _take(self, calls: int = 1) -> int:
        """The number of an operation of so many calls."""
        self.left -= calls
        return next(self.witness.numbers)

    def _settle(self, kept: int) -> None:
        """Judge operations that have ended, and wait for some, until no more than `kept` are open."""
        if len(self._open) <= kept:
            return
        way = self.chance.randrange(4)
        futures = [one.future for one in self._open]
        if way == 0:
            mh.wait(futures, 0.2, self.chance.choice(["FIRST_COMPLETED", "FIRST_EXCEPTION"]))
        elif way == 1:
            for _ in islice(mh.as_completed(futures), len(futures) - kept):
                pass
        elif way == 2:
            self.chance.shuffle(self._open)
        done = [one for one in self._open if one.future.done()]
        for one in done:
            one.judge()
        self._open = [one for one in self._open if one not in done]
        while len(self._open) > kept:
            self._open.pop(0).judge()

    def _make(
        self, what: str, fn: Callable[..., Any], *args: Any, number: int = 0, **options: Any
    ) -> Operation:
        """Submit one call; `args` follow its number."""
        number = number or self._take()
        one = Operation(self.witness, what, number, mix(number, 1))
        one.worker_retries = options.get("worker_retries", 1)
        one.timeout = options.get("timeout")
        future = (
            mh.task(fn, **options).submit(self.folder, number, *args)
            if options
            else self.session.submit(fn, self.folder, number, *args)
        )
        one.watch(future)
        return one

    # Plain calls.

    def do_burst(self) -> None:
        options: dict[str, Any] = {}
        if self.chance.random() < 0.5:
            options["worker_retries"] = self.chance.choice([0, 1, 3])
        if self.chance.random() < 0.3:
            options["priority"] = self.chance.randrange(-2, 3)
        if self.chance.random() < 0.2:
            options["cpus"] = self.chance.choice([0, 0.5, 2])
        rounds = self.chance.choice([0, 0, 0, 200, 3000])
        made = [
            self._make("plain", compute, rounds, **options)
            for _ in range(self.chance.choice([1, 10, 100]))
        ]
        if self.chance.random() < 0.3:
            for one in self.chance.sample(made, len(made) // 4):
                one.cancel(running=self.chance.random() < 0.5)
        self._open += made

    def do_cpus(self) -> None:
        for _ in range(self.chance.randrange(5, 40)):
            self._open.append(self._make("occupying", occupy, "cpu", self.cpus, 2000))

    def do_licences(self) -> None:
        name, places = self.chance.choice([("licence", 1), ("seat", 2)])
        for _ in range(self.chance.randrange(2, 12)):
            one = self._make("licensed", occupy, name, places, 3000, cpus=0, resources={name: 1})
            self._open.append(one)

    def do_devices(self) -> None:
        for _ in range(self.chance.randrange(1, 5)):
            one = self._make("using a device", use_device, cpus=0, gpus=1)
            self._open.append(one)

    def do_graph(self) -> None:
        """Calls that wait for calls; some fail, some are cancelled."""
        layer = [self._make("plain", compute, 0) for _ in range(4)]
        if self.chance.random() < 0.3:
            one = self._make("refusing", refuse)
            one.may_refuse = True
            layer.append(one)
        everything = list(layer)
        for _ in range(self.chance.randrange(1, 5)):
            layer = [self._combine(layer) for _ in range(self.chance.randrange(1, 6))]
            everything += layer
        if self.chance.random() < 0.3:
            self.chance.choice(everything).cancel(running=self.chance.random() < 0.5)
        self._open += everything

    def _combine(self, layer: list[Operation]) -> Operation:
        inputs = self.chance.choices(layer, k=self.chance.randrange(1, 4))
        futures: list[Any] = [one.future for one in inputs]
        values: list[Any] = [one.expected for one in inputs]
        form = self.chance.randrange(3)
        if form == 1:
            futures, values = [futures, 5], [values, 5]
        elif form == 2:
            futures, values = [dict(enumerate(futures))], [dict(enumerate(values))]
        number = self._take()
        one = Operation(self.witness, "combining", number, fold(mix(number, 7), values))
        one.inputs = inputs
        future = self.session.submit(combine, self.folder, number, futures, extra=7)
        one.watch(future)
        return one

    def do_retries(self) -> None:
        for _ in range(self.chance.randrange(1, 8)):
            failures, retries = self.chance.randrange(4), self.chance.randrange(4)
            predicate: Any = self.chance.choice([(Exception,), Refused, is_refused])
            deaths = self.chance.choice([1, 4])
            one = self._make(
                "stumbling",
                stumble,
                failures,
                retries=retries,
                retry_on=predicate,
                backoff=0.002,
                worker_retries=deaths,
            )
            one.retries = retries
            one.may_refuse = failures > retries
            one.worker_retries = deaths
            self._open.append(one)

    def do_timeouts(self) -> None:
        for _ in range(self.chance.randrange(1, 4)):
            timeout = self.chance.choice([0.02, 0.05])
            seconds = self.chance.choice([0.0, 0.01, 0.5])
            is_stubborn = self.chance.random() < 0.05
            self.witness.excuses += is_stubborn
            self._open.append(
                self._make(
                    "timed", linger, 2.0 if is_stubborn else seconds, is_stubborn, timeout=timeout
                )
            )

    def do_cancel(self) -> None:
        """Calls that are cancelled while they run."""
        made = [self._make("lingering", linger, 0.3) for _ in range(self.chance.randrange(1, 6))]
        followers = [self._combine(made) for _ in range(2)]
        self.chance.shuffle(made)
        if self.chance.random() < 0.5:
            mh.wait([one.future for one in made], self.chance.random() * 0.03)
        for one in made:
            one.cancel(running=self.chance.random() < 0.8)
        self._open += made + followers

    def do_deadline(self) -> None:
        made = [self._make("lingering", linger, 0.02) for _ in range(self.chance.randrange(2, 12))]
        for one in made:
            one.cancelled_at = 0
        try:
            mh.gather([one.future for one in made], on_error="return", deadline=0.05)
        except mh.DeadlineError:
            pass
        except CancelledError:
            self.witness.blame(f"gather with a deadline was cancelled: {made}")
        self._open += made

    # Maps.

    def do_map(self) -> None:
        size = self.chance.choice([0, 1, 10, 30, 100, 300])
        number = self._take(size)
        bad: frozenset[int] = frozenset()
        if size and self.chance.random() < 0.3:
            bad = frozenset(self.chance.sample(range(size), 1 + size // 20))
        one = Mapping(self.witness, number, size, bad)
        rounds = self.chance.choice([0, 0, 300, 3000])
        fn = partial(treat_item, self.folder, one.first, bad, rounds)
        options: dict[str, Any] = {"on_error": self.chance.choice(["raise", "return", "return"])}
        if self.chance.random() < 0.3:
            options["batch"] = self.chance.choice([1, 7, 100])
        if self.chance.random() < 0.3:
            options["worker_retries"] = one.worker_retries = self.chance.choice([0, 5])
        if self.chance.random() < 0.2:
            options.update(retries=2, backoff=0.001)
            one.retries = 2
        if self.chance.random() < 0.2:
            options["priority"] = 1
        if self.chance.random() < 0.1:
            options["deadline"] = one.deadline = 0.1
        if self.chance.random() < 0.1:
            options["timeout"] = 60.0
        fault = self._use_map(one, fn, options)
        if fault is not None and not self.witness.is_over:
            self.witness.blame(f"{one!r}, {options}: {fault}")
        self.witness.judged += 1

    def _use_map(self, one: Mapping, fn: Callable[..., Any], options: dict[str, Any]) -> str | None:
        kind = self.chance.choice(["map", "imap", "imap_unordered", "starmap"])
        one.what = kind
        inputs = [(x,) for x in range(one.size)] if kind == "starmap" else range(one.size)
        stop = one.size
        found: list[Any] = []
        try:
            if kind in ("map", "starmap"):
                found = getattr(self.session, kind)(fn, inputs, **options)
            else:
                if self.chance.random() < 0.3:  # it is left before its end
                    stop = self.chance.randrange(one.size + 1)
                items = getattr(self.session, kind)(fn, iter(inputs), **options)
                found.extend(islice(items, stop))
                items.close()
        except Exception as error:
            self.witness.ends[f"map: {type(error).__name__}"] += 1
            if options["on_error"] == "return" and not isinstance(error, mh.DeadlineError):
                return f"it must not raise:\n{describe(error)}"
            # `imap` raises an error in its place.
            is_placed = kind == "imap" and isinstance(error, Refused)
            fault = one.judge_item(len(found) if is_placed else None, error)
            rest = None if kind == "imap_unordered" else one.judge_items(found, len(found))
            return fault or rest or one.judge_unordered(found, None)
        if kind == "imap_unordered":
            return one.judge_unordered(found, stop)
        return one.judge_items(found, stop)

    # Calls in calls.

    def do_fib(self) -> None:
        n = self.chance.randrange(3, 9)
        number = self._take(count_nodes(n))
        tree = Tree(self.witness, "fibonacci", number, fib(n))
        tree.numbers = ()  # the nodes have no numbers of their own
        tree.watch(self.session.submit(add_up, self.folder, number, n))
        self._open.append(tree)

    def do_tree(self) -> None:
        seed, depth = self.chance.randrange(1 << 30), self.chance.randrange(1, 5)
        expected, size = expect_tree(seed, 0, depth)
        number = self._take(size)
        tree = Tree(self.witness, f"tree of {seed}, {depth}", number, expected)
        tree.numbers = range(number * PARTS, number * PARTS + SPAN ** (depth + 1))
        tree.worker_retries = self.chance.choice([1, 1, 3])
        task = mh.task(grow, worker_retries=tree.worker_retries)
        tree.watch(task.submit(self.folder, number, seed, 0, depth))
        if self.chance.random() < 0.15:
            mh.wait([tree.future], self.chance.random() * 0.05)
            tree.cancel(running=True)
        self._open.append(tree)

    # Streams and coroutines.

    def do_stream(self) -> None:
        length = self.chance.choice([0, 1, 10, 100])
        fails_at = self.chance.randrange(length) if length and self.chance.random() < 0.3 else None
        fn: Any = self.chance.choice([trickle, trickle_async])
        number = self._take()
        one = Operation(self.witness, f"stream of {fn.__name__}", number)
        stream = mh.task(fn).stream(self.folder, number, length, fails_at)
        one.future = stream._future
        is_async = self.chance.random() < 0.3
        stop = self.chance.choice([length + 1, length + 1, length // 2])
        found: list[int] = []
        error = None
        try:
            if is_async:
                asyncio.run(take_async(stream, stop, found))
            else:
                found.extend(islice(stream, stop))
        except Exception as raised:
            error = raised
        stream.close()
        fault = self._judge_stream(one, found, error, min(stop, length), fails_at)
        if fault is not None and not self.witness.is_over:
            self.witness.blame(f"{one!r}, {length}, {fails_at}, {stop}: {fault}")
        self.witness.judged += 1

    def _judge_stream(
        self,
        one: Operation,
        found: list[int],
        error: BaseException | None,
        length: int,
        fails_at: int | None,
    ) -> str | None:
        if found != [mix(one.number, place) for place in range(len(found))]:
            return f"its items are wrong: {found}"
        self.witness.ends[f"stream: {type(error).__name__}"] += 1
        if isinstance(error, mh.WorkerDiedError):
            return self.witness.check_death(error)
        if fails_at is not None and fails_at <= length and isinstance(error, Refused):
            return None if len(found) == fails_at else f"it failed after {len(found)} items"
        if error is not None:
            return f"it must not end by {describe(error)}"
        return None if len(found) == length else f"it ended after {len(found)} items"

    def do_coroutines(self) -> None:
        made = [
            self._make("dozing", doze, self.chance.random() * 0.02)
            for _ in range(self.chance.randrange(1, 30))
        ]
        if self.chance.random() < 0.3:
            self.chance.choice(made).cancel(running=True)
        if self.chance.random() < 0.3:
            asyncio.run(await_all([one.future for one in made]))
        self._open += made

    # Actors.

    def do_actor(self) -> None:
        """Calls to one of this client's actors, in their order."""
        self._performers = [one for one in self._performers if not one.is_over()]
        if len(self._performers) < 2:
            kind = self.chance.choice(["plain", "kept", "light", "async", "threads"])
            self._performers.append(Performer(self.witness, kind, self.chance.choice([0, 3, 1000])))
        performer = self.chance.choice(self._performers)
        handle = performer.handle
        for _ in range(self.chance.choice([1, 20, 100])):
            place = next(performer.places)
            number = self._take()
            call = ActorCall(self.witness, f"actor, {performer.kind}", number, performer, place)
            call.watch(handle.add.submit(self.folder, number, place))
            performer.pending.append(call)
        if self.chance.random() < 0.3:
            self._call_otherwise(performer)
        if self.chance.random() < 0.1:
            performer.is_stopped = True
            if self.chance.random() < 0.5:
                handle.stop()
            else:
                self.witness.excuses += 1
                handle.kill()
        self._settle_performer(performer)

    def _call_otherwise(self, performer: Performer) -> None:
        """Streams, time-outs, coroutines and calls by calls."""
        handle, number = performer.handle, self._take()
        way = self.chance.randrange(4)
        if way == 3:
            place = next(performer.places)
            outer = Tree(self.witness, "call by a call", number, mix(number, 1))
            outer.numbers = ()
            outer.watch(self.session.submit(add_to_tally, self.folder, number, handle, place))
            self._settle_performer(performer)
            outer.judge()
            performer.failed += 2  # so often it may have been called
            return
        call = ActorCall(self.witness, f"actor, {performer.kind}, aside", number, performer)
        if way == 0 and performer.kind == "async":
            call.watch(handle.doze.submit(self.folder, number, 0.01))
        elif way <= 1:
            call.timeout = 0.05
            seconds = self.chance.choice([0.0, 1.0])
            call.watch(handle.linger.options(timeout=0.05).submit(self.folder, number, seconds))
        else:
            found: list[int] = []
            stream = handle.trickle.stream(self.folder, number, 20)
            call.future = stream._future
            try:
                found.extend(stream)
            except mh.WorkerError:
                pass
            if found != [mix(number, place) for place in range(len(found))]:
                self.witness.blame(f"{call!r}: its items are wrong: {found}")
            call.expected = 20
        performer.pending.append(call)

    def _settle_performer(self, performer: Performer) -> None:
        """Judge all calls to an actor, in their order."""
        pending, performer.pending = performer.pending, []
        for call in pending:
            call.judge()
            if call.future.exception() is not None:
                performer.failed += 1

    # Large values.

    def do_blocks(self) -> None:
        for _ in range(self.chance.randrange(1, 5)):
            sent, wanted = self.chance.choices([100, 20_000, 300_000], k=2)
            number = self._take()
            block: Any = make_block(number + 1, sent)
            expected = crc32(block), crc32(make_block(number, wanted))
            if self.chance.random() < 0.3:
                block = mh.put(block)
            first = Operation(self.witness, "block", number, (expected[0], ...))
            first.watch(self.session.submit(answer_block, self.folder, number, block, wanted))
            number = self._take()
            second = Operation(self.witness, "check of a block", number, expected)
            second.inputs = [first]
            second.watch(self.session.submit(check_block, self.folder, number, first.future))
            if self.chance.random() < 0.5:
                first.judge_value = partial(judge_block, expected)  # type: ignore[method-assign]
                self._open.append(first)
            self._open.append(second)

    def do_arrays(self) -> None:
        import numpy as np

        first = np.arange(self.chance.choice([10, 50_000]), dtype=np.int64)
        number = self._take()
        one = Operation(self.witness, "array", number, first * 3)
        one.judge_value = partial(judge_array, first * 3)  # type: ignore[method-assign]
        one.watch(self.session.submit(add_arrays, self.folder, number, [first, first, first]))
        number = self._take()
        two = Operation(self.witness, "array of an array", number)
        two.judge_value = partial(judge_array, first * 4)  # type: ignore[method-assign]
        two.inputs = [one]
        two.watch(self.session.submit(add_arrays, self.folder, number, [one.future, first]))
        self._open += [one, two]

    # What else a program does.

    def do_look(self) -> None:
        self.session.report()
        self.session.memory()
        self.session.actors()
        if self.chance.random() < 0.1:
            self.session.restart_workers()


def is_refused(error: BaseException) -> bool:
    return isinstance(error, Refused)


def judge_block(expected: tuple[int, int], value: tuple[int, bytes]) -> str | None:
    return None if (value[0], crc32(value[1])) == expected else "its block is wrong"


def judge_array(expected: Any, value: Any) -> str | None:
    is_right = value.shape == expected.shape and bool((value == expected).all())
    return None if is_right else "its array is wrong"


async def take_async(stream: Any, stop: int, found: list[int]) -> None:
    while len(found) < stop:
        try:
            found.append(await anext(stream))
        except StopAsyncIteration:
            return


async def await_all(futures: list[Any]) -> None:
    async def settle(future: Any) -> Any:
        return await future

    await asyncio.gather(*map(settle, futures), return_exceptions=True)


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def count_nodes(n: int) -> int:
    return 1 if n < 2 else 1 + count_nodes(n - 1) + count_nodes(n - 2)


WEIGHTS: dict[str, float] = {
    "burst": 3,
    "cpus": 1,
    "licences": 1,
    "devices": 0.5,
    "graph": 3,
    "retries": 2,
    "timeouts": 1,
    "cancel": 1,
    "deadline": 0.5,
    "map": 5,
    "fib": 2,
    "tree": 4,
    "stream": 3,
    "coroutines": 2,
    "actor": 4,
    "blocks": 2,
    "arrays": 0.2,
    "look": 1,
}
"""What clients do, and how often."""
