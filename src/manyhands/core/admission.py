"""What engines whose calls run in this process have for them, and what they say to calls that need more."""

from __future__ import annotations

import os

from manyhands.core.attempt import describe_call
from manyhands.core.devices import find_gpus
from manyhands.core.resources import Capacity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from manyhands.core.model import Call, EngineConfig
    from manyhands.core.resources import Need


def make_capacity(config: EngineConfig) -> Capacity:
    """What a session has; how much memory there is stays open until a call asks for some.

    Raises
    ------
    InvalidArgumentError
    """
    gpus = find_gpus(os.environ) if config.gpus is None else config.gpus
    return Capacity(config.workers, gpus, config.memory, config.resources)


def explain_misfit(capacity: Capacity, call: Call, need: Need, what: str = "") -> str | None:
    """Why a call could never run, in a sentence; None where it could.

    Parameters
    ----------
    capacity
        Of the session; nobody else changes it meanwhile.
    call
    need
        What it would hold.
    what
        What it is; its key and name where left out.
    """
    if need.memory and capacity.memory is None:
        from manyhands.core.machine import read_memory  # 10 ms, which most sessions never need

        memory = read_memory()
        there = memory.group_limit or memory.machine or need.memory
        capacity.limit_memory(there - there % 2**20)
    reason = capacity.explain_misfit(need)
    if reason is None:
        return None
    return f"{what or f'call {call.key}, {describe_call(call)}'}: {reason}"
