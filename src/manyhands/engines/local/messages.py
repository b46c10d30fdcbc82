"""What the parent, its template process and its workers say to each other.

Every message is a tuple that begins with one of these numbers; the fields that follow stand beside each. They
are plain tuples because a no-op call costs some 5 µs in all, and an object per message would be a tenth of it.
Large pieces of bytes travel beside a message, each in a segment of its own: the field `large` names their
positions in the message's list of payloads, in the order of the descriptors.
"""

from __future__ import annotations

import _signal

# Parent to template.
CONFIGURE = 1  # (settings: dict) sent once, first
START = 2  # (worker, settings: dict) with the descriptors of `WORKER_FDS`

# Template to parent.
STARTED = 11  # (worker, pid)
EXITED = 12  # (worker, pid, status as of os.waitpid)

# Parent to worker.
FUNCTION = 21  # (key, name, [payload], large)
CALLS = 22  # (keys, function keys, payloads, large)
FORGET = 23  # () all functions that were sent so far

# Worker to parent.
READY = 31  # (error payload or None) its initializer has run
RESULTS = 32  # (keys, payloads, seconds of each, positions that failed, busy seconds, wrote output, large)
GIVE_BACK = 33  # (keys) calls that it was sent and has not begun
RECORD = 34  # (payload of a logging record)

WORKER_FDS = ("socket", "life", "region", "stdout", "stderr")
"""What a worker is born with, in this order: its end of the channel; the reading end of a pipe whose closing
kills it; the region of `REGION_SIZE` bytes; the pipes that it writes output to. Where there is an initializer, a
segment with its pickle follows."""

REGION_SIZE = 64 * 1024
"""Bytes that a worker shares with its parent so that the parent knows, after a crash, what was going on."""

CURRENT, JOURNAL_END = 0, 1
"""Positions in the region, in words of 8 bytes: the key of the call that runs (0 for none), and how many bytes
of journal are in use."""

JOURNAL_START = 64
"""Where the journal begins: results that have ended and are not sent yet, each a `JOURNAL_ENTRY` and its payload."""

JOURNAL_ENTRY = "<QdBI"  # key, seconds, failed, length of the payload

INLINE_LIMIT = 16 * 1024
"""Bytes of a payload above which it travels in a segment."""

FLUSH_BYTES = 96 * 1024
"""Bytes of payloads at which a message is sent."""

GIVE_BACK_SIGNAL = getattr(_signal, "SIGRTMIN", _signal.SIGUSR1 - 4) + 4
"""Asks a worker for the calls of its current message that it has not begun. A real-time signal, because
SIGUSR1 and SIGUSR2 are commonly taken by users' programs and by batch systems."""
