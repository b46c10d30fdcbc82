"""Handwritten digits are told apart by scikit-learn, with its parallel parts on our workers.

The data are the 1,797 scanned digits that scikit-learn brings. A search finds the best support vector machine, and a
forest of trees is grown beside it; that both come out as with one process is checked.

    python examples/scikit_learn_digits.py [JOBS]
"""

import sys

import joblib
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.svm import SVC

import manyhands  # noqa: F401 - joblib learns our name by it

GRID = {"C": [1, 10], "gamma": [0.0003, 0.001, 0.003]}


def learn(jobs: int) -> tuple[dict[str, float], list[float]]:
    """The best machine's parameters, and how often it and the forest are right."""
    data, labels = load_digits(return_X_y=True)
    seen, unseen, names, truth = train_test_split(data, labels, random_state=0)
    search = GridSearchCV(SVC(), GRID, cv=3, n_jobs=jobs).fit(seen, names)
    forest = RandomForestClassifier(100, random_state=0, n_jobs=jobs).fit(seen, names)
    return search.best_params_, [float(model.score(unseen, truth)) for model in (search, forest)]


def main(jobs: int) -> None:
    """Learn with one process and with workers, and compare."""
    alone = learn(1)
    with joblib.parallel_config("manyhands"):
        together = learn(jobs)
    assert together == alone
    best, (machine, forest) = together
    print(f"Best machine: {best}, right in {machine:.1%} of digits never seen; forest {forest:.1%}")
    print(f"One process and {jobs} workers have come to the same result")


main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
