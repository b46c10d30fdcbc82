"""Loaded by pytest in a process of its own: joblib's tests meet our backend where they mean loky.

Of what they repeat for each backend, each number of jobs and each verbosity, that for ours is kept, with two jobs and
little said. Processes below ours (in a worker, or a child of `multiprocessing`) know ours by loky's name too.
"""

from typing import Any

import joblib._parallel_backends
import joblib.parallel
import pytest

from manyhands.frontends.joblib import ManyhandsBackend

LEFT_OUT = {
    "test_nested_parallel_warnings": "asks for loky's warning that it does not nest; ours nests",
    "test_parallel_pickling": "asks for loky's words; ours is a PicklingError too, and names the argument",
    "test_auto_memmap_on_arrays_from_generator": "asks for np.memmap; ours are arrays in shared memory",
    "test_memmapping_leaks": "looks for loky's files, of which ours has none",
    "test_multiple_generator_call_separated_gc": "asks for loky's error; ours goes on, as tested here beside",
    "test_loky_reuse_workers": "looks at loky's own executor",
    "test_parallel_with_interactively_defined_functions": "starts programs that use loky itself",
    "test_parallel_with_interactively_defined_functions_loky": "starts a program that uses loky itself",
    "test_parallel_with_interactively_defined_bound_method_loky": "starts a program that uses loky itself",
    "test_parallel_with_unpicklable_functions_in_args": "starts programs that use loky itself",
    "test_no_blas_crash_or_freeze_with_subprocesses": "is about forking after BLAS was used; ours does not",
    "test_initializer_context": "takes seconds, and is tested beside",
    "test_initializer_not_reused": "takes seconds, and is tested beside",
    "test_initializer_reused": "takes seconds, and is tested beside",
    "test_threadpool_limitation_in_child_override": "takes seconds, and is tested beside",
    "test_dispatch_race_condition[200-12-n_jobs-auto]": "has twelve workers import joblib",
    "test_dispatch_race_condition[25-12-2 * n_jobs-1]": "has twelve workers import joblib",
    "test_dispatch_race_condition[250-12-all-1]": "has twelve workers import joblib",
    "test_dispatch_race_condition[10-4-n_jobs-auto]": "has four workers import joblib",
}
"""Tests, or cases of one, and why not."""

REPEATED = {
    "n_jobs": (1, 3, 4, -1, -2, None),
    "verbose": (11, 100),
    "context": (joblib.parallel_backend,),
    "return_as_1": ("generator_unordered",),
    "inner_max_num_threads": (2, 4),
    "var_name": ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
}
"""Parameters with values that bring nothing new for ours."""


class LokyBackend(ManyhandsBackend):
    """Ours, by the name that some tests expect of a class."""


joblib.parallel.BACKENDS["loky"] = LokyBackend
joblib._parallel_backends.LokyBackend = LokyBackend


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    names = {item.name for item in items} | {item.name.partition("[")[0] for item in items}
    unknown = set(LEFT_OUT) - names
    if unknown:
        raise pytest.UsageError(f"joblib has no tests {sorted(unknown)} any more")
    dropped = [item for item in items if is_left_out(item)]
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=dropped)


def is_left_out(item: pytest.Item) -> bool:
    if item.name in LEFT_OUT or item.name.partition("[")[0] in LEFT_OUT:
        return True
    params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    backends = [value for name, value in params.items() if name.endswith("backend")]
    if backends and not any(map(is_ours, backends)):
        return True
    return any(params[name] in values for name, values in REPEATED.items() if name in params)


def is_ours(backend: object) -> bool:
    return backend in (None, "loky") or isinstance(backend, ManyhandsBackend)
