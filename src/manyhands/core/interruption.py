"""An exception that one thread has raised in another, between two of its instructions.

It cannot be taken back: where one is asked to, Python 3.11 keeps a flag for good that something is to be raised, takes
the slow way at every check, and under a debugger hangs. So a thread that is through with what was to be interrupted
lets come what is on its way, and goes on.
"""

from __future__ import annotations

from manyhands.errors import CallInterrupted


def send_interrupt(thread: int) -> None:
    """Have `CallInterrupted` raised in a thread, given by its identifier, when it next runs Python code."""
    import ctypes  # it takes 3 ms to import, and few programs need it

    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(CallInterrupted)
    )


def let_interrupt_come() -> None:
    """Raise here what was sent to this thread and has not been raised yet.

    Python looks for it where a function begins, and so here.
    """
