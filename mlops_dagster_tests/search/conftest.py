"""Rows that several tests search on."""

import numpy as np
import pytest
import sklearn.tree


def pytest_configure(config):
    # scikit-learn's own tests, which test_scikit_learn.py runs, are marked with it.
    config.addinivalue_line("markers", "thread_unsafe: a mark of scikit-learn's")


@pytest.fixture(scope="session")
def rows():
    """120 rows of four features, and a target that depends on two of them."""
    draws = np.random.default_rng(5)
    X = draws.random((120, 4))
    y = 3 * X[:, 0] + X[:, 1] + 0.1 * draws.random(120)
    X.flags.writeable = y.flags.writeable = False
    return X, y


@pytest.fixture(scope="session")
def classes(rows):
    """The same rows in three classes."""
    X, y = rows
    return X, np.array(["low", "middle", "high"])[np.digitize(y, [1.2, 2.4])]


class TreeCounter:
    """Counts the trees that are grown in this process; they grow as they always do."""

    def __init__(self):
        self.trees = 0

    def take(self):
        """Return how many since the last time."""
        trees, self.trees = self.trees, 0
        return trees


@pytest.fixture
def grown(monkeypatch):
    """Count every tree that scikit-learn really grows, whoever asks for it."""
    counter = TreeCounter()
    grow = sklearn.tree.BaseDecisionTree._fit

    def counted(*args, **kwargs):
        counter.trees += 1
        return grow(*args, **kwargs)

    monkeypatch.setattr(sklearn.tree.BaseDecisionTree, "_fit", counted)
    return counter
