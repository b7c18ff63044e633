"""The families of estimators whose candidates share fits."""

import pickle

import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, KFold, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from mlops_dagster.search import SharedGridSearchCV
from mlops_dagster_tests.search.comparing import assert_same
from mlops_dagster_tests.search.families import FamilyContract

DRAWS = np.random.RandomState(0)


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
        (GradientBoostingRegressor(random_state=DRAWS), "random_state isn't an integer"),
        (GradientBoostingRegressor(random_state=0, warm_start=True), "warm_start"),
        (GradientBoostingRegressor(random_state=0, loss="?"), "loss"),
        (GradientBoostingRegressor(random_state=0, init=DecisionTreeRegressor()), "init__random_state"),
    )


class TestHistGradientBoosting(FamilyContract):
    estimators = (
        HistGradientBoostingRegressor(),  # draws nothing
        HistGradientBoostingRegressor(random_state=0, max_features=0.5, loss="quantile", quantile=0.8),
        HistGradientBoostingRegressor(random_state=0, early_stopping=True, n_iter_no_change=2, learning_rate=0.9),
        HistGradientBoostingClassifier(random_state=0, early_stopping=True, scoring="accuracy", n_iter_no_change=1),
        HistGradientBoostingClassifier(class_weight="balanced", min_samples_leaf=5),
    )
    grid = {"max_iter": [1, 6, 15]}
    counted = (1 + 6 + 15, 15)
    apart = {"learning_rate": [0.1, 0.9]}
    refused = (
        (HistGradientBoostingRegressor(early_stopping=True), "random_state isn't an integer"),
        (HistGradientBoostingRegressor(max_features=0.5, random_state=DRAWS), "random_state isn't an integer"),
        (HistGradientBoostingRegressor(warm_start=True), "warm_start"),
    )

    def test_early_stopping_on_both_sides_of_its_row_limit(self):
        X = np.random.default_rng(0).random((10_002, 1))
        y = X[:, 0] > 0.5
        model = HistGradientBoostingClassifier(random_state=0, max_leaf_nodes=2, n_iter_no_change=1, tol=0.1)
        # 10,001 training rows stop at a few stages, 10,000 don't.
        cv = [(range(10_001), [10_001]), (range(1, 10_001), [0])]
        mine = assert_same(model, {"max_iter": [1, 30]}, X, y, cv=cv, refit=False, shared=True)
        assert mine.work_["trees_needed"] == 2 * 30
        assert 30 < mine.work_["trees_grown"] < 2 * 30
        model.set_params(random_state=None)
        (reason,) = SharedGridSearchCV(model, {"max_iter": [1, 30]}, cv=cv).plan(X, y).not_shared
        assert "random_state" in reason

    def test_stages_are_predicted_once(self, rows, monkeypatch):
        predicted = []
        predict = TreePredictor.predict
        monkeypatch.setattr(
            TreePredictor, "predict", lambda *args, **how: (predicted.append(1), predict(*args, **how))[1]
        )
        grid = {"max_iter": [6, 1, 15]}
        for with_train in (False, True):
            SharedGridSearchCV(
                HistGradientBoostingRegressor(), grid, cv=2, refit=False, return_train_score=with_train
            ).fit(*rows)
            # 15 in place of 6 + 1 + 15, on 2 folds: of the test rows, and of the training rows where they are scored.
            assert len(predicted) == 2 * 15 * (1 + with_train)
            predicted.clear()

    def test_a_scorer_may_change_rows_and_model(self, rows):
        def changes(model, X, y):
            before, X = model.predict(X), X.copy()
            staged = [stage.sum() for stage in model.staged_predict(X)]
            X[:] = X[::-1]
            copied = pickle.loads(pickle.dumps(model)).predict(X)
            longer = model.set_params(warm_start=True, max_iter=model.max_iter + 2).fit(X, y).predict(X)
            again = model.set_params(warm_start=False, learning_rate=0.5).fit(X, y).predict(X)
            seen = {"before": before, "last": staged[-1:], "copied": copied, "longer": longer, "again": again}
            return {name: float(np.dot(values, np.arange(len(values)) + 1)) for name, values in seen.items()}

        model = HistGradientBoostingRegressor(min_samples_leaf=5)
        assert_same(model, self.grid, *rows, cv=2, refit=False, shared=True, scoring=changes)


@pytest.mark.parametrize(
    ("model", "grid"),
    [
        (HistGradientBoostingRegressor(min_samples_leaf=5), {"regressor__max_iter": [2, 5]}),
        (KNeighborsRegressor(), {"regressor__n_neighbors": [2, 5]}),
    ],
    ids=["boosting", "neighbours"],
)
def test_what_copies_share_in_a_target_transformer(rows, model, grid):
    target = TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp)  # fits a clone
    assert np.isfinite(assert_same(target, grid, *rows, cv=2, shared=True).best_score_)


class TestAdaBoost(FamilyContract):
    estimators = (
        AdaBoostRegressor(random_state=0),
        AdaBoostRegressor(DecisionTreeRegressor(max_depth=9), loss="square", random_state=0),  # may stop early
        AdaBoostClassifier(random_state=0),
        AdaBoostClassifier(DecisionTreeClassifier(max_depth=6), random_state=0),
    )
    grid = {"n_estimators": [1, 4, 12]}
    counted = (1 + 4 + 12, 12)
    apart = {"learning_rate": [0.5, 1.5]}
    refused = ((AdaBoostRegressor(), "random_state isn't an integer"),)


class TestBagging(FamilyContract):
    estimators = (
        BaggingRegressor(random_state=0),
        BaggingRegressor(LinearRegression(), random_state=0, max_features=0.5, max_samples=0.5),
        BaggingClassifier(random_state=0, bootstrap_features=True),
        BaggingClassifier(GaussianNB(), random_state=0, bootstrap=False, max_samples=20),
        BaggingRegressor(random_state=0, oob_score=True, max_features=2),
        BaggingClassifier(random_state=0, oob_score=True),
    )
    grid = {"n_estimators": [1, 2, 4]}
    counted = (1 + 2 + 4, 4)
    apart = {"max_samples": [0.5, 0.9]}
    refused = (
        (BaggingRegressor(), "random_state isn't an integer"),
        (BaggingRegressor(random_state=0, warm_start=True), "warm_start"),
    )


class TestIsolationForest(FamilyContract):
    estimators = (IsolationForest(random_state=0), IsolationForest(random_state=0, max_features=2, bootstrap=True))
    grid = {"n_estimators": [1, 3, 8]}
    counted = (1 + 3 + 8, 8)
    apart = {"max_samples": [10, 0.9]}
    scoring = "neg_mean_squared_error"
    refused = ((IsolationForest(random_state=0, contamination=0.1), "contamination"),)


class TestTree(FamilyContract):
    estimators = (
        DecisionTreeRegressor(random_state=0),
        ExtraTreeRegressor(random_state=0, max_features=2),
        DecisionTreeClassifier(random_state=0, class_weight="balanced"),
        ExtraTreeClassifier(random_state=0),
    )
    grid = {"ccp_alpha": [0.02, 0.001, 0.0, 9.0]}
    counted = (4, 1)
    apart = {"max_depth": [3, None]}
    refused = (
        (DecisionTreeRegressor(), "random_state isn't an integer"),
        (DecisionTreeRegressor(random_state=0, criterion="?"), "criterion"),
    )


class TestThreshold(FamilyContract):
    estimators = (
        FixedThresholdClassifier(GaussianNB(), pos_label="up"),
        FixedThresholdClassifier(LogisticRegression(random_state=0), pos_label="up"),
    )
    grid = {"threshold": ["auto", 0.2, 0.9], "response_method": ["auto", "predict_proba"]}
    counted = (3 * 2, 1)
    refused = ((FixedThresholdClassifier(LogisticRegression(), pos_label="up"), "estimator__random_state"),)

    def rows(self, estimator, rows, classes):
        return rows[0], np.where(rows[1] > 1.5, "up", "down")


class TestTunedThreshold(FamilyContract):
    estimators = (
        TunedThresholdClassifierCV(GaussianNB(), cv=3),
        TunedThresholdClassifierCV(DecisionTreeClassifier(max_depth=3, random_state=0), cv=0.4, random_state=0),
    )
    grid = {"scoring": ["balanced_accuracy", "accuracy"], "thresholds": [5, 100], "store_cv_results": [True, False]}
    counted = (2 * 2 * 2, 1)
    refused = (
        (TunedThresholdClassifierCV(DecisionTreeClassifier()), "estimator__random_state"),
        (TunedThresholdClassifierCV(GaussianNB(), cv=0.4), "random_state"),
        (TunedThresholdClassifierCV(GaussianNB(), cv=KFold(2)), "cv isn't a number"),
        (TunedThresholdClassifierCV(GaussianNB(), n_jobs=2), "n_jobs"),
    )

    def rows(self, estimator, rows, classes):
        return rows[0], (rows[1] > 1.5).astype(int)

    def test_fits_inside_are_counted(self, rows, grown):
        X, y = self.rows(None, rows, None)
        model = TunedThresholdClassifierCV(DecisionTreeClassifier(max_depth=3, random_state=0), cv=3)
        # 8 candidates on 2 folds, 3 fits to find the threshold and one of all rows: 64; here those of one candidate.
        SharedGridSearchCV(model, self.grid, cv=2, refit=False).fit(X, y)
        assert grown.take() == 2 * (3 + 1)


class TestVote(FamilyContract):
    estimators = (
        VotingRegressor([("linear", LinearRegression()), ("tree", DecisionTreeRegressor(random_state=0))]),
        VotingClassifier([("bayes", GaussianNB()), ("tree", DecisionTreeClassifier(random_state=0))], voting="soft"),
    )
    grid = {"weights": [None, [1, 2], [5, 0.1]]}
    counted = (3, 1)
    refused = (
        (VotingRegressor([("tree", DecisionTreeRegressor())]), "tree__random_state"),
        (VotingRegressor([("one", LinearRegression())]), "2 weights for 1"),
    )


class TestNeighbours(FamilyContract):
    estimators = (
        KNeighborsRegressor(),
        KNeighborsRegressor(algorithm="brute", p=1),
        KNeighborsClassifier(algorithm="kd_tree"),
        KNeighborsClassifier(algorithm="brute", metric="cosine"),
    )
    grid = {"n_neighbors": [1, 5, 13], "weights": ["uniform", "distance"]}
    counted = (2 * (1 + 5 + 13), 13)
    apart = {"leaf_size": [2, 30]}
    refused = ((KNeighborsRegressor(metric="precomputed"), "distances are given"),)

    @pytest.mark.parametrize("algorithm", ["brute", "kd_tree", "auto"])
    def test_ties_and_more_neighbours_than_rows(self, rows, algorithm):
        X, y = np.round(rows[0], 1)[:, :2], rows[1]  # many rows are equally distant, and some equal
        grid = {"n_neighbors": [1, 2, 7, 20, 61], "weights": ["uniform", "distance"]}
        model = KNeighborsRegressor(algorithm=algorithm)
        mine = assert_same(model, grid, X, y, cv=2, refit=False, return_train_score=True)
        assert mine.work_["shared_fits"] == 2
        assert (algorithm == "auto") == any("algorithm='auto'" in reason for reason in mine.plan_.not_shared)


xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")


class TestXGBoost(FamilyContract):
    estimators = (
        xgboost.XGBRegressor(n_jobs=1),
        xgboost.XGBRegressor(subsample=0.5, colsample_bynode=0.5, tree_method="approx", random_state=1, n_jobs=2),
        xgboost.XGBClassifier(num_parallel_tree=2, subsample=0.7, tree_method="exact", n_jobs=1),
    )
    grid = {"n_estimators": [1, 5, 12]}
    counted = (1 + 5 + 12, 12)
    apart = {"max_depth": [2, 5]}
    refused = (
        (xgboost.XGBRegressor(booster="dart"), "dart"),
        (xgboost.XGBRegressor(booster="gblinear"), "gblinear"),
        (xgboost.XGBRegressor(early_stopping_rounds=2), "early stopping"),
    )

    def rows(self, estimator, rows, classes):
        return rows[0], np.digitize(rows[1], [1.2, 2.4]) if "Classifier" in type(estimator).__name__ else rows[1]


class TestLightGBM(FamilyContract):
    estimators = (
        lightgbm.LGBMRegressor(n_jobs=1, verbose=-1, min_child_samples=3),
        lightgbm.LGBMRegressor(n_jobs=2, verbose=-1, force_col_wise=True, boosting_type="goss", linear_tree=True),
        lightgbm.LGBMRegressor(n_jobs=1, verbose=-1, boosting_type="rf", subsample=0.5, subsample_freq=1),
        lightgbm.LGBMClassifier(n_jobs=1, verbose=-1, extra_trees=True, min_child_samples=3, class_weight="balanced"),
    )
    grid = {"n_estimators": [1, 5, 12]}
    counted = (1 + 5 + 12, 12)
    apart = {"num_leaves": [4, 12]}
    refused = (
        (lightgbm.LGBMRegressor(), "force_col_wise"),
        (lightgbm.LGBMRegressor(n_jobs=1, boosting_type="dart"), "dart"),
        (lightgbm.LGBMRegressor(n_jobs=1, num_iterations=9), "num_iterations"),
    )
