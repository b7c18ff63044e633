"""Each kind of leak is found and said with its cure; honest training sets are left alone."""

import numpy as np
import pandas as pd
import pytest

from mlops_dagster.modeling.leaks import find_leaks
from mlops_dagster.modeling.training_set import make_training_set
from mlops_dagster_tests.modeling.conftest import ahead, declare, forecast, scaled

CHURN = {"column": "outcome", "positive": "malignant"}


def leaks_of(table, target="outcome", **said):
    """Find the leaks of a table's training set."""
    return find_leaks(make_training_set(declare(table, target, **said), table))


def test_honest_training_sets_have_none(cancer, iris, diabetes, demand):
    stratified = {"split": {"kind": "stratified"}}
    assert leaks_of(cancer, **stratified) == leaks_of(iris, **stratified) == leaks_of(diabetes) == []
    for learn in ("value", "difference", "return"):
        assert find_leaks(forecast(demand, {"column": "sales", "horizon": 7, "learn": learn})) == []
    # Rows of few possible values are often the same, by chance.
    coarse = diabetes.assign(bmi=diabetes["bmi"].round(1), bp=diabetes["bp"].round(1))
    assert leaks_of(coarse, features=["bmi", "bp", "sex"]) == []
    # A rare class is easily told apart by chance; iris' first class alone is told by one feature, not all of them.
    rare = cancer.assign(outcome=np.where(cancer["mean_area"].rank() <= 5, "tiny", "usual"))
    assert leaks_of(rare, split={"kind": "stratified"}, features=["mean_area"]) == []


@pytest.mark.parametrize(
    "told",
    [
        lambda table: (table["outcome"] == "benign").astype(int),
        lambda table: table["outcome"].map({"benign": 1.0, "malignant": 9.0}) + table["mean_area"] / 1e4,
        lambda table: table["outcome"].str.upper(),
        lambda table: table["outcome"].map({"benign": None, "malignant": "treated on Monday"}).astype(object),
        lambda table: table["mean_area"].where(table["outcome"] == "malignant"),
    ],
)
def test_a_feature_that_tells_the_class(told, cancer):
    (leak,) = leaks_of(cancer.assign(told=told(cancer)), CHURN, split={"kind": "stratified"})
    assert leak.startswith("told: (almost) the target, outcome, itself; leave it out")


@pytest.mark.parametrize("told", [lambda y: y / 7, lambda y: np.log(y), lambda y: -y + np.sin(y) / 10])
def test_a_feature_that_tells_the_number(told, diabetes):
    (leak,) = leaks_of(diabetes.assign(told=told(diabetes["outcome"])))
    assert leak.startswith("told: (almost) the target")


def test_features_that_look_ahead(demand, diabetes):
    target, allowed = {"column": "sales", "horizon": 1}, {"allow_leaks": True}
    looks = find_leaks(forecast(demand, target, function=ahead, gate=allowed))
    assert looks[0].startswith("next: computed from later rows; compute it from what is known of the row")
    assert looks[1].startswith("next: moves with the change of sales that is to be forecast")
    declaration = declare(diabetes, "outcome", features=".features:scaled", gate={"allow_leaks": True})
    (leak,) = find_leaks(make_training_set(declaration, diabetes, features=scaled))
    assert leak.startswith("bmi, bp: computed from other rows, also those that are tested on; ")


def test_training_rows_as_late_as_the_test(demand):
    leaks = find_leaks(forecast(demand, split={"kind": "chronological", "gap": 3}))
    assert len(leaks) == 1
    assert "8 training rows before the first test row, 2024-08-14, have their truth in the test" in leaks[0]
    assert "use split: chronological with a gap of at least 7 rows" in leaks[0]
    late, both = find_leaks(forecast(demand, split={"kind": "random"}))[0::2]
    assert "training rows are as late as the first test row, 2024-01-" in late
    assert "test rows are of a shop that is trained on, too, as 'north'" in both


def test_a_truth_that_isnt_the_value_one_horizon_later(demand):
    made = forecast(demand)
    made.frame["truth"] = made.frame["truth"].shift(1)
    assert find_leaks(made) == [
        "truth isn't sales 7 rows later: one of truth, horizon and the order of rows is wrong; make the training set "
        "anew."
    ]


def test_what_belongs_together_is_in_both_parts(diabetes):
    visits = diabetes.assign(patient=np.arange(442) // 2)
    features = ["bmi", "bp"]
    (leak,) = leaks_of(visits, group="patient", features=features)
    assert "test rows are of a patient that is trained on, too" in leak
    assert leaks_of(visits, group="patient", features=features, split={"kind": "group"}) == []
    (leak,) = leaks_of(visits, key=["patient"], features=features)
    assert "have the key of a training row, as patient" in leak
    assert "give group: patient and split: group" in leak
    (leak,) = leaks_of(pd.concat([diabetes, diabetes]).reset_index(drop=True))
    assert "have the features of a training row, all of them: rows come more than once" in leak
