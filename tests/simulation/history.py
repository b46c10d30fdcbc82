"""Runs histories, and makes an error of one in which an invariant does not hold."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from manyhands.errors import ManyhandsError
from tests.simulation.outside import here
from tests.simulation.violations import ViolationError
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable

_LINES = 60
"""Of a story that belongs to no call, so many last ones."""


class SimulationError(ManyhandsError):
    """An invariant does not hold in a history.

    Attributes
    ----------
    seed : int
        Of the history.
    step : int
        At which that was seen.
    story : list of str
        What happened to the call concerned; where it is none, what happened last.
    """

    seed: int = 0
    step: int = 0
    story: list[str] = []


def run_history(seed: int) -> SimulationError | None:
    """Run the history of a seed; what does not hold in it, or None.

    Examples
    --------
    >>> run_history(2) is None
    True
    """
    try:
        World(seed).run()
    except (ViolationError, Exception):
        return _explain(seed)
    return None


def run_histories(seeds: Iterable[int]) -> list[SimulationError]:
    """Run many; those in which something does not hold."""
    errors = []
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        for seed in seeds:
            error = run_history(seed)
            if error is not None:
                errors.append(error)
            here.forget()
            gc.collect(0)  # the world that was, and nothing else
    finally:
        if was_collecting:
            gc.enable()
    return errors


def tell_history(seed: int) -> list[str]:
    """All that happens in the history of a seed."""
    world = World(seed, is_told=True)
    try:
        world.run()
    except (ViolationError, Exception) as error:
        world.tell(None, f"{type(error).__name__}: {error}")
    return [f"{step:6} {text}" for step, _, text in world.story]


def _explain(seed: int) -> SimulationError:
    """Have the history again, and listen this time."""
    world = World(seed, is_told=True)
    try:
        world.run()
    except (ViolationError, Exception) as failure:
        script = getattr(failure, "script", None)
        numbers = {0} if script is None else {script.number}
        if script is not None and script.outer is not None:
            numbers.add(script.outer.number)
        story = [
            f"{step:6} {text}"
            for step, number, text in world.story
            if script is None or number in numbers
        ]
        error = SimulationError(
            f"history {seed}, step {world.steps}: {type(failure).__name__}: {failure}\n"
            + "\n".join(story[-_LINES:])
            + f"\nAll of it: python -m tests.simulation --seed {seed}"
        )
        error.seed, error.step, error.story = seed, world.steps, story
        error.__cause__ = failure
        return error
    return SimulationError(
        f"history {seed} failed, and did not when it was run again: it is not its seed's alone"
    )
