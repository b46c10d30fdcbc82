"""CPython's own tests of `multiprocessing.Pool`, on ours: ``python -m unittest cpython``, in this folder, runs them."""

import multiprocessing
import threading
import unittest
from unittest.mock import patch

from test import _test_multiprocessing as upstream

import manyhands as mh

upstream.TIMEOUT1 = 0.4  # they are measured in full seconds elsewhere
upstream.TIMEOUT2 = 0.2


class Case(upstream.ProcessesMixin, unittest.TestCase):
    """Of processes, with our pool in place of theirs."""

    Pool = mh.Pool

    def setUp(self):
        super().setUp()
        patcher = patch.object(multiprocessing, "Pool", mh.Pool)
        patcher.start()
        self.addCleanup(patcher.stop)


class Pool(upstream._TestPool, Case):
    # They look at the private list of processes, or set the private state.
    test_resource_warning = None

    def test_make_pool(self):
        for size in (-1, 0):
            with self.assertRaises(ValueError):
                self.Pool(size)


def return_lock():
    """What cannot travel here either: the lambda of the original can."""
    return threading.Lock()


class PoolWorkerErrors(upstream._TestPoolWorkerErrors, Case):
    def test_unpickleable_result(self):
        with patch.object(upstream, "unpickleable_result", return_lock):
            super().test_unpickleable_result()


class PoolWorkerLifetime(upstream._TestPoolWorkerLifetime, Case):
    test_pool_worker_lifetime = None  # it looks at the private list of processes

    def test_worker_finalization_via_atexit_handler_of_multiprocessing(self):
        real = upstream.test.support.script_helper.assert_python_ok

        def run(option, script):
            self.assertIn("from multiprocessing import Pool", script)
            return real(
                option, script.replace("from multiprocessing import", "from manyhands import")
            )

        with patch.object(upstream.test.support.script_helper, "assert_python_ok", run):
            super().test_worker_finalization_via_atexit_handler_of_multiprocessing()
