"""What every family of estimators owes its users. A test class names its estimators, grid and arithmetic."""

from math import prod

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mlops_dagster.search import SharedGridSearchCV
from mlops_dagster.search.families import family_of
from mlops_dagster.search.serving import _cut
from mlops_dagster_tests.search.comparing import assert_same

METHODS = ("predict", "predict_proba", "decision_function", "score_samples", "transform", "kneighbors")


class Stop(Exception):
    """Ends a search while it runs."""


class FamilyContract:
    """Attributes are what a family's tests give.

    estimators : each is searched.
    grid : what one fit serves.
    counted : how many stages, trees or fits the grid asks for, and how many are left, on each fold.
    apart : a parameter that fits can't share, with two values.
    scoring : what candidates are compared by, if not by their own score.
    refused : estimators that share nothing, with words of the reason.
    """

    estimators = ()
    grid = {}
    counted = (0, 0)
    apart = {}
    refused = ()
    scoring = None

    def rows(self, estimator, rows, classes):
        """Return rows that an estimator can learn from: numbers for regressors, three classes for classifiers."""
        return classes if type(estimator).__name__.endswith("Classifier") else rows

    def test_every_key_but_times_is_that_of_grid_search(self, rows, classes):
        for estimator in self.estimators:
            mine = assert_same(
                estimator,
                {**self.grid, **self.apart},
                *self.rows(estimator, rows, classes),
                cv=2,
                shared=True,
                return_train_score=True,
                refit=False,
                scoring=self.scoring,
            )
            # Each value that can't be shared asks for it all, on 2 folds.
            times = 2 * prod(map(len, self.apart.values()))
            assert mine.work_["trees_asked"] == times * self.counted[0]
            assert mine.work_["trees_needed"] == times * self.counted[1]
            assert mine.work_["shared_fits"] == times
            assert mine.work_["trees_grown"] <= mine.work_["trees_needed"]  # less where it stops early

    def test_the_copy_is_what_its_own_fit_leaves(self, rows, classes):
        for estimator in self.estimators:
            X, y = self.rows(estimator, rows, classes)
            candidates = [clone(estimator).set_params(**one) for one in ParameterGrid(self.grid)]
            family = family_of(estimator)
            fitted = clone(max(candidates, key=family.size))
            family.widen(fitted)
            fitted.fit(X[::2], y[::2])
            family.share(fitted)
            for candidate in candidates:
                served, own = _cut(fitted, candidate), clone(candidate).fit(X[::2], y[::2])
                assert repr(served) == repr(own)
                for name in METHODS:
                    if hasattr(own, name):
                        np.testing.assert_array_equal(getattr(served, name)(X), getattr(own, name)(X))
                for name, value in vars(own).items():
                    if (
                        name.endswith("_")
                        and isinstance(value, (int, float, str, np.ndarray))
                        and name != "estimators_"
                    ):
                        np.testing.assert_array_equal(getattr(served, name), value, err_msg=name)

    def test_at_the_end_of_a_pipeline_whose_steps_vary(self, rows, classes):
        estimator = self.estimators[0]
        name = type(estimator).__name__.lower()
        grid = {f"{name}__{parameter}": values for parameter, values in self.grid.items()}
        grid["standardscaler"] = [MinMaxScaler(), "passthrough"]
        X, y = self.rows(estimator, rows, classes)
        pipeline = make_pipeline(StandardScaler(), estimator)

        def digits(fitted, X, y):
            return {"sum": float(np.sum(fitted.predict(X) == y)), "steps": len(clone(fitted).steps)}

        mine = assert_same(pipeline, grid, X, y, cv=2, shared=True, scoring=digits, refit="sum")
        assert mine.work_["shared_fits"] == 2 * 2

    def test_a_search_that_was_stopped_goes_on(self, rows, classes, tmp_path):
        estimator = self.estimators[0]
        X, y = self.rows(estimator, rows, classes)

        def stop(progress):
            if progress.units_done:
                raise Stop

        given = {"cv": 2, "refit": False, "scoring": self.scoring}
        with pytest.raises(Stop):
            SharedGridSearchCV(estimator, self.grid, progress=stop, cache=tmp_path, **given).fit(X, y)
        mine = assert_same(estimator, self.grid, X, y, shared=True, ours={"cache": tmp_path}, **given)
        assert mine.work_["shared_fits"] == 1  # of the other fold
        again = SharedGridSearchCV(estimator, self.grid, cache=tmp_path, **given).fit(X, y)
        assert again.work_["trees_grown"] == again.work_["units"] == 0
        assert again.work_["trees_reused"] == 2 * self.counted[1]

    def test_what_is_not_shared_says_why(self, rows, classes):
        for estimator, words in self.refused:
            search = SharedGridSearchCV(estimator, self.grid, cv=2, scoring=self.scoring)
            plan = search.plan(*self.rows(estimator, rows, classes))
            assert any(words in reason for reason in plan.not_shared), plan.not_shared
