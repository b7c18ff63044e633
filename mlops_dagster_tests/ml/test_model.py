"""The article's numbers, parameters that arrive as they were given, and digests that mean something."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlops_dagster.errors import ParameterError
from mlops_dagster.ml.evaluation import evaluate
from mlops_dagster.ml.model import fit_forest
from mlops_dagster.ml.recipes import make_training_set
from mlops_dagster.modeling.digest import model_digest
from mlops_dagster.pipelines import resolve_forest
from mlops_dagster_tests.conftest import ARTICLE_PRECISION

SMALL = {"n_estimators": 5, "max_depth": 6}


@pytest.fixture(scope="module")
def small(gspc):
    """1,000 days: enough to tell forests apart, quick to fit."""
    return make_training_set(gspc.head(1000))


def digest(training_set, n_jobs=1, **given):
    parameters = resolve_forest(training_set.recipe, {**SMALL, **given})
    return model_digest(fit_forest(training_set, parameters, n_jobs=n_jobs))


# ------------------------------------------------------------------------------------------------------- the article


def test_the_articles_numbers_are_reproduced(article):
    parameters = resolve_forest("article", {"max_depth": 80, "n_estimators": 100})
    assert parameters["random_state"] == 0
    metrics = evaluate(fit_forest(article, parameters, n_jobs=-1), article).metrics
    assert metrics["rmse"] == pytest.approx(74.47148052856646, rel=ARTICLE_PRECISION)
    assert metrics["mae"] == pytest.approx(52.59896120023115, rel=ARTICLE_PRECISION)
    assert metrics["r2"] == pytest.approx(0.9780878033262401, rel=ARTICLE_PRECISION)
    assert (metrics["train_rows"], metrics["test_rows"]) == (3336, 1644)


def test_the_articles_numbers_with_other_parameters(article):
    # The blog's code read n_estimators from max_depth's argument: 7 trees and not 30 would give another number.
    parameters = resolve_forest("article", {"max_depth": 7, "n_estimators": 30})
    metrics = evaluate(fit_forest(article, parameters), article).metrics
    assert metrics["rmse"] == pytest.approx(76.89506961099477, rel=ARTICLE_PRECISION)


@pytest.mark.parametrize(("max_depth", "n_estimators"), [(3, 11), (11, 3), (1, 1), (4, 40)])
def test_both_hyper_parameters_arrive_as_given(max_depth, n_estimators, small):
    parameters = resolve_forest("honest", {"max_depth": max_depth, "n_estimators": n_estimators, "min_samples_leaf": 1})
    forest = fit_forest(small, parameters)
    assert (forest.max_depth, forest.n_estimators) == (max_depth, n_estimators)
    assert len(forest.estimators_) == n_estimators
    assert max(tree.get_depth() for tree in forest.estimators_) == max_depth


@pytest.mark.parametrize("recipe", ["honest", "article"])
def test_every_parameter_arrives_as_given(recipe, small):
    given = {
        "max_depth": 4,
        "n_estimators": 3,
        "min_samples_leaf": 7,
        "min_samples_split": 9,
        "max_features": 2,
        "bootstrap": False,
        "random_state": 5,
    }
    forest = fit_forest(small, resolve_forest(recipe, given))
    assert {name: forest.get_params()[name] for name in given} == given


def test_more_features_than_there_are_is_refused(small):
    with pytest.raises(ParameterError, match=r"^max_features=8 .*has 7 features"):
        fit_forest(small, resolve_forest("honest", {"max_features": 8}))


def test_the_forest_knows_the_names_of_its_inputs(small):
    assert tuple(fit_forest(small, resolve_forest("honest", SMALL)).feature_names_in_) == small.features


# ------------------------------------------------------------------------------------------------------------ digests


def test_the_model_is_the_same_for_any_number_of_jobs(small):
    forests = [fit_forest(small, resolve_forest("honest", SMALL), n_jobs=jobs) for jobs in (1, 2, -1)]
    assert len({model_digest(forest) for forest in forests}) == 1
    assert [forest.n_jobs for forest in forests] == [1, 1, 1]
    predictions = [forest.predict(small.X_test) for forest in forests]
    assert np.array_equal(predictions[0], predictions[1])
    assert np.array_equal(predictions[0], predictions[2])


@pytest.mark.parametrize(
    "given",
    [
        {"max_depth": 2},
        {"n_estimators": 4},
        {"min_samples_leaf": 5},
        {"min_samples_split": 50},
        {"max_features": 3},
        {"bootstrap": False},
        {"random_state": 1},
        # Deeper than any tree grows: the same trees, but not the same request.
        {"max_depth": 500},
    ],
    ids=str,
)
def test_every_parameter_changes_the_digest(given, small):
    base = {"max_depth": 80, "min_samples_leaf": 20}
    assert digest(small, **{**base, **given}) != digest(small, **base)


def test_the_data_changes_the_digest(small):
    nudged = small.frame.copy()
    nudged.loc[100, "target"] += 1e-9
    assert digest(dataclasses.replace(small, frame=nudged)) != digest(small)


def test_the_rows_order_changes_the_digest(small):
    turned = small.frame.copy()
    train = turned["split"] == "train"
    turned.loc[train, "position"] = turned.loc[train, "position"].to_numpy()[::-1]
    assert digest(dataclasses.replace(small, frame=turned)) != digest(small)


def test_rows_it_was_not_trained_on_do_not_change_the_digest(small):
    changed = small.frame.copy()
    changed.loc[changed["split"] != "train", ["return_1d", "target", "price"]] = 7.0
    assert digest(dataclasses.replace(small, frame=changed)) == digest(small)


def test_the_inputs_names_change_the_digest(small):
    renamed = dataclasses.replace(
        small,
        frame=small.frame.rename(columns={"range_pct": "range"}),
        features=("range", *small.features[1:]),
    )
    assert digest(renamed) != digest(small)


def test_how_it_is_computed_does_not_change_the_digest(small):
    forest = fit_forest(small, resolve_forest("honest", SMALL))
    before = model_digest(forest)
    assert model_digest(forest.set_params(n_jobs=2, verbose=1)) == before


def test_the_digest_changes_with_a_single_leaf(small):
    forest = fit_forest(small, resolve_forest("honest", SMALL))
    before = model_digest(forest)
    forest.estimators_[2].tree_.value[-1] += 1e-12
    assert model_digest(forest) != before


ANOTHER_PROCESS = """
import sys
import pandas as pd
from mlops_dagster.ml.model import fit_forest
from mlops_dagster.modeling.digest import model_digest
from mlops_dagster.ml.prices import validate_prices
from mlops_dagster.ml.recipes import make_training_set
from mlops_dagster.pipelines import resolve_forest
prices = validate_prices(pd.read_csv(sys.argv[1], dtype=str), source="GSPC").head(1000)
forest = fit_forest(make_training_set(prices), resolve_forest("honest", {"n_estimators": 5, "max_depth": 6}), n_jobs=2)
print(model_digest(forest))
"""


def test_another_process_makes_the_same_model(small):
    file = Path(__file__).parents[2] / "mlops_dagster" / "data" / "GSPC.csv"
    there = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, file],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "1234", "PATH": ""},
    )
    assert there.stdout.strip() == digest(small)
