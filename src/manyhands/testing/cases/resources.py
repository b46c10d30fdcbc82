"""Resources: devices, memory and what else a session has, of which calls hold parts."""

from __future__ import annotations

from functools import partial
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for
from manyhands.testing.faults import Damage, RunningFault

_MEGABYTE = 1_000_000


@case("resources", "concurrent")
def named_resources_hold(open_session: OpenSession) -> None:
    """Of calls that hold a named resource as many run at once as the session has of it, and others run beside them."""
    with open_folder() as folder, open_session(workers=3, resources={"seat": 2}) as session:
        gate, diary = work.Gate(folder), work.Diary(folder)
        seated = [mh.task(gate.enter, resources={"seat": 1}).submit(x) for x in range(2)]
        wait_for(lambda: gate.count_entered() == 2, "two calls are seated")
        waiting = mh.task(diary.stay, resources={"seat": 1}).submit(0)
        check_equal(session.map(work.square, range(20)), [x * x for x in range(20)])
        check_equal(diary.read(), [])
        gate.open()
        mh.gather([*seated, waiting], timeout=LIMIT)
        one, two, half = (mh.task(diary.stay, resources={"seat": n}) for n in (1, 2, 0.5))
        mh.gather([one.submit(0.01, "one") for _ in range(10)], timeout=LIMIT)
        mh.gather([two.submit(0.01, "two") for _ in range(4)], timeout=LIMIT)
        mh.gather([half.submit(0.01, "half") for _ in range(12)], timeout=LIMIT)
        check(diary.count_most("one") <= 2, "more calls were seated than there are seats")
        check_equal(diary.count_most("two"), 1)
        names = ["item"] * 8
        check_equal(session.map(partial(diary.stay, 0.01), names, resources={"seat": 1}), names)
        check(diary.count_most("item") <= 2, "more items were seated than there are seats")


@case("resources", "concurrent")
def resources_come_back(open_session: OpenSession) -> None:
    """What a call held is free when it has failed, was cancelled, or ran out of time."""
    with open_folder() as folder, open_session(workers=2, resources={"seat": 1}):
        options: Any = {"resources": {"seat": 1}}
        check(mh.task(work.fail, **options).submit("x").exception(LIMIT) is not None, "no error")
        late = mh.task(work.spin, timeout=0.2, **options).submit(str(folder), "late")
        check(isinstance(late.exception(LIMIT), mh.CallTimeoutError), f"ended as {late!r}")
        cancelled = mh.task(work.spin, **options).submit(str(folder))
        waiting = mh.task(work.square, **options).submit(3)
        wait_for(lambda: work.Mark(folder).count("spin-began"), "the call began")
        check(cancelled.cancel(running=True), f"could not be cancelled: {cancelled!r}")
        check_equal(waiting.result(LIMIT), 9)


@case("resources", "isolates")
def resources_come_back_from_the_dead(open_session: OpenSession) -> None:
    """What a call held is free when its worker has died."""
    with open_session(workers=2, resources={"seat": 1}):
        options: Any = {"resources": {"seat": 1}}
        for _ in range(2):
            deadly = mh.task(RunningFault(Damage.KILL), **options).submit()
            check(isinstance(deadly.exception(LIMIT), mh.WorkerDiedError), f"ended as {deadly!r}")
            check_equal(mh.task(work.square, cpus=2, **options).submit(3).result(LIMIT), 9)


@case("resources")
def what_a_session_has_not_is_told_at_once(open_session: OpenSession) -> None:
    """A call that needs more of something than there ever is fails at once, and the error says what there is."""
    options: Any
    with open_session(workers=1, resources={"seat": 2}, memory="1GB", gpus=1) as session:
        for options, words in (
            ({"resources": {"seat": 3}}, ("3", "'seat'", "has 2")),
            ({"resources": {"desk": 1}}, ("'desk'", "'seat'")),
            ({"memory": "2GB"}, ("2 GB", "1 GB")),
            ({"gpus": 2}, ("2 gpus", "has 1")),
        ):
            error = mh.task(work.square, **options).submit(3).exception(LIMIT)
            check(isinstance(error, mh.InvalidArgumentError), f"{options}: found {error!r}")
            for word in ("square", *words):
                check(word in str(error), f"{options}: no {word!r} in: {error}")
            with expect(mh.InvalidArgumentError):
                session.map(work.square, [3], **options)
        fitting = mh.task(work.square, resources={"seat": 2}, memory="1GB")
        check_equal(fitting.submit(3).result(LIMIT), 9)


@case("resources", "concurrent")
def memory_is_admitted(open_session: OpenSession) -> None:
    """Calls run at once only as far as the memory that they say they take is there together."""
    with open_folder() as folder, open_session(workers=3, memory="1GB"):
        gate, diary = work.Gate(folder), work.Diary(folder)
        small = [mh.task(gate.enter, memory="500MB").submit(x) for x in range(2)]
        wait_for(lambda: gate.count_entered() == 2, "two calls have their memory")
        waiting = mh.task(diary.stay, memory="1MB").submit(0)
        check_equal(mh.task(work.square).submit(3).result(LIMIT), 9)
        check_equal(diary.read(), [])
        gate.open()
        mh.gather([*small, waiting], timeout=LIMIT)
        large = mh.task(diary.stay, memory="600MB")
        mh.gather([large.submit(0.01, "large") for _ in range(6)], timeout=LIMIT)
        check_equal(diary.count_most("large"), 1)


@case("resources", "isolates")
def a_call_past_its_memory_is_ended(open_session: OpenSession) -> None:
    """A call that takes more than its `memory` fails with OutOfMemoryError, which names sizes; others go on."""
    with open_folder() as folder, open_session(workers=2) as session:
        gate = work.Gate(folder)
        other = session.submit(gate.enter, "through")
        wait_for(gate.count_entered, "another call began")
        error: Any = mh.task(_take_memory, memory="100MB").submit(400).exception(LIMIT)
        check(isinstance(error, mh.OutOfMemoryError), f"found {error!r}")
        check(isinstance(error, MemoryError), "it is no MemoryError")
        check_equal(error.limit, 100 * _MEGABYTE)
        check(error.used > 100 * _MEGABYTE, f"says that it took {error.used} bytes")
        check("_take_memory" in str(error) and "limit" in str(error), f"says: {error}")
        gate.open()
        check_equal(other.result(LIMIT), "through")
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("resources", "isolates")
def devices_are_visible_to_their_call(open_session: OpenSession) -> None:
    """A call with `gpus` sees its devices and no others, and calls at the same time have different ones."""
    with open_folder() as folder, open_session(workers=3, gpus=2):
        gate = work.Gate(folder)
        single = mh.task(_show_devices, gpus=1)
        futures = [single.submit(gate) for _ in range(2)]
        wait_for(lambda: gate.count_entered() == 2, "both devices are taken")
        waiting = single.submit(gate)
        check_equal(mh.task(work.square).submit(3).result(LIMIT), 9)
        check_equal(gate.count_entered(), 2)
        gate.open()
        check_equal(sorted(mh.gather(futures, timeout=LIMIT)), ["0", "1"])
        check(waiting.result(LIMIT) in ("0", "1"), "sees none of the devices")
        check_equal(mh.task(_show_devices, gpus=2).submit(gate).result(LIMIT), "0,1")


@case("resources", "isolates")
def calls_may_share_a_device(open_session: OpenSession) -> None:
    """Calls with fractions of a device run at once on one as far as they fit, and leave whole ones free."""
    with open_folder() as folder, open_session(workers=5, gpus=["3", "7"]):
        gate = work.Gate(folder)
        half = mh.task(_show_devices, gpus=0.5)
        first = [half.submit(gate) for _ in range(2)]
        wait_for(lambda: gate.count_entered() == 2, "two calls share a device")
        whole = mh.task(_show_devices, gpus=1).submit(gate)
        wait_for(lambda: gate.count_entered() == 3, "a device was left for a whole call")
        waiting = half.submit(gate)
        check_equal(mh.task(work.square).submit(3).result(LIMIT), 9)
        check_equal(gate.count_entered(), 3)
        gate.open()
        shared = mh.gather(first, timeout=LIMIT)
        check_equal(sorted({*shared, whole.result(LIMIT)}), ["3", "7"])
        check_equal(len(set(shared)), 1)
        check(waiting.result(LIMIT) in ("3", "7"), "sees none of the devices")


@case("resources", "isolates")
def calls_without_devices_see_what_the_program_sees(open_session: OpenSession) -> None:
    """What a call with `gpus` was shown stays with it: the next one in the worker finds the variables as they were."""
    with open_session(workers=1, gpus=2) as session:
        before = session.submit(_find_shown).result(LIMIT)
        for gpus in (1, 0.5):
            shown = mh.task(_find_shown, gpus=gpus).submit().result(LIMIT)
            check(shown != before, "it was shown nothing")
            for _ in range(2):
                check_equal(session.submit(_find_shown).result(LIMIT), before)


@case("resources")
def wrong_resources_of_a_session_fail_at_once(open_session: OpenSession) -> None:
    """A session whose resources cannot be meant does not open."""
    options: Any
    for options in (
        {"resources": {"seat": -1}},
        {"resources": {"cpus": 2}},
        {"memory": "much"},
        {"gpus": -1},
        {"gpus": "0"},
        {"gpus": ["0", "0"]},
    ):
        with expect(mh.InvalidArgumentError):
            open_session(workers=1, **options).close()


def _take_memory(megabytes: int) -> int:
    """Take more and more, and keep it."""
    blocks = []
    for number in range(megabytes // 10):
        blocks.append(bytearray([number + 1]) * (10 * _MEGABYTE))
        work.nap(0.01)
    work.nap(LIMIT)
    return len(blocks)


def _show_devices(gate: work.Gate) -> str:
    from os import environ

    gate.enter()
    shown = environ["CUDA_VISIBLE_DEVICES"]
    check_equal(
        environ.get("HIP_VISIBLE_DEVICES", shown), shown
    )  # where there may be devices of AMD
    return shown


def _find_shown() -> list[str | None]:
    from os import environ

    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
    return [environ.get(name) for name in names]
