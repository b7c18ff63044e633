"""Folds, table and edges of a search over a training set."""

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GridSearchCV, KFold

from mlops_dagster.errors import ParameterError
from mlops_dagster.grids import resolve_search
from mlops_dagster.ml.recipes import make_training_set
from mlops_dagster.ml.search import describe_cv, make_search, search_folds
from mlops_dagster.modeling.search_results import TIMES, SearchError, best_at_the_edge, to_search_results
from mlops_dagster.pipelines import RECIPES

GRID = {"max_depth": [3, 50], "n_estimators": [2, 5], "max_features": [2, 0.5]}


@pytest.fixture(scope="module")
def year(gspc):
    return gspc.tail(400).reset_index(drop=True)


@pytest.fixture(scope="module", params=RECIPES)
def data(request, year):
    return make_training_set(year, recipe=request.param)


def test_chronological_folds_learn_only_from_what_was_known(data):
    search = resolve_search(data.recipe, {"cv": "chronological"})
    rows = data.rows("train")
    number_of_day = {date: number for number, date in enumerate(data.frame["Date"])}
    days = rows["Date"].map(number_of_day).to_numpy()
    folds = search_folds(data, search)
    assert len(folds) == 3
    for train, test in folds:
        # What the last row to learn from was to forecast had happened before the first row that is scored.
        assert days[train].max() + data.horizon < days[test].min()
        assert not set(train) & set(test)
    assert "after a gap of " + str(data.horizon) in describe_cv(data, search)


def test_shuffled_folds_of_the_article_are_its_plain_three(year):
    data = make_training_set(year, recipe="article")
    ours = search_folds(data, resolve_search("article", {}))
    for (train, test), (its_train, its_test) in zip(ours, KFold(3).split(data.X_train), strict=True):
        assert np.array_equal(train, its_train)
        assert np.array_equal(test, its_test)


def test_shuffled_folds_of_chronological_rows_are_shuffled_by_the_seed(year):
    data = make_training_set(year)
    first, again, other = (
        search_folds(data, resolve_search("honest", {"cv": "shuffled", "random_state": seed})) for seed in (1, 1, 2)
    )
    assert np.array_equal(first[0][1], again[0][1])
    assert not np.array_equal(first[0][1], other[0][1])
    assert (np.diff(first[0][1]) > 1).any()


def test_too_few_rows_for_the_folds_are_refused(data):
    with pytest.raises(ParameterError, match=r"folds=50 \(int\): there are .* training rows"):
        search_folds(data, resolve_search(data.recipe, {"cv": "chronological", "folds": 50, "gap": 200}))


def test_more_features_than_there_are_is_refused(data):
    with pytest.raises(ParameterError, match=r"grid.max_features=9 \(int\): the .* recipe has \d features"):
        make_search(data, resolve_search(data.recipe, {"grid": {"max_features": [2, 9]}}))


def test_the_table_is_what_scikit_learn_finds(data):
    search = resolve_search(data.recipe, {"grid": GRID})
    reference = GridSearchCV(
        RandomForestRegressor(**search.forest), GRID, scoring=search.scoring, refit=False, cv=search_folds(data, search)
    ).fit(data.X_train, data.y_train)
    made = make_search(data, search).fit(data.X_train, data.y_train)
    table = to_search_results(made.cv_results_, search.forest).table
    assert len(table) == 8
    for name in ("split0_test_score", "split2_test_score", "mean_test_score", "std_test_score", "rank_test_score"):
        assert np.array_equal(table[name], reference.cv_results_[name]), name
    assert to_search_results(made.cv_results_, search.forest).best_parameters == reference.best_params_
    assert to_search_results(made.cv_results_, search.forest).best_score == reference.best_score_


def test_the_tables_columns_do_not_depend_on_the_grid(data):
    tables = []
    for grid in (GRID, {"bootstrap": [True, False]}):
        search = resolve_search(data.recipe, {"grid": {"n_estimators": [2], **grid}})
        made = make_search(data, search).fit(data.X_train, data.y_train)
        tables.append(to_search_results(made.cv_results_, search.forest).table)
    assert list(tables[0].dtypes.items()) == list(tables[1].dtypes.items())
    assert {"param_min_samples_leaf", "param_random_state", *TIMES} < set(tables[0].columns)
    assert tables[0]["params"].iloc[0] == '{"max_depth": 3, "max_features": 2, "n_estimators": 2}'
    assert list(tables[1]["param_bootstrap"]) == [True, False]


def scored(scores, **columns):
    """A table as `to_search_results` makes it, with the scores given."""
    base = {"max_depth": 5, "n_estimators": 10, "min_samples_leaf": 1, "min_samples_split": 2, "max_features": 0.5}
    count = len(scores)
    table = pd.DataFrame({f"param_{name}": [value] * count for name, value in {**base, "bootstrap": True}.items()})
    for name, values in columns.items():
        table[f"param_{name}"] = values
    table["mean_test_score"] = scores
    table["rank_test_score"] = pd.Series(scores).rank(ascending=False, method="min").astype(int)
    return table.assign(param_random_state=0)


def test_a_best_value_at_the_edge_is_named():
    assert best_at_the_edge(scored([1.0, 2.0, 3.0], max_depth=[3, 4, 5])) == [
        "max_depth=5 is the largest that was tried: try larger ones."
    ]
    assert best_at_the_edge(scored([3.0, 2.0, 1.0], max_depth=[3, 4, 5])) == [
        "max_depth=3 is the smallest that was tried: try smaller ones."
    ]


@pytest.mark.parametrize(
    ("scores", "columns"),
    [
        ([1.0, 3.0, 2.0], {"max_depth": [3, 4, 5]}),  # inside
        ([1.0, 3.0], {"max_depth": [3, 4]}),  # two values have no inside
        ([3.0, 3.0, 3.0], {"max_depth": [3, 4, 5]}),  # no difference
        ([1.0, 2.0, 3.0], {"max_features": [0.3, 0.6, 1.0]}),  # no more than all features
        ([3.0, 2.0, 1.0], {"min_samples_split": [2, 3, 4]}),  # nor less than its minimum
        ([3.0, 2.0, 1.0], {"n_estimators": [5, 6, 7]}),  # fewer trees are better by chance only
        ([1.0], {}),
    ],
)
def test_what_is_no_edge(scores, columns):
    assert best_at_the_edge(scored(scores, **columns)) == []


def test_a_search_without_any_score_is_an_error(year):
    data = make_training_set(year)
    search = resolve_search("honest", {"grid": {"n_estimators": [2, 3]}})
    results = dict(make_search(data, search).fit(data.X_train, data.y_train).cv_results_)
    results["mean_test_score"] = np.full(2, np.nan)
    with pytest.raises(SearchError, match="none of the 2 candidates could be fitted"):
        to_search_results(results, search.forest)
