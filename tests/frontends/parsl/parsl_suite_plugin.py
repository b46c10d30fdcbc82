"""Parsl's own test fixtures, with our executor wherever its tests ask for threads or for worker processes.

A plugin for the pytest that runs Parsl's tests, in a process of its own.
"""

import parsl
import parsl.executors.threads
from parsl.tests import conftest
from parsl.tests.configs import htex_local, local_threads

import manyhands as mh

# All of Parsl's conftest but for one hook, whose argument pytest has no more since version 9.
globals().update(
    {
        name: value
        for name, value in vars(conftest).items()
        if not name.startswith("__") and name != "pytest_ignore_collect"
    }
)


def make_executor(
    label: str = "manyhands", max_threads: int = 2, **options: object
) -> mh.ParslExecutor:
    """In the place of Parsl's `ThreadPoolExecutor`."""
    return mh.ParslExecutor(label, max_threads, **options)


def make_config() -> parsl.Config:
    return parsl.Config(executors=[make_executor()], strategy="none")


# The tests import these names from their modules, after this one.
local_threads.fresh_config = htex_local.fresh_config = make_config
for module in (parsl, parsl.executors, parsl.executors.threads):
    module.ThreadPoolExecutor = make_executor
