"""Random search, halving and validation curves: every key but times is scikit-learn's, and the work is counted."""

import numpy as np
import pytest
from scipy.stats import randint
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    validation_curve,
)
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mlops_dagster.search import (
    SharedHalvingGridSearchCV,
    SharedHalvingRandomSearchCV,
    SharedRandomizedSearchCV,
    shared_validation_curve,
)
from mlops_dagster.search.rewire import knows
from mlops_dagster_tests.search.comparing import assert_equal_best, assert_equal_results

FOREST = RandomForestRegressor(random_state=0)
PIPELINE = Pipeline([("s", StandardScaler()), ("f", FOREST)])
ROUNDS = {"min_resources": 2, "max_resources": 8, "factor": 2, "cv": 2, "random_state": 0}


@pytest.mark.parametrize(
    ("ours", "theirs", "estimator", "values", "how"),
    [
        (
            SharedRandomizedSearchCV,
            RandomizedSearchCV,
            PIPELINE,
            {"s": [StandardScaler(), MinMaxScaler()], "f__n_estimators": randint(2, 9), "f__max_depth": [3, None]},
            {"n_iter": 12, "cv": 2, "random_state": 0, "return_train_score": True},
        ),
        (
            SharedHalvingGridSearchCV,
            HalvingGridSearchCV,
            PIPELINE,
            {"s": [StandardScaler(), "passthrough"], "f__max_depth": [2, None]},
            {**ROUNDS, "resource": "f__n_estimators"},
        ),
        (
            SharedHalvingGridSearchCV,
            HalvingGridSearchCV,
            GradientBoostingRegressor(random_state=0),
            {"n_estimators": [2, 5], "max_depth": [1, 2]},
            {"factor": 2, "cv": 2, "random_state": 0, "min_resources": 30},
        ),
        (
            SharedHalvingRandomSearchCV,
            HalvingRandomSearchCV,
            FOREST,
            {"max_features": randint(1, 5), "min_samples_leaf": [1, 3]},
            {**ROUNDS, "resource": "n_estimators", "n_candidates": 6},
        ),
    ],
    ids=["random", "halving by trees in a pipeline", "halving by rows", "random halving by trees"],
)
def test_every_key_but_times_is_scikit_learns(rows, ours, theirs, estimator, values, how):
    mine = ours(estimator, values, **how).fit(*rows)
    other = theirs(estimator, values, **how).fit(*rows)
    assert_equal_results(mine.cv_results_, other.cv_results_)
    assert_equal_best(mine, other, rows[0])
    assert getattr(mine, "n_resources_", None) == getattr(other, "n_resources_", None)
    assert (mine.work_["plain_fits"], mine.work_["fell_back"], mine.plan_.not_shared) == (0, {}, {})
    assert mine.plan_.candidates == len(mine.cv_results_["params"])


def test_a_forest_that_comes_through_a_round_goes_on_with_its_trees(rows, grown):
    values = {"min_samples_leaf": [1, 3, 5, 7]}
    how = {**ROUNDS, "resource": "n_estimators", "refit": False}
    work = SharedHalvingGridSearchCV(FOREST, values, **how).fit(*rows).work_
    # 4 candidates with 2 trees, 2 with 4, 1 with 8, on 2 folds: (8 + 8 + 8) x 2 = 48 are asked for.
    # The second round grows 2 more for each of its 2 candidates, the third 4 more: (8 + 4 + 4) x 2 = 32.
    assert (work["trees_asked"], work["trees_grown"], work["trees_reused"], grown.take()) == (48, 32, 16, 32)


def test_a_validation_curve(rows, grown):
    how = {"param_name": "n_estimators", "param_range": [2, 5, 9], "cv": 3, "scoring": "r2"}
    mine = shared_validation_curve(FOREST, *rows, **how)
    assert grown.take() == 9 * 3  # of (2 + 5 + 9) x 3
    for ours, theirs in zip(mine, validation_curve(FOREST, *rows, **how), strict=True):
        assert np.array_equal(ours, theirs)


def test_scikit_learn_still_calls_what_is_replaced():
    assert knows(BaseSearchCV.fit, "Parallel", "clone")
    assert knows(validation_curve, "Parallel")
