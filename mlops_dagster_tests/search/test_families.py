"""The families of estimators whose candidates share fits."""

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

from mlops_dagster_tests.search.families import FamilyContract


class TestGradientBoosting(FamilyContract):
    estimators = (
        GradientBoostingRegressor(random_state=0),
        GradientBoostingRegressor(random_state=0, loss="huber", subsample=0.5, max_features=2),
        GradientBoostingRegressor(random_state=0, learning_rate=1.0, n_iter_no_change=1, max_depth=5),
        GradientBoostingClassifier(random_state=0),
    )
    grid = {"n_estimators": [2, 9, 20]}
    counted = (2 + 9 + 20, 20)
    apart = {"max_depth": [1, 3]}
    refused = (
        (GradientBoostingRegressor(random_state=np.random.RandomState(0)), "random_state isn't an integer"),
        (GradientBoostingRegressor(random_state=0, warm_start=True), "warm_start"),
        (GradientBoostingRegressor(random_state=0, loss="?"), "loss"),
    )
