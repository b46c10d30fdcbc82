"""Scheduling: which of the calls that wait goes first, and how many cpus it holds."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for


@case("orders", "concurrent")
def urgent_calls_go_first(open_session: OpenSession) -> None:
    """Of the calls that wait those with the highest `priority` begin first, and equals in the order of submission."""
    with open_folder() as folder, open_session(workers=1) as session:
        diary = work.Diary(folder)
        task = mh.task(_write)
        gate = work.Gate(folder)
        running = session.submit(gate.enter)
        wait_for(gate.count_entered, "the call began")
        order = [0, 5, -1, 5, 0, 10, -1]
        futures = [
            task.options(priority=priority).submit(diary, f"{priority}/{number}")
            for number, priority in enumerate(order)
        ]
        _pass_through(session)
        gate.open()
        mh.gather([running, *futures], timeout=LIMIT)
        check_equal(diary.read(), ["10/5", "5/1", "5/3", "0/0", "0/4", "-1/2", "-1/6"])


@case("orders", "concurrent")
def urgent_calls_overtake_those_sent_ahead(open_session: OpenSession) -> None:
    """An urgent call also goes before quick ones that were sent to a worker already and have not begun."""
    with open_folder() as folder, open_session(workers=1) as session:
        diary = work.Diary(folder)
        task = mh.task(_write)
        mh.gather([task.submit(diary, "before") for _ in range(50)], timeout=LIMIT)
        gate = work.Gate(folder)
        running = session.submit(gate.enter)
        wait_for(gate.count_entered, "the call began")
        plain = [task.submit(diary, "plain") for _ in range(20)]
        urgent = task.options(priority=1).submit(diary, "urgent")
        _pass_through(session)
        gate.open()
        mh.gather([running, *plain, urgent], timeout=LIMIT)
        check_equal(diary.read()[50:], ["urgent", *["plain"] * 20])


@case("orders", "concurrent")
def maps_have_priorities(open_session: OpenSession) -> None:
    """The items of a map with a `priority` go before calls that wait longer."""
    with open_folder() as folder, open_session(workers=1) as session:
        diary = work.Diary(folder)
        gate = work.Gate(folder)
        first = session.submit(gate.enter)
        wait_for(gate.count_entered, "the call began")
        plain = [session.submit(_write, diary, "plain") for _ in range(20)]
        items = _Watched(3)
        run = partial(session.map, partial(_write, diary), items, priority=1, batch=1)
        thread = threading.Thread(target=run)
        thread.start()
        wait_for(lambda: items.read, "the map began")
        _pass_through(session)
        gate.open()
        thread.join(LIMIT)
        mh.gather([first, *plain], timeout=LIMIT)
        lines = diary.read()
        check_equal(sorted(lines), sorted([*["plain"] * 20, "0", "1", "2"]))
        # It submits its first item when it has read it, and others when that has come back.
        check(lines.index("0") <= 1, f"the map's item did not go first: {lines}")


@case("resources", "concurrent")
def a_call_may_need_all_cpus(open_session: OpenSession) -> None:
    """A call with `cpus=2` of a session that has two runs alone, and ordinary calls beside each other."""
    with open_folder() as folder, open_session(workers=2):
        diary = work.Diary(folder)
        large, small = mh.task(diary.stay, cpus=2), mh.task(diary.stay)
        futures = []
        for number in range(5):
            futures += [large.submit(0.005, f"large-{number}")]
            futures += [small.submit(0.005, f"small-{number}-{x}") for x in range(4)]
        mh.gather(futures, timeout=LIMIT)
        _check_alone(diary.read(), "large")
        check_equal(diary.count_most("large"), 1)
        check(diary.count_most() <= 2, "more ran at once than there are cpus")


@case("resources", "concurrent")
def calls_may_share_a_cpu(open_session: OpenSession) -> None:
    """Of calls with `cpus=0.5` twice as many run at once as the session has cpus, and no more."""
    with open_folder() as folder, open_session(workers=2):
        gate, diary = work.Gate(folder), work.Diary(folder)
        half = mh.task(gate.enter, cpus=0.5)
        futures = [half.submit(x) for x in range(4)]
        wait_for(lambda: gate.count_entered() == 4, "four calls run on two cpus")
        waiting = mh.task(diary.stay, cpus=0.5).submit(0)
        whole = mh.task(diary.stay).submit(0)
        check_equal((waiting.done(), whole.done()), (False, False))
        gate.open()
        check_equal(mh.gather(futures, timeout=LIMIT), list(range(4)))
        mh.gather([waiting, whole], timeout=LIMIT)
        stay = mh.task(diary.stay, cpus=0.5)
        mh.gather([stay.submit(0.01, f"half-{x}") for x in range(20)], timeout=LIMIT)
        check(diary.count_most("half") <= 4, "more ran at once than have room")


@case("resources", "concurrent")
def a_call_may_need_no_cpu(open_session: OpenSession) -> None:
    """Calls with `cpus=0` run beside a session whose workers are all busy."""
    with open_folder() as folder, open_session(workers=2) as session:
        gate = work.Gate(folder)
        busy = [session.submit(gate.enter, x) for x in range(2)]
        wait_for(lambda: gate.count_entered() == 2, "both workers are busy")
        free = mh.task(work.square, cpus=0)
        check_equal(mh.gather([free.submit(x) for x in range(10)], timeout=LIMIT)[:3], [0, 1, 4])
        check_equal(free.map(range(5)), [0, 1, 4, 9, 16])
        check_equal(sum(future.done() for future in busy), 0)
        gate.open()
        check_equal(mh.gather(busy, timeout=LIMIT), [0, 1])


@case("resources", "concurrent")
def small_calls_do_not_starve_a_large_one(open_session: OpenSession) -> None:
    """A call that needs all cpus gets its turn, though small ones come without end."""
    with open_folder() as folder, open_session(workers=2) as session:
        diary = work.Diary(folder)
        has_run = threading.Event()
        supply = threading.Semaphore(4)
        large: Any = None
        submitted = 0
        while not has_run.is_set():
            check(supply.acquire(timeout=LIMIT), "the small calls stand still")
            session.submit(diary.stay, 0.002, "small").add_done_callback(lambda _: supply.release())
            submitted += 1
            if submitted == 10:
                large = mh.task(diary.stay, cpus=2).submit(0.002, "large")
                large.add_done_callback(lambda _: has_run.set())
            check(submitted < 5000, "thousands of small calls went before the large one")
        large.result(LIMIT)
        _check_alone(diary.read(), "large")


@case("resources", "concurrent")
def large_calls_do_not_starve_small_ones(open_session: OpenSession) -> None:
    """A small call gets its turn, though large ones come without end."""
    with open_folder() as folder, open_session(workers=2):
        diary = work.Diary(folder)
        has_run = threading.Event()
        supply = threading.Semaphore(4)
        large = mh.task(diary.stay, cpus=2)
        submitted = 0
        while not has_run.is_set():
            check(supply.acquire(timeout=LIMIT), "the large calls stand still")
            large.submit(0.002, "large").add_done_callback(lambda _: supply.release())
            submitted += 1
            if submitted == 10:
                small = mh.task(diary.stay).submit(0.002, "small")
                small.add_done_callback(lambda _: has_run.set())
            check(submitted < 5000, "thousands of large calls went before the small one")


@case("resources", "concurrent")
def maps_hold_cpus_too(open_session: OpenSession) -> None:
    """`cpus` of a map is what each of its items holds."""
    with open_folder() as folder, open_session(workers=2) as session:
        diary = work.Diary(folder)
        names = [f"item-{x}" for x in range(10)]
        check_equal(session.map(partial(diary.stay, 0.003), names, cpus=2), names)
        check_equal(diary.count_most(), 1)
        other = work.Diary(folder, "other")
        check_equal(session.map(partial(other.stay, 0.003), names, cpus=0.5), names)
        check(other.count_most() <= 4, "more ran at once than have room")


@case("resources")
def calls_too_large_fail_at_once(open_session: OpenSession) -> None:
    """A call that needs more cpus than there are fails at once, though all are busy, and says how many there are."""
    with open_folder() as folder, open_session(workers=2) as session:
        gate = work.Gate(folder)
        busy: list[mh.Future[Any]] = []
        if session.capabilities.concurrent:
            busy = [session.submit(gate.enter) for _ in range(2)]
            wait_for(lambda: gate.count_entered() == 2, "both workers are busy")
        error = mh.task(work.square, cpus=3).submit(3).exception(LIMIT)
        check(isinstance(error, mh.InvalidArgumentError), f"found {error!r}")
        for word in ("square", "3 cpus", "has 2"):
            check(word in str(error), f"no {word!r} in: {error}")
        gate.open()
        mh.gather(busy, timeout=LIMIT)
        with expect(mh.InvalidArgumentError):
            session.map(work.square, [3], cpus=3)
        check_equal(session.submit(_ask_too_much).result(LIMIT), "InvalidArgumentError")
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case()
def wrong_needs_fail_at_once(open_session: OpenSession) -> None:
    """What a call cannot mean to hold is an error before any work."""
    options: Any
    with open_session(workers=1) as session:
        for options in (
            {"cpus": -1},
            {"cpus": "1"},
            {"cpus": float("nan")},
            {"gpus": 1.5},
            {"gpus": -0.5},
            {"memory": "much"},
            {"memory": -1},
            {"resources": {"seat": -1}},
            {"resources": {"cpus": 1}},
            {"resources": ["seat"]},
            {"priority": 1.5},
            {"priority": None},
            {"name": 5},
        ):
            with expect(mh.InvalidArgumentError):
                mh.task(work.square, **options)
            with expect(mh.InvalidArgumentError):
                session.map(work.square, [1], **options)
        unknown: Any = {"cpu": 1}
        with expect(TypeError):
            mh.task(work.square, **unknown)


class _Watched:
    """Numbers, and whether any was read."""

    def __init__(self, stop: int) -> None:
        self.read = False
        self._stop = stop

    def __iter__(self) -> Any:
        self.read = True
        return iter(range(self._stop))


def _pass_through(session: mh.Session) -> None:
    """Return when the engine has seen all calls that were submitted before; one without resources has at once."""
    if session.capabilities.resources:
        check_equal(mh.task(work.square, cpus=0).submit(3).result(LIMIT), 9)


def _check_alone(lines: list[str], beginning: str) -> None:
    """Whoever has such a name was there by itself."""
    present: set[str] = set()
    for line in lines:
        sign, name = line[0], line[1:]
        if sign == "+":
            present.add(name)
        is_shared = len(present) > 1 and any(other.startswith(beginning) for other in present)
        check(not is_shared, f"at once: {present}")
        if sign == "-":
            present.discard(name)


def _write(diary: work.Diary, line: object) -> None:
    diary.write(line)


def _ask_too_much() -> str:
    return type(mh.task(work.square, cpus=3).submit(3).exception(LIMIT)).__name__
