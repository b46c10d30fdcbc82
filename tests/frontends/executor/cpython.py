"""CPython's own tests of `concurrent.futures`, on our executor; ``python -m unittest cpython``, here, runs them.

What is left out, and why, stands with each class.
"""

import multiprocessing
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from unittest.mock import patch

from test.test_concurrent_futures import (
    test_as_completed,
    test_deadlock,
    test_init,
    test_process_pool,
    test_shutdown,
    test_wait,
    util,
)

import manyhands as mh


class Executor(mh.Executor):
    """Ours, which takes the keyword that the tests give, and says of itself what they look at."""

    def __init__(self, *args, mp_context=None, **options):
        super().__init__(*args, **options)

    @property
    def _broken(self):
        try:
            self.submit(id, 1).result()
        except BrokenExecutor as error:
            return str(error)
        return False


class Mixin(util.ExecutorMixin):
    executor_type = Executor

    def get_context(self):
        return multiprocessing.get_context("spawn")


def make(base, leave_out=()):
    """A test case of a class, without some of its tests."""
    return type(base.__name__, (base, Mixin, util.BaseTestCase), dict.fromkeys(leave_out))


ProcessPool = make(
    test_process_pool.ProcessPoolExecutorTest,
    leave_out=[
        "test_killed_child",  # a worker's death breaks nothing here
        # They look at the private list of processes.
        "test_saturation",
        "test_idle_process_reuse_one",
        "test_idle_process_reuse_multiple",
        "test_max_tasks_per_child",
        "test_max_tasks_per_child_defaults_to_spawn_context",
        "test_python_finalization_error",  # of its private threads
    ],
)


class Shutdown(test_shutdown.ExecutorShutdownTest, Mixin, util.BaseTestCase):
    """The scripts import our executor."""

    def setUp(self):
        super().setUp()
        real = test_shutdown.assert_python_ok

        def run(option, script):
            return real(
                option,
                script.replace(
                    "from concurrent.futures import Executor",
                    "from manyhands import Executor as Ours\n"
                    "            Executor = lambda *a, mp_context=None, **k: Ours(*a, **k)",
                ),
            )

        patcher = patch.object(test_shutdown, "assert_python_ok", run)
        patcher.start()
        self.addCleanup(patcher.stop)


Wait = make(test_wait.WaitTests)
AsCompleted = make(test_as_completed.AsCompletedTests)
Initializer = make(test_init.InitializerMixin)


class FailingInitializer(test_init.FailingInitializerMixin, Mixin, util.BaseTestCase):
    """What the initializer raised is in the error, and not in a log."""

    @contextmanager
    def _assert_logged(self, message):
        yield
        with self.assertRaisesRegex(BrokenExecutor, message):
            self.executor.submit(id, 1)


class Deadlock(test_deadlock.ExecutorDeadlockTest, Mixin, util.BaseTestCase):
    """Whatever happens to a worker, its call ends, with an error that is not that of a broken pool."""

    # Here sys.exit ends the process that it is called in, as everywhere.
    test_exit_during_func_exec_on_worker = None
    test_exit_during_result_pickle_on_worker = None
    # Private parts of the standard executor.
    test_shutdown_deadlock_pickle = None
    test_gh105829_should_not_deadlock_if_wakeup_pipe_full = None

    def setUp(self):
        super().setUp()
        patcher = patch.object(
            test_deadlock,
            "BrokenProcessPool",
            (mh.WorkerDiedError, mh.UnloadableError),
        )
        patcher.start()
        self.addCleanup(patcher.stop)
