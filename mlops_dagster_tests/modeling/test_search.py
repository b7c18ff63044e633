"""A search of a declared model: grids and folds as declared, results as scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

from mlops_dagster.errors import ParameterError
from mlops_dagster.modeling.search import cv_of, describe_cv, grid_of, make_search, search_results
from mlops_dagster.modeling.training_set import make_training_set
from mlops_dagster_tests.modeling.conftest import declare

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(RNG.normal(size=(200, 2)), columns=["a", "b"])
TABLE["y"] = TABLE["a"] + 0.1 * TABLE["b"]
TABLE["shop"] = np.arange(200) % 5
TABLE["day"] = pd.date_range("2024-01-01", periods=200)
TABLE["late"] = np.where(TABLE["a"] > 0.3, "no", "yes")
RIDGE = {"class": "sklearn.linear_model.Ridge"}
KFOLD = {"class": "sklearn.model_selection.KFold"}
ALPHA = {"alpha": {"default": 1.0}}


def said(cv, target="y", estimator=RIDGE, parameters=ALPHA, grid=None, scoring=None, folder=None, **more):
    search = {"presets": {"small": grid or {"alpha": [0.1, 1, 10.0]}}, "cv": cv, "scoring": scoring}
    declaration = declare(
        TABLE, target, features=["a", "b"], estimator=estimator, parameters=parameters, search=search, **more
    )
    declaration = declaration if folder is None else declaration.at(folder)
    return declaration, make_training_set(declaration, TABLE)


def searched(declaration, data, **how):
    grid = grid_of(declaration)
    made = make_search(declaration, data, grid, **how).fit(data.X_train, data.y_train)
    return made, search_results(declaration, made.cv_results_, grid)


def test_scores_are_scikit_learns():
    declaration, data = said({"kind": "random", "folds": 3})
    made, results = searched(declaration, data)
    own = GridSearchCV(Ridge(), {"alpha": [0.1, 1, 10]}, cv=cv_of(declaration, data), scoring="r2")
    own.fit(data.X_train, data.y_train)
    assert list(results.table["mean_test_score"]) == list(own.cv_results_["mean_test_score"])
    assert results.best_parameters == results.forest == own.best_params_
    assert made.work_["not_shared"] == {"fits of Ridge share nothing": 3}
    assert describe_cv(declaration) == "3 folds of random rows (seed 0)"


def test_forests_share_trees_also_those_that_a_function_makes(tmp_path):
    (tmp_path / "model.py").write_text(
        "from sklearn.ensemble import RandomForestRegressor\nfrom sklearn.linear_model import Ridge\n"
        "from sklearn.pipeline import make_pipeline\nfrom sklearn.preprocessing import StandardScaler\n\n"
        "def make(trees):\n    return make_pipeline(StandardScaler(), RandomForestRegressor(10 * trees))\n\n"
        "def other(trees):\n    return make_pipeline(Ridge()) if trees > 1 else make(trees)\n\n"
        "class Mine(Ridge):\n    pass\n"
    )
    cv = {"kind": "random", "folds": 2}
    how = {
        "folder": tmp_path,
        "grid": {"trees": {"start": 1, "stop": 3, "step": 1}},
        "parameters": {"trees": {"default": 1}},
    }
    made, results = searched(*said(cv, estimator={"function": ".model:make"}, **how))
    assert (made.work_["trees_asked"], made.work_["trees_grown"]) == (2 * (10 + 20 + 30), 2 * 30)
    assert list(results.table["param_trees"]) == [1, 2, 3]
    # Another kind of estimator for each candidate is searched, too, and classes of one's own reach other processes.
    made, results = searched(*said(cv, estimator={"function": ".model:other"}, **how))
    assert results.best_parameters == {"trees": 2}
    assert made.work_["plain_fits"] == 2 * 2  # those of Ridge; the forest grows its trees as others do
    made, results = searched(*said(cv, estimator={"class": ".model.Mine"}, folder=tmp_path))
    assert results.failed == 0


@pytest.mark.parametrize("scoring", ["f1", "average_precision", "neg_brier_score", "roc_auc", "neg_log_loss"])
def test_scores_know_the_positive_class(scoring):
    classifier = {"class": "sklearn.linear_model.LogisticRegression"}
    how = {"estimator": classifier, "parameters": {"C": {"default": 1.0}}, "grid": {"C": [0.5, 1.0]}}
    target = {"column": "late", "positive": "no"}
    declaration, data = said({"kind": "stratified", "folds": 3}, target, scoring=scoring, **how)
    _, results = searched(declaration, data)
    assert results.failed == 0
    assert results.best_score > -0.5


def test_groups_stay_together_and_time_goes_on():
    declaration, data = said({"kind": "group", "folds": 4}, group="shop")
    shops = data.rows("train")["shop"].to_numpy()
    assert all(not set(shops[train]) & set(shops[test]) for train, test in cv_of(declaration, data))

    forecast = {"column": "y", "horizon": 7}
    declaration, data = said(
        {"kind": "chronological", "folds": 3}, forecast, time="day", split={"kind": "chronological"}, metrics=["r2"]
    )
    own = TimeSeriesSplit(3, gap=7).split(data.X_train)
    for mine, theirs in zip(cv_of(declaration, data), own, strict=True):
        assert all(np.array_equal(*rows) for rows in zip(mine, theirs, strict=True))
    assert describe_cv(declaration).endswith("after a gap of 7")


@pytest.mark.parametrize(
    ("cv", "more", "message"),
    [
        ({"kind": "group", "folds": 6}, {"group": "shop"}, r"folds=6 \(int\): there are 5 groups \(shop\); give fewer"),
        ({"kind": "random"}, {"grid": {"alpha": [0.1, -1]}}, r"grid.alpha=-1 \(int\): give a number of at least 0"),
        ({"kind": "random"}, {"grid": {"alpha": 3}}, r"grid.alpha=3 \(int\): give a list of values, \[3\], or a range"),
        ({"kind": "random"}, {"grid": {"alpah": [1]}}, "there is no such parameter; there are alpha"),
        ({"kind": "random"}, {"scoring": "roc_auc"}, "it is no score of a regression"),
        ({"kind": "random"}, {"scoring": ".model:mine"}, "candidates are compared by one of scikit-learn's scores"),
        (
            {
                "kind": "splitter",
                "splitter": {"class": "sklearn.model_selection.KFold", "arguments": {"n_splits": 999}},
            },
            {},
            "it can't split 150 training rows: Cannot have number of splits n_splits=999 greater",
        ),
        ({"kind": "splitter", "splitter": RIDGE}, {}, "it has no split; give one of scikit-learn's splitters"),
        ({"kind": "splitter", "splitter": {"class": "os.system"}}, {}, "it is no"),
    ],
)
def test_what_is_refused_before_any_fit(cv, more, message):
    declaration, data = said(cv, **more)
    with pytest.raises(ParameterError, match=message):
        make_search(declaration, data, grid_of(declaration))


def test_a_fold_of_one_class_is_refused():
    rows = np.arange(200)
    table = TABLE.assign(late=np.where((rows < 120) | (rows > 180), "no", "yes"))
    search = {"presets": {"p": {"x": [1]}}, "cv": {"kind": "splitter", "splitter": KFOLD}}
    declaration = declare(table, "late", features=["a"], time="day", split={"kind": "chronological"}, search=search)
    data = make_training_set(declaration, table)
    with pytest.raises(ParameterError, match="fold 1 has only rows of class 'no' to be scored on; use kind: strat"):
        cv_of(declaration, data)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scoring", ["neg_log_loss", "neg_brier_score"])
def test_folds_that_have_none_of_a_class_are_scored(scoring):
    """As in time: a class that begins late is unknown to the first folds, one that ends early absent from the last."""
    table = TABLE.assign(kind=np.where(TABLE["a"] > 0, "sun", "rain"))
    table.loc[table.index < 60, "kind"] = np.where(TABLE["b"] > 0, "early", "rain")[:60]
    table.loc[100:149, "kind"] = np.where(TABLE["b"] > 0, "late", "rain")[100:150]
    declaration = declare(
        table,
        "kind",
        features=["a", "b"],
        time="day",
        split={"kind": "chronological", "test_size": 0.1},
        estimator={"class": "sklearn.ensemble.RandomForestClassifier", "arguments": {"random_state": 0}},
        parameters={"n_estimators": {"default": 5}},
        search={"presets": {"small": {"n_estimators": [2, 5]}}, "cv": {"kind": "chronological"}, "scoring": scoring},
    )
    data = make_training_set(declaration, table)
    made, results = searched(declaration, data)
    (learned, scored), classes = cv_of(declaration, data)[0], list(data.classes)
    forest = RandomForestClassifier(2, random_state=0).fit(data.X_train.iloc[learned], data.y_train.iloc[learned])
    answers = pd.DataFrame(forest.predict_proba(data.X_train.iloc[scored]), columns=forest.classes_)
    answers = answers.reindex(columns=classes, fill_value=0.0).to_numpy()
    score = {"neg_log_loss": log_loss, "neg_brier_score": brier_score_loss}[scoring]
    assert len(forest.classes_) < len(classes)
    assert made.cv_results_["split0_test_score"][0] == -score(data.y_train.iloc[scored], answers, labels=classes)
    assert (results.failed, made.work_["trees_grown"]) == (0, 5 * 5)
