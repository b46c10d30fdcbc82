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

# Template to parent.
STARTED = 11  # (worker, pid)
EXITED = 12  # (worker, pid, status as of os.waitpid)

# Parent to worker.
FUNCTION = 21  # (key, name, payload, uses)
CALLS = 22  # (keys, function keys, payloads, uses: ids of what is shared in them, freed: ids of the worker's values)
FORGET = 23  # (function keys)
HEAP = 24  # (number, addresses) with its descriptor; also from a worker to the parent, of its own
FREE = 25  # (ids) of the worker's values that nobody needs
REST = 26  # () the session idles: collect garbage, give memory back

# Worker to parent.
READY = 31  # (error payload or None) its initializer has run
RESULTS = 32  # (keys, payloads, seconds of each, positions that failed, busy seconds, wrote output, born, dropped)
GIVE_BACK = 33  # (keys of calls that it has not begun, keys of functions that it has not got, boxes not opened)
RECORD = 34  # (payload of a logging record)
DROPPED = 35  # (ids) of what it was sent and has no view of any more
NEED_ROOM = 36  # (bytes) it waits for the answer in the region

BOXED = "boxed"

IDS = 2048
"""Ids in one message at most."""

WORKER_FDS = ("socket", "life", "region", "stdout", "stderr")
"""What a worker is born with, in this order: its end of the channel; the reading end of a pipe whose closing
kills it; the region of `REGION_SIZE` bytes; the pipes that it writes output to. Where there is an initializer, a
segment with its pickle follows."""

REGION_SIZE = 64 * 1024
"""Bytes that a worker shares with its parent so that the parent knows, after a crash, what was going on."""

CURRENT, JOURNAL_END, ROOM, ROOM_ANSWER, WARM_LIMIT, HEAP_SIZE = range(6)
"""Positions in the region, in words of 8 bytes: the key of the call that runs (0 for none); how many bytes of journal
are in use; how many bytes the worker may add to the store without asking; the answer when it asked; how many bytes it
may keep warm; the addresses of its heap."""

IS_ROOM, NO_ROOM = 1, 2
"""Answers to `NEED_ROOM`."""

JOURNAL_START = 64
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

GIVE_BACK_SIGNAL = getattr(_signal, "SIGRTMIN", _signal.SIGUSR1 - 4) + 4
"""Asks a worker for the calls of its current message that it has not begun. A real-time signal, because
SIGUSR1 and SIGUSR2 are commonly taken by users' programs and by batch systems."""
