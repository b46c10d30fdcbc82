"""`joblib.Parallel` with our backend beside its own: the same program, with another name in it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import OURS
from benchmarks.data_work import make_array
from benchmarks.loads import Load, choose_repeats, expect
from benchmarks.measurement import Against, Metric, Reading, Row, Setting, Target, Unit
from benchmarks.statistics import compute_median
from benchmarks.work import pause, square

_BACKENDS = {OURS: "manyhands", "joblib": "loky"}
_TITLES = {OURS: "Parallel over manyhands", "joblib": "Parallel over loky"}
_ARRAY_BYTES = 200 * 2**20
_ARRAY_CALLS = 100


@dataclass(frozen=True)
class _Case:
    """What is called, and what is to come of it.

    Attributes
    ----------
    run : callable
        Under the backend that is measured.
    expected : object
    count : int
        Calls in it, of which the rate is told.
    """

    run: Callable[[], Any]
    expected: object
    count: int


def make_single(setting: Setting) -> _Case:
    """Quick calls that travel one by one."""
    return _make_squares(1_000 if setting.quick else 10_000, batch_size=1)


def make_auto(setting: Setting) -> _Case:
    """Quick calls in batches as the backend has them."""
    return _make_squares(10_000 if setting.quick else 100_000, batch_size="auto")


def _make_squares(count: int, **options: Any) -> _Case:
    def run() -> Any:
        from joblib import Parallel, delayed

        return Parallel(**options)(delayed(square)(number) for number in range(count))

    return _Case(run, [number * number for number in range(count)], count)


def make_array_calls(setting: Setting) -> _Case:
    """Calls that read one element each of the same large array."""
    array = make_array((2**20 if setting.quick else _ARRAY_BYTES) // 8)
    places = range(_ARRAY_CALLS)

    def run() -> Any:
        from joblib import Parallel, delayed

        return Parallel()(delayed(read)(array, place) for place in places)

    return _Case(run, [read(array, place) for place in places], _ARRAY_CALLS)


def read(array: Any, place: int) -> float:
    return float(array[place])


def make_search(setting: Setting) -> _Case:
    """scikit-learn's search over 24 candidates, three folds each."""
    selection = importlib.import_module("sklearn.model_selection")
    machine = importlib.import_module("sklearn.svm").SVC()
    grid = {"C": [0.1, 0.3, 1, 3, 10, 30], "gamma": [0.0001, 0.0003, 0.001, 0.003]}
    data, labels = _load_digits(setting)

    def run() -> Any:
        found = selection.GridSearchCV(machine, grid, cv=3).fit(data, labels)
        return found.cv_results_["mean_test_score"].tolist()

    return _Case(run, run(), 72)


def make_forest(setting: Setting) -> _Case:
    """scikit-learn's forest of 100 trees."""
    ensemble = importlib.import_module("sklearn.ensemble")
    data, labels = _load_digits(setting)

    def run() -> Any:
        model = ensemble.RandomForestClassifier(100, random_state=0).fit(data, labels)
        return [tree.get_n_leaves() for tree in model.estimators_]

    return _Case(run, run(), 100)


def _load_digits(setting: Setting) -> tuple[Any, Any]:
    data, labels = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    return (data[:200], labels[:200]) if setting.quick else (data, labels)


def _measure(make: Callable[[Setting], _Case]) -> Callable[[str, Setting], Reading]:
    def measure(contender: str, setting: Setting) -> Reading:
        case = make(setting)
        with open_backend(contender, setting.workers):
            load = Load(case.run, lambda found: expect(found, case.expected))
            walls = load.time_rounds(choose_repeats(contender, setting))
        wall = compute_median(walls)
        return Reading({"rate": case.count / wall, "wall": wall}, f"{len(walls)} a round")

    return measure


@contextmanager
def open_backend(contender: str, workers: int) -> Iterator[None]:
    """The backend of this contender for all of joblib, with workers that have begun."""
    importlib.import_module(OURS)
    import joblib
    from joblib import Parallel, delayed

    with joblib.parallel_config(_BACKENDS[contender], n_jobs=workers):
        # Calls that sleep cannot all be taken by the worker that came up first.
        Parallel(batch_size=1)(delayed(pause)(0.05) for _ in range(4 * workers))
        yield
    if contender == OURS:
        importlib.import_module("manyhands.frontends.joblib").shutdown()
    else:
        importlib.import_module("joblib.externals.loky").get_reusable_executor().shutdown()


_RATE = (Metric("rate", "calls", Unit.RATE, higher_is_better=True),)
_WALL = (Metric("wall", "wall", Unit.SECONDS),)


def _reach_rate(factor: float) -> tuple[Target, ...]:
    return (Target("rate", factor, at_least=True, against=Against.PEER, peer="joblib"),)


def _reach_wall(factor: float) -> tuple[Target, ...]:
    return (Target("wall", factor, against=Against.PEER, peer="joblib"),)


ROWS = (
    Row(
        name="joblib-single",
        title="joblib: 10,000 quick calls, batch_size=1",
        metrics=_RATE,
        targets=_reach_rate(5.0),
        contenders=_TITLES,
        measure=_measure(make_single),
    ),
    Row(
        name="joblib-auto",
        title="joblib: 100,000 quick calls, batch_size='auto'",
        metrics=_RATE,
        targets=_reach_rate(1.0),
        contenders=_TITLES,
        measure=_measure(make_auto),
    ),
    Row(
        name="joblib-array",
        title="joblib: 100 calls on one array of 200 MiB",
        metrics=_WALL,
        targets=_reach_wall(0.5),
        contenders=_TITLES,
        measure=_measure(make_array_calls),
    ),
    Row(
        name="joblib-search",
        title="scikit-learn: GridSearchCV of SVC on digits, 24 candidates, 3 folds",
        metrics=_WALL,
        targets=_reach_wall(1.0),
        contenders=_TITLES,
        measure=_measure(make_search),
    ),
    Row(
        name="joblib-forest",
        title="scikit-learn: RandomForestClassifier of 100 trees on digits",
        metrics=_WALL,
        targets=_reach_wall(1.0),
        contenders=_TITLES,
        measure=_measure(make_forest),
    ),
)
