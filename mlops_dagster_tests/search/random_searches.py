"""Random searches, small enough that scikit-learn fits all of a search's forests in half a second."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from scipy import sparse
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, StratifiedKFold, TimeSeriesSplit

REGRESSORS = (RandomForestRegressor, ExtraTreesRegressor)
CLASSIFIERS = (RandomForestClassifier, ExtraTreesClassifier)


@dataclass
class Search:
    """One random search: what both classes are given."""

    estimator: Any
    grid: Any
    X: Any
    y: Any
    fit_params: dict
    arguments: dict
    n_jobs: int


# Callables as people write them. They get the fitted estimator and rows.
def error_and_trees(estimator, X, y):
    """Two metrics, one of which comes from a parameter."""
    return {"error": -mean_absolute_error(y, estimator.predict(X)), "trees": estimator.n_estimators}


def share_right(estimator, X, y):
    """One metric."""
    return float((estimator.predict(X) == y).mean())


def failing_for_few_trees(estimator, X, y):
    """Raise for some candidates."""
    if estimator.get_params()["n_estimators"] < 3:
        raise ValueError("too few trees to say anything")
    return float(np.mean(estimator.predict(X) == y))


def fewest_trees(results):
    """Choose a candidate as a ``refit`` callable does."""
    return int(np.argmin([params.get("n_estimators", 100) for params in results["params"]]))


def maybe(strategy, likely=2):
    """Leave a parameter out mostly."""
    return st.one_of(*([st.none()] * likely), strategy)


def values(*options):
    """Return a strategy for a list of one to three values, which may repeat."""
    return st.lists(st.sampled_from(options), min_size=1, max_size=3)


FOREST = {
    "n_estimators": st.lists(
        st.one_of(st.integers(1, 9), st.sampled_from([np.int64(4), np.int32(7)])), min_size=1, max_size=4
    ),
    "max_depth": values(None, 1, 2, 3, 4, 5, 6, 7, 8, 10, 50, np.int64(3), np.int8(6)),
    "min_samples_split": values(2, 3, 4, 6, 8, 0.05, 0.1, 0.11, 0.5, 1.0, np.float64(0.2), np.float32(0.1)),
    "min_samples_leaf": values(1, 2, 3, 4, 0.02, 0.05, 0.1, 0.3, np.int64(2), np.float64(0.07)),
    "max_features": values(None, "sqrt", "log2", 1, 2, 3, 9, 1.0, 0.5, 0.9, 0.01, np.int64(2), np.float64(0.5)),
    "min_weight_fraction_leaf": values(0.0, 0.01, 0.1, 0.5),
    "max_leaf_nodes": values(None, 2, 5, 8, 20),
    "min_impurity_decrease": values(0.0, 0.001, 0.05, 1),
    "ccp_alpha": values(0.0, 0.001, 0.05, 0),
    "max_samples": values(None, 5, 10, 0.3, 0.5, 1.0, np.int64(10), np.float64(0.5)),
    "bootstrap": values(True, False, np.True_),
    "random_state": values(0, 1, 42, np.int64(42)),
    "monotonic_cst": values(None, [1, 0, -1, 0], np.array([0, 0, 1, 0])),
    "n_jobs": values(None, 1),
}
OF_REGRESSORS = {"criterion": values("squared_error", "absolute_error", "poisson")}
OF_CLASSIFIERS = {
    "criterion": values("gini", "entropy", "log_loss"),
    "class_weight": values(
        None, "balanced", "balanced_subsample", {"a": 1, "b": 5, "c": 2}, {"a": 1, "b": 5.0, "c": 2}
    ),
}
WRONG = {
    "max_features": ["all", 0, 1.5, -1],
    "max_depth": [0, -3, 2.5],
    "min_samples_split": [1, 0.0, "2"],
    "min_samples_leaf": [0, 1.0],
    "max_samples": [1000, 0.5],
    "criterion": ["gini", "absolute_error", "poisson", "none"],
    "n_estimators": [0, -1, 2.0],
    "class_weight": [{"z": 1}, "unbalanced"],
    "ccp_alpha": [-1.0],
    "monotonic_cst": [[1, 0], [5, 0, 0, 0]],
    "bootstrap": ["yes"],
    "random_state": [-1],
    "warm_start": [True],
    "oob_score": [True],
}


@st.composite
def searches(draw):
    """Return random searches."""
    forest = draw(st.sampled_from(REGRESSORS + CLASSIFIERS))
    classifier = forest in CLASSIFIERS
    rows = np.random.RandomState(draw(st.integers(0, 1000)))
    n = draw(st.integers(30, 60))
    X = rows.rand(n, 4)
    if draw(st.booleans()):
        X = np.round(X * draw(st.integers(1, 6)))  # equal values, where trees find no split
    if draw(st.booleans()):
        X[rows.randint(0, n, n // 3)] = X[0]  # equal rows
    y = _target(draw, rows, X, classifier)
    X = _kind(draw, rows, X)
    grid = draw(st.one_of(_grids(classifier), st.lists(_grids(classifier), min_size=1, max_size=2)))
    arguments, fit_params = _arguments(draw, rows, n, y, classifier)
    own = {"random_state": draw(st.integers(0, 3)), "n_estimators": draw(st.integers(1, 5))}
    return Search(forest(**own), grid, X, y, fit_params, arguments, draw(st.sampled_from([None, 2])))


def _target(draw, rows, X, classifier):
    n = len(X)
    kind = draw(st.sampled_from(["plain"] * 6 + ["column", "outputs", "integers", "rare"]))
    if classifier:
        y = np.array(["a", "b", "c"])[(X[:, 0] * 2.99).astype(int).clip(0, 2)]
        flip = rows.randint(0, n, n // 4)
        y[flip] = rows.choice(["a", "b"], len(flip))
        if kind == "integers":
            return (y == "a").astype(int)
        if kind == "rare":
            y = np.where(y == "c", "b", y)
            y[rows.randint(n)] = "c"  # a class of one row
        if kind == "outputs":
            return np.column_stack([y, rows.choice(["a", "b"], n)])
    else:
        y = X[:, 0] * 3 + X[:, 1] + rows.rand(n)
        if kind == "integers":
            return y.astype(int)
        if kind == "outputs":
            return np.column_stack([y, rows.rand(n)])
    if kind == "column":
        return y.reshape(-1, 1)
    return pd.Series(y, name="y") if draw(st.integers(0, 4)) == 0 else y


def _kind(draw, rows, X):
    kind = draw(st.sampled_from(["array"] * 4 + ["frame", "csr", "csc", "missing", "float32", "list", "fortran"]))
    if kind == "frame":
        return pd.DataFrame(X, columns=list("klmn"))
    if kind in ("csr", "csc"):
        return sparse.csr_matrix(X) if kind == "csr" else sparse.csc_array(X)
    if kind == "missing":
        X[rows.rand(*X.shape) < draw(st.sampled_from([0.01, 0.1]))] = np.nan
    if kind == "float32":
        return X.astype(np.float32)
    if kind == "fortran":
        return np.asfortranarray(X)
    return X.tolist() if kind == "list" else X


@st.composite
def _grids(draw, classifier):
    options = {**FOREST, **(OF_CLASSIFIERS if classifier else OF_REGRESSORS)}
    rare = set(options) - {"n_estimators", "max_depth", "min_samples_split", "min_samples_leaf"}
    grid = {}
    n_candidates = 1
    for name in draw(st.permutations(list(options))):
        given_values = draw(maybe(options[name], likely=6 if name in rare else 1))
        if given_values is not None and n_candidates * len(given_values) <= 24:
            n_candidates *= len(given_values)
            grid[name] = given_values
    if draw(st.integers(0, 9)) == 9:
        name = draw(st.sampled_from(sorted(WRONG)))
        if classifier or name != "class_weight":
            right = grid.get(name) or draw(options[name]) if name in options else [False]
            grid[name] = [*right, draw(st.sampled_from(WRONG[name]))]
    return grid


def _arguments(draw, rows, n, y, classifier):
    fit_params = {}
    weights = draw(st.sampled_from([None] * 4 + ["some", "zeros", "list"]))
    if weights is not None:
        fit_params["sample_weight"] = rows.rand(n) * (rows.rand(n) > 0.3 if weights == "zeros" else 1)
        if weights == "list":
            fit_params["sample_weight"] = fit_params["sample_weight"].tolist()
    metrics = ["accuracy", "balanced_accuracy"] if classifier else ["neg_root_mean_squared_error", "r2"]
    if classifier and np.ndim(y) == 1 and len(np.unique(y)) == 2:
        metrics.append("neg_log_loss")
    scoring, refit = draw(
        st.sampled_from(
            [
                (None, True),
                (None, False),
                (None, fewest_trees),
                (metrics[0], True),
                (metrics[-1], True),
                (metrics, metrics[-1]),
                (metrics, False),
                (tuple(metrics), fewest_trees),
                ({"one": metrics[0], "two": make_scorer(mean_absolute_error)}, "one"),
                (share_right if classifier else error_and_trees, True if classifier else "error"),
                (failing_for_few_trees, True),
                ("roc_auc" if classifier else "neg_mean_squared_log_error", True),
            ]
        )
    )
    groups = rows.randint(0, 6, n)
    masks = [(rows.rand(n) < 0.6, rows.rand(n) < 0.4) for _ in range(2)]
    pairs = [(rows.permutation(n)[: n // 2], rows.permutation(n)[: n // 3]) for _ in range(2)]
    cv = draw(
        st.sampled_from(
            [
                None,
                2,
                3,
                KFold(3, shuffle=True, random_state=1),
                TimeSeriesSplit(2, gap=3),
                ShuffleSplit(2, random_state=3),
                GroupKFold(2),
                pairs,
                masks,
                [(mask.tolist(), other.tolist()) for mask, other in pairs],
            ]
            + ([StratifiedKFold(2)] if classifier else [])
        )
    )
    if isinstance(cv, GroupKFold):
        fit_params["groups"] = groups
    return {
        "scoring": scoring,
        "refit": refit,
        "cv": cv,
        "return_train_score": draw(st.booleans()),
        "error_score": draw(st.sampled_from([np.nan, np.nan, -1.0, 0, "raise"])),
    }, fit_params
