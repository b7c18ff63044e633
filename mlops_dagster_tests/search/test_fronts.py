"""The steps in front of the last one are fitted once per fold for each setting, and the answer is GridSearchCV's."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.feature_selection import (
    RFE,
    GenericUnivariateSelect,
    SelectFromModel,
    SelectKBest,
    SelectPercentile,
    _mutual_info,
    _univariate_selection,
    f_regression,
    mutual_info_regression,
)
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from mlops_dagster.search import SharedGridSearchCV
from mlops_dagster_tests.search.comparing import assert_same

FOREST = RandomForestRegressor(random_state=0)


@pytest.fixture
def fitted(monkeypatch):
    """Count the fits of scalers in this process; they are fitted as they always are."""
    counts = Counter()
    for scaler in (StandardScaler, MinMaxScaler):

        def fit(self, *args, _fit=scaler.fit, **kwargs):
            counts[type(self).__name__] += 1
            return _fit(self, *args, **kwargs)

        monkeypatch.setattr(scaler, "fit", fit)
    return counts


def target(regressor, **how):
    return TransformedTargetRegressor(regressor, func=np.log1p, inverse_func=np.expm1, **how)


NESTED = Pipeline([("a", StandardScaler()), ("b", Pipeline([("c", MinMaxScaler()), ("f", target(FOREST))]))])
COLUMNS = ColumnTransformer([("some", StandardScaler(), [0, 1]), ("others", MinMaxScaler(), [2, 3])])


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (
            NESTED,
            {
                "a__with_std": [True, False],
                "b__c": [MinMaxScaler(), "passthrough", MinMaxScaler((0, 2), copy=False)],
                "b__f__regressor__n_estimators": [2, 4],
            },
        ),
        (
            TransformedTargetRegressor(Pipeline([("s", StandardScaler()), ("f", FOREST)])),
            {
                "transformer": [StandardScaler(copy=False), MinMaxScaler()],
                "regressor__s": [StandardScaler(copy=False), "passthrough"],
                "regressor__f__n_estimators": [2, 4],
            },
        ),
        (
            Pipeline([("ct", COLUMNS), ("g", target(GradientBoostingRegressor(random_state=0)))]),
            {
                "ct__some": [StandardScaler(), MinMaxScaler()],
                "ct__others": ["drop", "passthrough"],
                "g__regressor__n_estimators": [2, 4],
                "g__regressor__max_depth": [1, 2],
            },
        ),
    ],
    ids=["nested pipelines", "a target transformer around a pipeline", "columns and boosting"],
)
def test_every_key_but_times_is_that_of_grid_search(rows, estimator, grid):
    assert_same(estimator, grid, *rows, cv=2, shared=True, return_train_score=True, refit=False)


def settings_and_parameters(estimator, X, y):
    """See the whole pipeline, as a scorer of one's own does."""
    assert type(estimator).__name__ == "Pipeline"
    scale = float(estimator.named_steps["s"].mean_[0]) if hasattr(estimator.named_steps["s"], "mean_") else 0.0
    assert estimator.memory is None
    return estimator.score(X, y) + scale + estimator.get_params()["f__n_estimators"]


def test_a_scorer_sees_the_candidates_own_pipeline(rows):
    pipeline = Pipeline([("s", StandardScaler()), ("f", FOREST)])
    grid = {"s": [StandardScaler(), MinMaxScaler()], "f__n_estimators": [2, 4]}
    assert_same(pipeline, grid, *rows, cv=2, shared=True, scoring=settings_and_parameters)


def test_each_setting_is_fitted_once_per_fold(rows, fitted, grown):
    pipeline = Pipeline([("s", StandardScaler()), ("f", FOREST)])
    grid = {"s": [StandardScaler(), "passthrough"], "f__n_estimators": [5, 10, 20]}
    work = SharedGridSearchCV(pipeline, grid, cv=3, refit=False).fit(*rows).work_
    # Asked for: 2 settings x 3 folds x (5 + 10 + 20) trees = 210, and 3 fits of the scaler on 3 folds = 9.
    # Needed: 2 x 3 x 20 = 120 trees, and 1 fit of the scaler on 3 folds.
    assert (work["trees_asked"], work["trees_grown"], grown.take()) == (210, 120, 120)
    assert fitted == {"StandardScaler": 3}


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_equal_beginnings_are_fitted_once_before_anything(rows, fitted, n_jobs):
    def pipeline(last):
        return Pipeline([("one", StandardScaler()), ("two", MinMaxScaler()), ("last", last)])

    beginnings = {"one__with_mean": [True, False], "two__clip": [True, False]}
    for last, grid in (
        (FOREST, {"last__n_estimators": [2, 4]}),
        (GradientBoostingRegressor(random_state=0), {"last__n_estimators": [2, 4], "last__max_depth": [1, 2]}),
        (Ridge(copy_X=False), {"last__alpha": [1, 2, 3]}),  # which spoils the rows that it is given
    ):
        fitted.clear()
        found = assert_same(pipeline(last), {**beginnings, **grid}, *rows, cv=2, refit=False, ours={"n_jobs": n_jobs})
        fits = found.work_["fits"]
        # GridSearchCV fits both once for each fit. Here: 2 settings of the first on 2 folds = 4; for each of these, 2
        # settings of the second = 8. In other processes they can't be counted.
        if n_jobs is None or last is FOREST:
            assert fitted == {"StandardScaler": fits + 4, "MinMaxScaler": fits + 8}


@pytest.fixture
def scored(monkeypatch):
    """Count how often features are scored; they are scored as they always are."""
    counts = Counter()

    def counted(name, score, *args, **kwargs):
        counts[name] += 1
        return score(*args, **kwargs)

    for module, name in ((_univariate_selection, "r_regression"), (_mutual_info, "_estimate_mi")):
        monkeypatch.setattr(module, name, partial(counted, name, getattr(module, name)))
    return counts


@pytest.mark.parametrize("last", [FOREST, GradientBoostingRegressor(n_estimators=3, random_state=0), Ridge()], ids=repr)
def test_features_are_scored_once_and_cut_to_size(rows, scored, last):
    seeded = partial(mutual_info_regression, random_state=0)
    selectors = [SelectKBest(f_regression, k=1), SelectPercentile(f_regression), GenericUnivariateSelect(f_regression)]
    grid = [
        {"select": selectors},
        {"select": [SelectKBest(f_regression)], "select__k": [1, 2, 3, "all"]},
        {"select": [SelectPercentile(seeded)], "select__percentile": [20, 50, 90]},
        {"select": [SelectKBest(seeded)], "select__k": [1, 7]},  # 7 are more than there are
    ]
    pipeline = Pipeline([("scale", StandardScaler()), ("select", SelectKBest()), ("last", last)])
    found = assert_same(pipeline, grid, *rows, cv=2, refit=False, return_train_score=True)
    # GridSearchCV scores for each of 3 + 4 and 3 + 2 candidates on 2 folds; here they are scored once on each.
    assert found.work_["fits"] == 24
    assert scored == {"r_regression": 2 * 7 + 2, "_estimate_mi": 2 * 5 + 2}


def test_an_elimination_goes_on_from_a_shorter_one(rows, grown):
    X = np.column_stack([rows[0], np.random.RandomState(0).rand(120, 2)])
    tree = DecisionTreeRegressor(max_depth=4, random_state=0)
    pipeline = Pipeline([("select", RFE(tree)), ("last", Ridge())])
    assert_same(pipeline, {"select__n_features_to_select": [1, 2, 4]}, X, rows[1], cv=2, refit=False)
    # On each fold GridSearchCV fits trees of 6 to 1, of 6 to 2, of 6 to 4 features: 6 + 5 + 3; the first ones serve.
    assert grown.take() == 2 * (6 + 5 + 3) + 2 * 6
    grid = {"select__n_features_to_select": [1, 3, 4], "select__step": [2]}
    assert_same(pipeline, grid, X, rows[1], cv=2, refit=False, return_train_score=True)
    # GridSearchCV: 6, 4, 2, 1; 6, 4, 3; 6, 4. In steps of 2 none leads to the best 3, which are fitted by themselves.
    assert grown.take() == 2 * (4 + 3 + 2) + 2 * 5
    assert_same(pipeline, {"select__n_features_to_select": [0.3, 9], "last": [FOREST]}, X, rows[1], cv=2, shared=True)
    assert_same(pipeline, {"select__importance_getter": ["auto", "nothing"]}, X, rows[1], cv=2)


def test_a_model_that_selects_is_fitted_once(rows, grown):
    tree = DecisionTreeRegressor(max_depth=4, random_state=0)
    pipeline = Pipeline([("select", SelectFromModel(tree)), ("last", Ridge())])
    grid = {"select__threshold": ["mean", "median", 0.01], "select__max_features": [1, 3, None]}
    assert_same(pipeline, grid, *rows, cv=2, refit=False, return_train_score=True)
    assert grown.take() == 2 * 9 + 2  # GridSearchCV's, and one on each fold


def test_selectors_that_may_draw_score_again(rows, scored):
    pipeline = Pipeline([("select", SelectKBest(mutual_info_regression)), ("last", Ridge())])
    SharedGridSearchCV(pipeline, {"select__k": [1, 2]}, cv=2, refit=False).fit(*rows)
    assert scored == {"_estimate_mi": 4}
