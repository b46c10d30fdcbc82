"""What the parent, its template process and its workers say to each other.

Every message is a tuple that begins with one of these numbers; the fields that follow stand beside each. They
are plain tuples because a no-op call costs some 5 µs in all, and an object per message would be a tenth of it.

A payload is the bytes of a pickle, or a tuple of what `core.parcels.Parcel` has: the stream, buffers, inputs and refs,
where a part that is shared is a tuple of numbers that says where. One with very many parts travels in a box:
``(BOXED, part)``, where the part holds the pickle of the payload and of what belongs to it.
"""

from __future__ import annotations

import _signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from manyhands.core.parcels import Parcel

# Parent to template.
CONFIGURE = 1  # (settings: dict) sent once, first
START = 2  # (worker, settings: dict) with the descriptors of `WORKER_FDS`

PRELOAD = 3  # () workers to come will need what sessions are made of

# Template to parent.
STARTED = 11  # (worker, pid)
EXITED = 12  # (worker, pid, status as of os.waitpid)

# Parent to worker.
FUNCTION = 21  # (key, name, payload, uses)
CALLS = 22  # (keys, function keys, payloads, uses: ids of what is shared in them, freed: ids of the worker's values,
#              extras: None, or by key (seconds that it may run or None, environment or None, window of a stream))
FORGET = 23  # (function keys)
HEAP = 24  # (number, addresses) with its descriptor; also from a worker to the parent, of its own
FREE = 25  # (ids) of the worker's values that nobody needs
REST = 26  # () the session idles: collect garbage, give memory back
OUTCOMES = 27  # (keys, payloads, positions that failed, uses, freed, whether to go on) of calls that this worker made
ITEMS = 28  # (key, payloads, uses, freed) of a stream that a call of this worker reads
GRANT = 29  # (key, items) that may come of a stream; also from a worker that reads one
CANCELLED = 30  # (number, keys) the answer to CANCEL
STOP = 51  # (key) to a worker that runs several calls: interrupt this one
DISMISS = 53  # (actor) that is not needed any more, to a worker that has others
ANSWER = 52  # (number, whether it failed, pickle) to ASK
ORDERED = 54  # (number, message) one that keeps its place: see `IN_ORDER`

# Worker to parent.
READY = 31  # (error payload or None) its initializer has run
RESULTS = 32  # (keys, payloads, seconds of each, positions that failed, busy seconds, wrote output, born, dropped)
GIVE_BACK = 33  # (keys of calls that it has not begun, keys of functions that it has not got, boxes not opened)
RECORD = 34  # (payload of a logging record)
DROPPED = 35  # (ids) of what it was sent and has no view of any more
NEED_ROOM = 36  # (bytes) it waits for the answer in the region
MADE = 37  # (key, name, payload, born, whether it is a coroutine function) a function that this worker's calls use
SUBMIT = 38  # (parent, key, key of MADE, payload, born, options, departed: keys of MADE) a call that a call has made
BLOCKED = (
    39  # (keys of calls that it has not begun, the call that is waited for or 0) its call waits
)
WAKE = 40  # (whether at once) its call waits no longer, and asks to go on
CANCEL = 41  # (number, keys, whether also running ones) of calls that its calls have made
YIELD = 42  # (key, payload, born) one item of a stream
KEEP = 43  # (actor, payload, born) its state
JOIN = 44  # (key, key of a call that it made) the one's result is that of the other
STUCK = 45  # (key, packed error) it was interrupted and does not yield, and others run beside it
PAUSE = 48  # (whether) all calls that a host is at wait for others, whose are its cpus meanwhile
ACT = 47  # (actor, key of MADE that makes it, key of MADE that restores it or 0, payload, born, place) to be started
ASK = 46  # (number, name of a question, pickle of its arguments)

IN_ORDER = frozenset({HEAP, OUTCOMES, ITEMS, GRANT, CANCELLED, STOP, DISMISS, ANSWER})
"""Messages to a worker that are numbered; FUNCTION and CALLS are, too, where they are an actor's that runs them one by
one. The parent may take back what a worker has not read, and sends these again; the worker reads on meanwhile, and
takes them in by their numbers all the same."""

BOXED = "boxed"

IDS = 2048
"""Ids in one message at most."""

WORKER_FDS = ("socket", "life", "region", "stdout", "stderr")
"""What a worker is born with, in this order: its end of the channel; the reading end of a pipe whose closing
kills it; the region of `REGION_SIZE` bytes; the pipes that it writes output to. Where there is an initializer, a
segment with its pickle follows."""

REGION_SIZE = 64 * 1024
"""Bytes that a worker shares with its parent so that the parent knows, after a crash, what was going on."""

CURRENT, JOURNAL_END, ROOM, ROOM_ANSWER, WARM_LIMIT, HEAP_SIZE, STARTED, INTERRUPT, CANCELS = range(
    9
)
"""Positions in the region, in words of 8 bytes: the key of the call that runs (0 for none); how many bytes of journal
are in use; how many bytes the worker may add to the store without asking; the answer when it asked; how many bytes it
may keep warm; the addresses of its heap; when the call that runs began, in nanoseconds of the monotonic clock, if it
is timed; the key of a call that is to be interrupted; how many of the cancelled calls below there are."""

CANCELLED_KEYS = range(9, 25)
"""Positions, too: keys of calls in the worker's hands that it is not to begin; 0 where there is none."""

IS_ROOM, NO_ROOM = 1, 2
"""Answers to `NEED_ROOM`."""

JOURNAL_START = 208
"""Where the journal begins: results that have ended and are not sent yet, each a `JOURNAL_ENTRY` and its payload."""

JOURNAL_ENTRY = "<QdBI"  # key, seconds, kind, length of the payload

ENDED, FAILED, SHARED = range(3)
"""Kinds of journal entries: a result that is a pickle; an exception; a payload with what is born of it, pickled."""

_BULK_BYTES = 32 * 1024


def is_bulky(parcel: Parcel) -> bool:
    """Whether a payload's description is too large for a message, and goes in a box."""
    return parcel.weight > _BULK_BYTES


FLUSH_BYTES = 96 * 1024
"""Bytes of payloads at which a message is sent."""

STACK_SIZE = 16 * 1024
"""Bytes behind the region where the worker's Python stack is written when it is asked for."""

ORIGIN_SHIFT = 40
"""Keys of calls that a worker's calls have made begin with the worker's number."""


def get_origin(key: int) -> int:
    """The worker that made a call; 0 for the program."""
    return key >> ORIGIN_SHIFT


GIVE_BACK_SIGNAL = getattr(_signal, "SIGRTMIN", _signal.SIGUSR1 - 4) + 4
"""Asks a worker for the calls of its current message that it has not begun. A real-time signal, because
SIGUSR1 and SIGUSR2 are commonly taken by users' programs and by batch systems."""

INTERRUPT_SIGNAL = GIVE_BACK_SIGNAL + 1
"""Asks a worker to raise `CallInterrupted` in the call that INTERRUPT names, if that is the one that runs."""

STACK_SIGNAL = GIVE_BACK_SIGNAL + 2
"""Has a worker write its Python stack behind the region, also where native code does not return."""
