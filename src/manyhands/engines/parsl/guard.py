"""A program of its own: runs a command, and ends it when another process ends.

Parsl's processes do not look whether the program that has started them is there. This file is run by its path, and
needs nothing but the standard library::

    python -I -S guard.py PID FOLDER COMMAND...

When the process PID ends, so does the command. With a FOLDER that is not empty the command has a process group of its
own, which ends with it, and the folder is removed when PID has ended.
"""

import ctypes
import os
import select
import shutil
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1

GRACE_SECONDS = 2.0
"""How long a group has to end after it was told to."""


def run(pid: int, folder: str, command: list[str]) -> int:
    """Run it; its exit code."""
    try:
        program = os.pidfd_open(pid)
    except ProcessLookupError:
        return 1
    guard = os.getpid()
    child = os.fork()
    if not child:
        # However this process ends, so does the command.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guard:
            os._exit(1)
        os.execvp(command[0], command)
    own = os.pidfd_open(child)
    ready, _, _ = select.select([program, own], [], [])
    if own not in ready:
        if folder:  # calls are interrupted by their workers, which notice too, and clean up
            select.select([own], [], [], GRACE_SECONDS)
        os.kill(child, signal.SIGTERM)
    if folder:
        _end_group()
        if program in ready:
            shutil.rmtree(folder, ignore_errors=True)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if own in ready else 1


def _end_group() -> None:
    """End all processes of this one's group but this one."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while (others := _list_group()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for other in others:
        try:
            os.kill(other, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _list_group() -> list[int]:
    group, found = os.getpgrp(), []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/stat") as file:
                    state, _, its_group = file.read().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(its_group) == group and state != "Z":
                found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
