"""Event loops that calls run in their own threads."""

import asyncio
from collections.abc import Callable
from typing import Any

from manyhands.core.loops import get_running_loop, lend_idle_time


def test_there_is_a_loop_only_where_one_runs() -> None:
    async def find() -> bool:
        return get_running_loop() is asyncio.get_running_loop()

    assert get_running_loop() is None
    assert asyncio.run(find())


def test_waits_for_events_are_lent_and_others_are_not() -> None:
    lent: list[Any] = []

    def lend(sleep: Callable[[], Any]) -> Any:
        found = sleep()
        lent.append(found)
        return found

    async def run() -> list[bool]:
        loop = asyncio.get_running_loop()
        hooked = [lend_idle_time(loop, lend) for _ in range(2)]
        await asyncio.sleep(0)  # does not wait
        assert not lent
        await asyncio.sleep(0.01)
        return hooked

    assert asyncio.run(run()) == [True, False]
    assert lent


def test_a_wait_that_was_cut_short_gives_no_events() -> None:
    async def run() -> None:
        lend_idle_time(asyncio.get_running_loop(), lambda _: None)
        await asyncio.sleep(0.01)

    asyncio.run(run())


def test_other_loops_are_left_alone() -> None:
    assert not lend_idle_time(object(), lambda sleep: sleep())
