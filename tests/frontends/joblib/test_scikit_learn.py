"""scikit-learn's own use of joblib gives what it gives without."""

from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.svm import SVC

DATA, LABELS = load_digits(return_X_y=True)
DATA, LABELS = DATA[:160], LABELS[:160]


def search() -> Any:
    grid = {"C": [0.5, 1], "gamma": [0.0005, 0.001]}
    return GridSearchCV(SVC(), grid, cv=3).fit(DATA, LABELS).cv_results_["mean_test_score"]


def score() -> Any:
    return cross_val_score(SVC(), DATA, LABELS, cv=3)


def forest() -> Any:
    model = RandomForestClassifier(n_estimators=10, random_state=0).fit(DATA, LABELS)
    return model.predict_proba(DATA)


def importance() -> Any:
    model = SVC().fit(DATA[:100], LABELS[:100])
    found = permutation_importance(model, DATA[:60], LABELS[:60], n_repeats=2, random_state=0)
    return found.importances_mean


def nested() -> Any:
    forest = RandomForestClassifier(n_estimators=6, random_state=0, n_jobs=2)
    return cross_val_score(forest, DATA, LABELS, cv=2)


@pytest.mark.parametrize("compute", [search, score, forest, importance, nested])
def test_it_equals_what_one_process_computes(compute: Any) -> None:
    expected = compute()
    with joblib.parallel_config("manyhands", n_jobs=2):
        np.testing.assert_array_equal(compute(), expected)


def test_a_grown_tree_of_a_large_data_set_reads_it_in_place() -> None:
    data = np.random.default_rng(0).random((3000, 64))  # 1.5 MB: above joblib's limit
    labels = (data[:, 0] > 0.5).astype(int)
    with joblib.parallel_config("manyhands", n_jobs=2):
        found = cross_val_score(
            RandomForestClassifier(5, random_state=0), data, labels, cv=2, n_jobs=2
        )
    expected = cross_val_score(RandomForestClassifier(5, random_state=0), data, labels, cv=2)
    np.testing.assert_array_equal(found, expected)
