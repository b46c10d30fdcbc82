"""Why a worker ended, in words."""

from __future__ import annotations

import os
import signal

from manyhands.errors import WorkerDiedError

_LIKELY_CAUSES = {
    signal.SIGKILL: "somebody, or the kernel for want of memory, killed it",
    signal.SIGSEGV: "native code (an extension module, or a library under it) crashed",
    signal.SIGBUS: "native code crashed, or a mapped file or shared memory shrank or the disk is full",
    signal.SIGABRT: "native code gave up (abort, a failed assertion, corrupted memory)",
    signal.SIGFPE: "native code divided by zero",
    signal.SIGILL: "native code was built for another processor",
    signal.SIGTERM: "somebody asked it to end",
    signal.SIGXCPU: "its limit of processor time is used up",
    signal.SIGINT: "somebody interrupted it",
}


def describe_death(
    call: str,
    key: int,
    pid: int | None,
    status: int,
    stderr: list[str],
    *,
    out_of_memory: bool = False,
) -> WorkerDiedError:
    """The error of a call whose worker ended.

    Parameters
    ----------
    call, key
        The call's name and key; 0 where it is no call.
    pid
        Of the worker, where it is known.
    status
        As `os.waitpid` gives it.
    stderr
        The last lines that it wrote.
    out_of_memory
        Whether the kernel is known to have killed for want of memory meanwhile.
    """
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    how, why = _describe_exit(code) if number is None else _describe_signal(number, out_of_memory)
    what = f"call {key}, {call}" if key else call
    lines = [f"the worker process {pid} {how} while it ran {what}: {why}."]
    if stderr:
        lines += ["The last it wrote to its standard error:", *(f"    {line}" for line in stderr)]
    else:
        lines.append("It wrote nothing to its standard error.")
    lines.append("Other calls are not affected. To try such a call more often: worker_retries=…")
    error = WorkerDiedError("\n".join(lines))
    error.key = key
    error.call, error.pid, error.signal, error.exit_code, error.stderr = (
        call,
        pid,
        number,
        code,
        stderr,
    )
    return error


def _describe_signal(number: int, out_of_memory: bool) -> tuple[str, str]:
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"was ended by signal {number}", "the cause is unknown"
    if known is signal.SIGKILL and out_of_memory:
        return (
            "was ended by SIGKILL (signal 9)",
            "the kernel counts a kill for want of memory in this control group",
        )
    cause = _LIKELY_CAUSES.get(known, "the cause is unknown")
    return f"was ended by {known.name} (signal {number})", f"likely {cause}"


def _describe_exit(code: int | None) -> tuple[str, str]:
    return (
        f"exited with code {code}",
        "the call, or native code under it, ended the process (exit, os._exit)",
    )


def count_oom_kills() -> int:
    """Processes of this control group that the kernel has killed for want of memory; 0 where it does not tell."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            with open(path) as file:
                fields = dict(line.split() for line in file)
        except (OSError, ValueError):
            continue
        return int(fields.get("oom_kill", 0))
    return 0
