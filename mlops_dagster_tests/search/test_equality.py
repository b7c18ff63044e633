"""The answer is GridSearchCV's to the last bit, warnings and errors included. Never skipped."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import HealthCheck, given, settings
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.inspection import permutation_importance
from sklearn.linear_model import Ridge
from sklearn.metrics import get_scorer, r2_score
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from mlops_dagster.modeling.contract import check_contract
from mlops_dagster.modeling.training_set import make_training_set
from mlops_dagster.search import SharedGridSearchCV
from mlops_dagster.spec.functions import load_function
from mlops_dagster_tests.contracts.article import ARTICLE
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.search.comparing import assert_same
from mlops_dagster_tests.search.random_searches import searches

FOREST = RandomForestRegressor(n_estimators=4, random_state=0)
GRID = {"n_estimators": [2, 5], "max_depth": [2, None]}
PIPELINE_GRID = {f"forest__{name}": values for name, values in GRID.items()}


@pytest.mark.slow
def test_the_articles_preset():
    model = shipped("article")
    prices = check_contract(model, load_function(model, "..prices.data:load")("GSPC"), source="GSPC")
    article = make_training_set(model, prices, features=load_function(model, model.features))
    # All 288 candidates, with 2, 4, 6 and 20 trees instead of 100, 200, 300 and 1000, on every fourth row.
    grid = {**ARTICLE, "n_estimators": [2, 4, 6, 20]}
    found = assert_same(
        RandomForestRegressor(random_state=0),
        grid,
        article.X_train[::4],
        article.y_train[::4],
        cv=KFold(3),
        scoring="neg_root_mean_squared_error",
        shared=True,
        ours={"n_jobs": 2},
    )
    assert found.work_["trees_asked"] == 72 * 3 * 32 == 6_912
    assert found.work_["trees_grown"] == 16 * 3 * 20 == 960


@pytest.mark.slow
@given(search=searches())
@settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_random_searches(search):
    assert_same(
        search.estimator,
        search.grid,
        search.X,
        search.y,
        fit_params=search.fit_params,
        ours={"n_jobs": search.n_jobs},
        **search.arguments,
    )


# --------------------------------------------------------------------------------------------------- trees and limits


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "own",
    [{}, {"min_samples_leaf": 3}, {"min_weight_fraction_leaf": 0.05}, {"min_impurity_decrease": 0.002}],
    ids=lambda own: next(iter(own), "no limit but depth"),
)
def test_a_tree_that_is_exactly_as_deep_as_the_limit(seed, own):
    # Without the limit, a node at its depth may look for a split, draw random numbers doing so, and find none, be it
    # that its rows are all alike or that no split is allowed. Under the limit it never looks.
    draws = np.random.RandomState(seed)
    X, y = draws.randint(0, 3, (60, 3)).astype(float), draws.rand(60)
    forest = RandomForestRegressor(random_state=0, max_features=1, **own)
    grid = {"n_estimators": [2, 5], "max_depth": [3, 4, 5, 6, 7, 8, 9, 12, None]}
    assert_same(forest, grid, X, y, cv=2, shared=True)


@pytest.mark.parametrize("family", [RandomForestRegressor, ExtraTreesRegressor])
@pytest.mark.parametrize(
    "own",
    [
        {"monotonic_cst": [1, -1, 0, 0]},
        {"bootstrap": True, "max_samples": 0.4},
        {"criterion": "friedman_mse"},
        {"criterion": "absolute_error"},
        {"criterion": "poisson"},
        {"ccp_alpha": 0.01},
        {"max_leaf_nodes": 6},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*friedman_mse")
def test_parameters_with_depth_limits(rows, family, own):
    assert_same(family(random_state=1, **own), {**GRID, "max_depth": [1, 3, 5, 9, None]}, *rows, cv=2, shared=True)


ALPHAS = {"ccp_alpha": [0.0, 0.001, 0.02, 9], "max_depth": [2, 6, None], "n_estimators": [2, 5], "oob_score": [True]}


@pytest.mark.parametrize("family", [RandomForestRegressor, ExtraTreesRegressor])
@pytest.mark.parametrize("kind", ["plain", "weights", "two targets", "missing", "sparse"])
def test_pruned_forests_with_scores_out_of_bag(rows, family, kind):
    X, y = rows
    weights = {"sample_weight": np.random.RandomState(0).rand(120)} if kind == "weights" else {}
    if kind == "two targets":
        y = np.column_stack([y, X[:, 2]])
    if kind == "missing":
        X = np.where(X < 0.05, np.nan, X)
    if kind == "sparse":
        X = sparse.csr_matrix(np.round(X))
    forest = family(random_state=1, bootstrap=True)
    assert_same(forest, ALPHAS, X, y, cv=2, shared=True, return_train_score=True, fit_params=weights)


@pytest.mark.parametrize("family", [RandomForestClassifier, ExtraTreesClassifier])
def test_pruned_forests_of_classes(classes, family):
    forest = family(random_state=1, bootstrap=True, max_leaf_nodes=20, class_weight="balanced_subsample")
    scoring = ["accuracy", "neg_log_loss", "roc_auc_ovr"]
    assert_same(forest, ALPHAS, *classes, cv=2, shared=True, scoring=scoring, refit="accuracy")


def test_scores_out_of_bag_that_fail(rows, classes):
    forest = clone(FOREST).set_params(oob_score=True)
    found = assert_same(forest, {"bootstrap": [True, False], "n_estimators": [2, 5]}, *rows, cv=2)
    assert found.work_["plain_fits"] == 4
    # Means of more than half of what is too large.
    assert_same(forest, GRID, rows[0], rows[1] / rows[1].max() * 1e308, cv=2, shared=False)
    X, y = classes
    grid = {"oob_score": [True, False], "n_estimators": [2, 5]}
    found = assert_same(RandomForestClassifier(random_state=0), grid, X, np.column_stack([y, y]), cv=2)
    assert found.work_["plain_fits"] == 4


@pytest.mark.parametrize("weight", ["balanced", "balanced_subsample", {"low": 1, "middle": 3, "high": 0.5}])
@pytest.mark.parametrize("bootstrap", [True, False])
@pytest.mark.filterwarnings("ignore:class_weight presets")
def test_class_weights(classes, weight, bootstrap):
    forest = RandomForestClassifier(random_state=0, class_weight=weight, bootstrap=bootstrap)
    assert_same(forest, {**GRID, "max_depth": [1, 3, 5, None]}, *classes, shared=True, scoring="neg_log_loss")


def test_a_share_of_rows_is_rounded_for_each_fold(rows):
    # Training rows: 31, 58 and 100. 0.05 of them are 1.55, 2.9 and 5: 2, 3 and 5 rows.
    cv = [(np.arange(n), np.arange(100, 120)) for n in (31, 58, 100)]
    grid = {"min_samples_leaf": [0.05, 2, 3, 5], "min_samples_split": [0.1, 0.11, 6, 10], "n_estimators": [3]}
    assert_same(FOREST, grid, *rows, cv=cv, shared=True)


def test_equal_numbers_of_different_types_mean_different_things(rows):
    grid = {"max_features": [1, 1.0], "min_samples_split": [2, 0.5, 1.0], "n_estimators": [3]}
    assert_same(FOREST, grid, *rows, shared=True)
    assert_same(FOREST, {"max_samples": [1, 1.0, np.int64(1), np.float64(1)], "n_estimators": [3]}, *rows, shared=True)
    assert_same(FOREST, {"random_state": [0, np.int64(0), 1], "n_estimators": [np.int64(3), 3]}, *rows, shared=True)


@pytest.mark.parametrize("random_state", [np.random.RandomState(3), 2**32 - 1])
def test_random_states(rows, random_state):
    shared = isinstance(random_state, int)
    assert_same(clone(FOREST).set_params(random_state=random_state), GRID, *rows, shared=shared, refit=False)


# ------------------------------------------------------------------------------------------------------------ pipelines


def doubled(X):
    return X * 2


FRONTS = {
    "scaled": [("scale", StandardScaler())],
    "scaled in place": [("scale", StandardScaler(copy=False))],
    "components": [("scale", StandardScaler()), ("pca", PCA(2, random_state=0))],
    "selected with y": [("select", SelectKBest(f_regression, k=2))],
    "columns": [("columns", ColumnTransformer([("some", StandardScaler(), [0, 1])], remainder="passthrough"))],
    "a function": [("function", FunctionTransformer(doubled))],
    "passthrough": [("nothing", "passthrough"), ("neither", None)],
    "nothing": [],
}


@pytest.mark.parametrize("train_scores", [False, True])
@pytest.mark.parametrize("front", FRONTS)
def test_pipelines(rows, front, train_scores):
    pipeline = Pipeline([*FRONTS[front], ("forest", FOREST)])
    # One that works in place would change the rows of all tests when it is fitted to them; a fold has its own.
    refit = front != "scaled in place"
    assert_same(pipeline, PIPELINE_GRID, *rows, shared=True, return_train_score=train_scores, refit=refit)


def test_a_pipeline_with_a_memory(rows, tmp_path):
    pipeline = Pipeline([("scale", StandardScaler()), ("forest", FOREST)], memory=str(tmp_path))
    assert_same(pipeline, PIPELINE_GRID, *rows, shared=True)


def test_a_pipeline_of_frames_for_a_classifier_with_weights(classes):
    X, y = classes
    pipeline = Pipeline([("scale", StandardScaler()), ("forest", ExtraTreesClassifier(random_state=0))])
    pipeline.set_output(transform="pandas")
    weights = {"forest__sample_weight": np.random.RandomState(0).rand(len(y))}
    scoring = ["accuracy", "neg_log_loss", "roc_auc_ovr"]
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert_same(pipeline, PIPELINE_GRID, frame, y, fit_params=weights, scoring=scoring, refit="accuracy", shared=True)


def test_a_transformer_that_draws(rows):
    # PCA without a seed: nobody's answer can be repeated, so it is fitted as GridSearchCV does.
    pipeline = Pipeline([("pca", PCA(2, svd_solver="randomized")), ("forest", FOREST)])
    search = SharedGridSearchCV(pipeline, {**PIPELINE_GRID, "pca__random_state": [0, None]}, cv=2).fit(*rows)
    assert search.work_["not_shared"] == {"pca__random_state isn't an integer, so no two fits are alike": 4}


def test_a_last_step_swapped_in_the_grid(rows):
    pipeline = Pipeline([("scale", StandardScaler()), ("forest", FOREST)])
    grid = [
        PIPELINE_GRID,
        {"forest": [Ridge(), ExtraTreesRegressor(3, random_state=0), make_pipeline("passthrough", FOREST)]},
        {"forest": [Ridge()], "scale": ["passthrough"], "forest__alpha": [1, 2]},
    ]
    found = assert_same(pipeline, grid, *rows)
    assert found.work_["plain_fits"] == 5 * 3
    assert found.work_["fell_back"] == {}


def test_a_front_that_fails(rows):
    pipeline = Pipeline([("select", SelectKBest(f_regression, k=99)), ("forest", FOREST)])
    assert_same(pipeline, PIPELINE_GRID, *rows, error_score=-1)
    pipeline = Pipeline([("pca", PCA(99, random_state=0)), ("forest", FOREST)])
    assert_same(pipeline, PIPELINE_GRID, *rows, error_score=-1)


# ----------------------------------------------------------------------------------------------------- other estimators


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (Ridge(), {"alpha": [0.1, 1.0]}),
        (DummyRegressor(), {"strategy": ["mean", "median"]}),
        (make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 1.0]}),
        (clone(FOREST).set_params(oob_score=r2_score, n_estimators=30), {"max_depth": [2, 3]}),
        (clone(FOREST).set_params(warm_start=True), GRID),
    ],
)
def test_what_is_not_shared(rows, estimator, grid):
    assert_same(estimator, grid, *rows, shared=False)


def test_a_classifier_that_is_no_forest(classes):
    assert_same(SVC(), {"C": [0.1, 1], "kernel": ["linear", "rbf"]}, *classes, shared=False)


class OwnForest(RandomForestRegressor):
    """Somebody's own forest may do anything."""

    def predict(self, X):
        return super().predict(X) + 1


def test_a_subclass_of_a_forest(rows):
    assert_same(OwnForest(random_state=0), GRID, *rows, shared=False)


# -------------------------------------------------------------------------------------------------------------- scorers


def by_parameters(estimator, X, y):
    return estimator.score(X, y) - estimator.get_params()["n_estimators"]


def twice(estimator, X, y):
    return {"r2": estimator.score(X, y), "spread": float(estimator.predict(X).std())}


@pytest.mark.parametrize("scorer", [by_parameters, get_scorer("r2"), {"one": by_parameters, "two": "r2"}])
def test_callables_that_predict_share(rows, scorer):
    refit = "one" if isinstance(scorer, dict) else True
    assert_same(FOREST, GRID, *rows, scoring=scorer, refit=refit, shared=True, return_train_score=True)


def test_a_callable_with_two_metrics(rows):
    assert_same(FOREST, GRID, *rows, scoring=twice, refit="spread", shared=True)


def importances(estimator, X, y):
    return estimator.feature_importances_[0]


def deepest(estimator, X, y):
    return max(tree.get_depth() for tree in estimator.estimators_)


def number_of_trees(estimator, X, y):
    return len(estimator)


def other_rows(estimator, X, y):
    return estimator.score(X[:5], y[:5])


def permuted(estimator, X, y):
    return permutation_importance(estimator, X, y, n_repeats=1, random_state=0).importances_mean[0]


def size(estimator, X, y):
    return len(pickle.dumps(estimator))


def refitted(estimator, X, y):
    return clone(estimator).fit(X, y).score(X, y)


def fitted_again(estimator, X, y):
    return estimator.fit(X, y).score(X, y)


def drawn_rows(estimator, X, y):
    return float(estimator.estimators_samples_[0].sum() + estimator._n_samples_bootstrap)


def swallowing(estimator, X, y):
    try:
        return float(estimator.estimators_[0].get_depth())
    except:  # noqa: E722 - as careless people write it
        return -1.0


def out_of_bag(estimator, X, y):
    return getattr(estimator, "oob_score_", -1.0)


def test_a_callable_that_looks_at_scores_out_of_bag(rows):
    forest = clone(FOREST).set_params(oob_score=True)
    found = assert_same(forest, GRID, *rows, cv=2, scoring=out_of_bag)
    assert found.work_["plain_fits"] == found.work_["fits"]
    assert_same(FOREST, GRID, *rows, cv=2, scoring=out_of_bag, shared=True)


LOOKING = [
    importances,
    deepest,
    number_of_trees,
    other_rows,
    permuted,
    size,
    refitted,
    fitted_again,
    drawn_rows,
    swallowing,
]


@pytest.mark.parametrize("scorer", LOOKING)
def test_callables_that_look_at_the_forest(rows, scorer):
    found = assert_same(FOREST, GRID, *rows, scoring=scorer)
    assert found.work_["plain_fits"] == found.work_["fits"]
    ((reason, fits),) = found.work_["fell_back"].items()
    assert "the scorer" in reason
    assert fits == 4 * 5


@pytest.mark.parametrize("scorer", LOOKING)
def test_callables_that_look_at_the_forest_beside_others(rows, scorer):
    found = assert_same(FOREST, GRID, *rows, scoring={"look": scorer, "r2": "r2"}, refit="look", cv=2)
    assert found.work_["plain_fits"] == found.work_["fits"]


def spoiling(estimator, X, y):
    score = estimator.score(X, y)
    X[:] = 0
    y[:] = 0
    return score


def test_a_callable_that_spoils_its_rows(rows):
    X, y = rows
    assert_same(FOREST, GRID, X.copy(), y.copy(), scoring=spoiling, shared=True)


def failing_for_two(estimator, X, y):
    if estimator.n_estimators == 2:
        raise ValueError("two trees are too few")
    return estimator.score(X, y)


@pytest.mark.parametrize("error_score", [np.nan, 0.5, "raise"])
def test_a_scorer_that_fails(rows, error_score):
    found = assert_same(FOREST, GRID, *rows, scoring=failing_for_two, error_score=error_score)
    if error_score != "raise":
        assert found.work_["plain_fits"] == 2 * 5
        assert found.work_["fell_back"] == {"the scorer raised ValueError: two trees are too few": 2 * 5}


# ----------------------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize("error_score", [np.nan, -1.0, "raise"])
@pytest.mark.parametrize(
    "grid",
    [
        {**GRID, "max_features": [0, 2]},
        {**GRID, "max_samples": [0.5, None], "bootstrap": [True, False]},
        {"n_estimators": [0, 2]},
        {"n_estimators": [0]},
        {"criterion": ["poisson"], "n_estimators": [2]},
        {"min_samples_split": ["many"]},
        {"does_not_exist": [1]},
        [{"n_estimators": [2]}, {"does_not_exist": [1]}],
        {},
        {"n_estimators": []},
        {"n_estimators": 3},
        [],
    ],
    ids=str,
)
def test_bad_grids(rows, grid, error_score):
    X, y = rows
    assert_same(FOREST, grid, X, y - 2, error_score=error_score)


@pytest.mark.parametrize(
    "own", [{"n_estimators": 0}, {"max_depth": "deep"}, {"min_samples_split": "a"}, {"min_samples_leaf": -1}]
)
@pytest.mark.parametrize("grid", [{"max_features": [1, 2]}, {"n_estimators": [2], "max_depth": [3]}])
def test_the_forests_own_parameters_are_bad(rows, own, grid):
    assert_same(clone(FOREST).set_params(**own), grid, *rows)


def spoilt(rows, how):
    X, y = rows[0].copy(), rows[1].copy()
    missing = np.where(np.random.RandomState(0).rand(*X.shape) < 0.1, np.nan, X)
    endless, only_at_the_end = X.copy(), X.copy()
    endless[100, 0] = np.inf
    only_at_the_end[110:, 0] = np.nan
    return {
        "missing": (missing, y),
        "missing in the last fold only": (only_at_the_end, y),
        "infinite": (endless, y),
        "target missing": (X, np.where(y > 3, np.nan, y)),
        "no target": (X, None),
        "too few targets": (X, y[:-1]),
        "one dimension": (X[:, 0], y),
        "words": (np.full(X.shape, "word"), y),
        "objects": (X.astype(object), y),
        "mixed names": (pd.DataFrame(X, columns=["a", 1, "b", 2]), y),
        "large indices": (with_large_indices(X), y),
        "a column": (X, y.reshape(-1, 1)),
        "a frame": (X, pd.DataFrame({"y": y})),
    }[how]


def with_large_indices(X):
    X = sparse.csr_matrix(X)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


@pytest.mark.parametrize("criterion", ["squared_error", "absolute_error"])
@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "missing in the last fold only",
        "infinite",
        "target missing",
        "no target",
        "too few targets",
        "one dimension",
        "words",
        "objects",
        "mixed names",
        "large indices",
        "a column",
        "a frame",
    ],
)
def test_spoilt_rows(rows, how, criterion):
    X, y = spoilt(rows, how)
    grid = {**GRID, "criterion": ["squared_error", criterion], "monotonic_cst": [None, [1, 0, 0, 0]]}
    assert_same(FOREST, grid, X, y, cv=3, return_train_score=True)


@pytest.mark.parametrize(
    "weights",
    [
        2.0,
        np.ones(5),
        -np.ones(120),
        np.zeros(120),
        None,
        np.full(120, np.nan),
        np.arange(120),
        np.arange(120).tolist(),
    ],
    ids=["scalar", "too few", "negative", "zeros", "none", "missing", "integers", "list"],
)
@pytest.mark.parametrize("bootstrap", [True, False])
def test_weights(rows, weights, bootstrap):
    forest = clone(FOREST).set_params(bootstrap=bootstrap)
    assert_same(forest, GRID, *rows, fit_params={"sample_weight": weights}, cv=3)


@pytest.mark.parametrize(
    "cv",
    [
        lambda: iter(list(KFold(3).split(np.zeros(120)))),
        [(np.arange(40), np.arange(0)), (np.arange(40), np.arange(40, 120))],
        [(np.arange(0), np.arange(40)), (np.arange(40), np.arange(40, 120))],
        [(np.array([0, 0, 1, 5, 5]), np.array([-1, -2, 7, 7]))],
        [([True] * 60 + [False] * 60, [False] * 60 + [True] * 60)],
        [],
        500,
    ],
    ids=["generator", "no test rows", "no training rows", "twice and negative", "masks", "none", "too many"],
)
def test_folds(rows, cv):
    assert_same(FOREST, GRID, *rows, cv=cv, return_train_score=True)


def test_a_class_of_one_row(classes):
    X, y = classes
    y = np.where(np.arange(120) == 119, "rare", y)
    forest = RandomForestClassifier(random_state=0)
    for scoring in ("accuracy", "neg_log_loss", "roc_auc_ovr"):
        assert_same(forest, GRID, X, y, cv=KFold(3), scoring=scoring)


# -------------------------------------------------------------------------------------------- settings of the caller


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize(
    "setting", [{"assume_finite": True}, {"transform_output": "pandas"}, {"enable_metadata_routing": True}], ids=str
)
def test_settings(rows, setting, n_jobs):
    X, y = rows
    frame = pd.DataFrame(X, columns=list("abcd"))
    pipeline = Pipeline([("scale", StandardScaler()), ("forest", FOREST)])
    with sklearn.config_context(**setting):
        assert_same(pipeline, PIPELINE_GRID, frame, y, shared=True, ours={"n_jobs": n_jobs})


def test_routed_weights(rows):
    weights = {"sample_weight": np.random.RandomState(0).rand(120)}
    with sklearn.config_context(enable_metadata_routing=True):
        forest = clone(FOREST).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        assert_same(forest, GRID, *rows, fit_params=weights, shared=True)
        pipeline = Pipeline([("scale", StandardScaler().set_fit_request(sample_weight=True)), ("forest", forest)])
        assert_same(pipeline, PIPELINE_GRID, *rows, fit_params=weights, shared=True)
        # Asked for by the forest alone, the weights change nothing for the transformer.
        scale = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = Pipeline([("scale", scale), ("none", "passthrough"), ("forest", forest)])
        assert_same(pipeline, PIPELINE_GRID, *rows, fit_params=weights, shared=True)
        renamed = clone(FOREST).set_fit_request(sample_weight="w").set_score_request(sample_weight="w")
        pipeline = Pipeline([("scale", scale), ("forest", renamed)])
        assert_same(pipeline, PIPELINE_GRID, *rows, fit_params={"w": weights["sample_weight"]}, shared=True)
        ignoring = clone(FOREST).set_fit_request(sample_weight=False).set_score_request(sample_weight=True)
        assert_same(ignoring, GRID, *rows, fit_params=weights, shared=True)
