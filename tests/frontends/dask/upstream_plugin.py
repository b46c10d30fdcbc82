"""Loaded by pytest in a process of its own: all of Dask's schedulers are ours, whatever a test names.

Its tests name theirs where they compare (`assert_eq` says "sync"), and by functions as well as by names; so both are
replaced, before the collections are imported, which keep them as defaults. One session is open for the whole run.
"""

from typing import Any

import dask
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded
import pytest

import manyhands as mh
from manyhands.frontends.dask import schedule

counts = {"threads": 0, "workers": 0}
"""The computations that reached us, by where they ran."""


OTHER_DEFAULTS = "expects each kind of collection to have another scheduler by default"
POOL = "brings a pool of more threads or processes than the session has workers"

PLOTS = "draws, for seconds, what its neighbours have looked at"

LEFT_OUT = {
    "test_profiler_plot": PLOTS,
    "test_resource_profiler_plot": PLOTS,
    "test_cache_profiler_plot": PLOTS,
    "test_cache_profiler_plot_with_invalid_bokeh_kwarg_raises_error": PLOTS,
    "test_plot_multiple": PLOTS,
    "test_pool_kwarg": POOL,
    "test_interrupt[True]": POOL,
    "test_num_workers_config": POOL,
    "test_temporary_directory": POOL,
    "test_compute_array_bag": OTHER_DEFAULTS,
    "test_persist_array_bag": OTHER_DEFAULTS,
    "test_groupby_tasks": "has some ten thousand nodes of microseconds, which takes seconds",
    "test_groupby_tasks_2[12345-234-1042]": "has as many nodes",
    "test_bag_groupby_dataclass": "takes seconds to ask what test_bag_groupby_none asks",
    "test_get_scheduler": OTHER_DEFAULTS,
    "test_emscripten_default_scheduler": "starts programs of its own, in which nothing is ours",
    "test_binary_operator_delegation": "needs a plugin of pytest that is not installed here",
}
"""Tests, or cases of one, and why not."""

EFFECTS = "looks in this process for what its functions do, which ran in others"
IDENTITY = "looks for the very object that it gave, of which workers have a copy"
TOGETHER = "has nodes wait for each other by an object that no pickle carries"

LEFT_OUT_ON_WORKERS = {
    "test_contextvars[None]": TOGETHER,
    "test_interrupt[False]": TOGETHER,
    "test_context_aware_warnings": EFFECTS,
    "test_nested_schedulers": EFFECTS,
    "test_compute_no_opt": EFFECTS,
    "test_to_delayed_optimize_graph": EFFECTS,
    "test_take_npartitions_warn": EFFECTS,
    "test_bag_with_single_callable": IDENTITY,
    "test_traverse_false": IDENTITY,
    "test_repartition_partition_size_complex_dtypes": IDENTITY,
    "test_store_compute_false": "has workers write into an array of this process",
    "test_from_array_getitem": IDENTITY,
    "test_custom_collection": "looks for values in what was persisted; on workers those are futures",
    "test_profiler_works_under_error": "counts nodes; those that only one other needs are one call there",
}


def replace_schedulers() -> None:
    dask.get = dask.base.get = dask.local.get_sync = mh.dask_scheduler
    dask.threaded.get = dask.multiprocessing.get = mh.dask_scheduler
    dask.base.named_schedulers.update(dict.fromkeys(dask.base.named_schedulers, mh.dask_scheduler))


replace_schedulers()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on", required=True, choices=list(counts))
    parser.addoption("--every", type=int, help="of the files that follow, each n-th test")
    parser.addoption("--sample", nargs="*", default=[])


def pytest_configure(config: pytest.Config) -> None:
    compute = schedule.compute

    def count(expr: Any, keys: Any, **keywords: Any) -> Any:
        on = keywords.setdefault("on", config.getoption("--on"))
        found = compute(expr, keys, **keywords)
        counts[on] += 1
        return found

    schedule.compute = count


@pytest.fixture(scope="session", autouse=True)
def session() -> Any:
    with mh.Session("local", workers=2) as session:
        yield session


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for place, count in counts.items():
        terminalreporter.write_line(f"computed on {place}: {count}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_workers = config.getoption("--on") == "workers"
    left_out = {**LEFT_OUT, **(LEFT_OUT_ON_WORKERS if on_workers else {})}
    unknown = left_out.keys() - {name for item in items for name in list_names(item)}
    if unknown:
        raise pytest.UsageError(f"Dask has no tests {sorted(unknown)} any more")
    sample = set(config.getoption("--sample"))
    whole = [item for item in items if str(item.path) not in sample]
    sampled = [item for item in items if str(item.path) in sample]
    chosen = [*whole, *sampled[:: config.getoption("--every")]]
    kept = [
        item
        for item in chosen
        if left_out.keys().isdisjoint(list_names(item)) and not is_repeated(item)
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def list_names(item: pytest.Item) -> tuple[str, str]:
    """A test's name with and without its parameters."""
    return item.name, item.name.partition("[")[0]


def is_repeated(item: pytest.Item) -> bool:
    """Whether it differs from another by nothing but the scheduler that it names."""
    params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    return "synchronous" in [value for value in params.values() if isinstance(value, str)]
