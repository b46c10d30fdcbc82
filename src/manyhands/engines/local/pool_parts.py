"""What the state of the pool consists of: calls, workers, the stages of actors, lanes of calls that are alike."""

from __future__ import annotations

from collections import deque

from manyhands.core.model import DEFAULT_OPTIONS
from manyhands.core.parcels import measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from manyhands.core.functions import Function
    from manyhands.core.model import CallOptions
    from manyhands.core.parcels import Payload
    from manyhands.core.resources import Need


class Entry:
    """A call on its way: what a message is made of.

    Attributes
    ----------
    depth
        Calls that it was made in: 0 for one that the program made.
    stage
        The number of the stage that it has to run on; 0 for none.
    """

    __slots__ = ("depth", "function", "key", "options", "payload", "size", "stage")

    def __init__(
        self,
        key: int,
        function: Function,
        payload: Payload,
        options: CallOptions = DEFAULT_OPTIONS,
        *,
        depth: int = 0,
        stage: int = 0,
    ) -> None:
        self.key = key
        self.function = function
        self.payload = payload
        self.size = measure(payload)
        self.options = options
        self.depth = depth
        self.stage = stage


class WorkerState:
    """What one worker has been sent.

    Attributes
    ----------
    inflight
        Calls without an outcome, by key, in the order in which they were sent.
    known
        Keys of the functions that it was sent.
    is_closing
        Whether it gets no more calls.
    is_ready
        Whether it has said that it is up.
    is_grouped
        Whether any of what is in flight was sent in one message with others.
    is_blocked
        Whether the call that it is at waits for others.
    is_host
        Whether it runs calls beside each other.
    need, devices
        What it holds of the capacity; None where nothing.
    visible
        Devices that its process has seen, once it has seen any.
    stages
        Numbers of the stages that are on it; a worker of the crew has none.
    joined
        Calls that it has run, whose results are those of others that they made.
    calls
        How many calls it has ended.
    current, since
        The call that it was at when it was last looked at, and since when, in seconds of any clock; None where it
        was asked for the rest.
    """

    __slots__ = (
        "calls",
        "current",
        "devices",
        "inflight",
        "is_blocked",
        "is_closing",
        "is_grouped",
        "is_host",
        "is_ready",
        "joined",
        "known",
        "need",
        "number",
        "since",
        "stages",
        "visible",
    )

    def __init__(self, number: int, *, is_host: bool = False) -> None:
        self.number = number
        self.inflight: dict[int, Entry] = {}
        self.joined: dict[int, Entry] = {}
        self.known: set[int] = set()
        self.is_closing = False
        self.is_ready = False
        self.is_grouped = False
        self.is_blocked = False
        self.is_host = is_host
        self.need: Need | None = None
        self.devices: tuple[str, ...] = ()
        self.visible: tuple[str, ...] | None = None
        self.stages: set[int] = set()
        self.calls = 0
        self.current = 0
        self.since: float | None = None


class StageState:
    """The calls of one actor.

    Attributes
    ----------
    need, devices
        What it holds of the capacity as long as it lives.
    holds
        Whether it holds that now.
    is_paused
        Whether others have its cpus meanwhile, for all its calls wait.
    limit
        Calls that may be in flight at a time.
    is_light
        Whether its worker has other stages too.
    is_host
        Whether its calls run beside each other, or beside those of other stages.
    lane
        Calls that wait, in their order.
    inflight
        How many are with its worker.
    worker
        Where it is; None before it has a place, and after its worker's end.
    making
        The call that makes it, until that has ended well; no other may go before.
    is_waiting
        Whether it waits for a place.
    is_closed
        Whether it gets no more calls than it has.
    """

    __slots__ = (
        "devices",
        "holds",
        "inflight",
        "is_closed",
        "is_host",
        "is_light",
        "is_paused",
        "is_waiting",
        "lane",
        "limit",
        "making",
        "need",
        "number",
        "worker",
    )

    def __init__(
        self, number: int, need: Need, limit: int, *, is_light: bool, is_host: bool
    ) -> None:
        self.number = number
        self.need = need
        self.devices: tuple[str, ...] = ()
        self.holds = False
        self.is_paused = False
        self.limit = limit
        self.is_light = is_light
        self.is_host = is_host
        self.lane: deque[Entry] = deque()
        self.inflight = 0
        self.worker: WorkerState | None = None
        self.making: Entry | None = None
        self.is_waiting = True
        self.is_closed = False

    def sort(self) -> None:
        """Put calls that wait in the order of their making: one caller's keys grow, and the making's is least."""
        self.lane = deque(sorted(self.lane, key=lambda entry: entry.key))


class Lane:
    """Calls that wait and are alike to the scheduler."""

    __slots__ = ("depth", "entries", "need", "priority")

    def __init__(self, priority: int, depth: int, need: Need, entries: deque[Entry]) -> None:
        self.priority = priority
        self.depth = depth
        self.need = need
        self.entries = entries
