"""What a model is worth beside its baseline, and which features it goes by."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from mlops_dagster.errors import MlopsError
from mlops_dagster.modeling.evaluation import evaluate, importance_of, measure_baseline
from mlops_dagster.modeling.metrics import check_metrics, metric_of
from mlops_dagster.modeling.training_set import make_training_set
from mlops_dagster_tests.modeling.conftest import FORECAST, declare, forecast, lagged


def judged(declaration):
    return [metric_of(name, declaration) for name in declaration.metrics]


def evaluated(table, target, model, *, function=None, guess=None, **said):
    declaration = declare(table, target, **said)
    made = make_training_set(declaration, table, features=function)
    model.fit(made.X_train, made.y_train)
    metrics = judged(declaration)
    return made, evaluate(model, made, declaration, metrics, measure_baseline(made, declaration, metrics, guess))


def test_a_classifier_beside_its_prior(cancer):
    target = {"column": "outcome", "positive": "malignant"}
    _, result = evaluated(
        cancer.assign(number=np.arange(569)), target, RandomForestClassifier(10, random_state=0), key=["number"],
        features=[*cancer.columns[:10]], split={"kind": "stratified"}, metrics=["roc_auc", "f1", "neg_log_loss"],
    )  # fmt: skip
    metrics, rows = result.metrics, result.predictions
    assert [*metrics] == [
        "roc_auc", "roc_auc_baseline", "f1", "f1_baseline", "log_loss", "log_loss_baseline", "skill_vs_baseline",
        "train_rows", "test_rows",
    ]  # fmt: skip
    assert (metrics["roc_auc_baseline"], metrics["f1_baseline"]) == (0.5, 0.0)
    assert metrics["skill_vs_baseline"] == pytest.approx((metrics["roc_auc"] - 0.5) / 0.5)
    assert (metrics["train_rows"], metrics["test_rows"]) == (426, 143)
    assert [*rows] == ["number", "prediction", "truth", "baseline", "probability_benign", "probability_malignant"]
    assert rows["number"].is_monotonic_increasing
    assert rows["truth"].tolist() == cancer["outcome"].iloc[rows["number"]].tolist()
    assert ((rows["probability_malignant"] > 0.5) == (rows["prediction"] == "malignant")).all()
    assert (rows["baseline"] == "benign").all()


def test_a_forecast_is_judged_on_its_own_scale(demand):
    names = ["neg_root_mean_squared_error", "neg_mean_absolute_error", "r2"]
    whole = demand.fillna({"sales": 90.0})
    said = {"features": ".f:f", "time": "day", "group": "shop", "split": {"kind": "chronological"}, "metrics": names}
    _, result = evaluated(
        whole, FORECAST, LinearRegression(), function=lagged, baseline={"kind": "seasonal_naive", "season": 7}, **said
    )
    rows, metrics = result.predictions, result.metrics
    assert [*rows] == ["day", "shop", "truth_time", "current", "prediction", "truth", "baseline"]
    sales = whole.set_index(["shop", "day"])["sales"]
    at = pd.MultiIndex.from_frame(rows[["shop", "truth_time"]])
    np.testing.assert_array_equal(rows["truth"], sales.reindex(at))
    # A week before the truth, a week ahead: as it is now.
    np.testing.assert_array_equal(rows["baseline"], rows["current"])
    assert metrics["root_mean_squared_error"] == pytest.approx(
        root_mean_squared_error(rows["truth"], rows["prediction"])
    )
    assert metrics["mean_absolute_error_baseline"] == pytest.approx(mean_absolute_error(rows["truth"], rows["current"]))
    skill = 1 - metrics["root_mean_squared_error"] / metrics["root_mean_squared_error_baseline"]
    assert metrics["skill_vs_baseline"] == pytest.approx(skill)


@pytest.mark.parametrize(("horizon", "season", "ago"), [(1, 7, 6), (7, 7, 0), (10, 7, 4), (3, 1, 0)])
def test_seasonal_naive_takes_the_last_season_that_is_known(horizon, season, ago, demand):
    baseline = {"kind": "seasonal_naive", "season": season}
    target, said = {"column": "sales", "horizon": horizon}, {"split": {"kind": "chronological"}, "time": "day"}
    declaration = declare(demand, target, baseline=baseline, group="shop", features=["sales"], **said)
    made = make_training_set(declaration, demand)
    outputs, _ = measure_baseline(made, declaration, judged(declaration))
    rows = made.rows("test").sort_index()
    before = pd.MultiIndex.from_arrays([rows["shop"], rows["day"] - pd.Timedelta(days=ago)])
    np.testing.assert_array_equal(outputs.value, demand.set_index(["shop", "day"])["sales"].reindex(before))


def test_persistence_goes_by_the_last_value_that_is_known(demand):
    gappy = demand.assign(sales=demand["sales"].mask(demand["day"] == "2024-09-20"))
    declaration = declare(gappy, {"column": "sales", "horizon": 7}, baseline="persistence", group="shop", time="day",
                          features=["sales"], split={"kind": "chronological"})  # fmt: skip
    made = make_training_set(declaration, gappy)
    outputs, _ = measure_baseline(made, declaration, judged(declaration))
    rows = made.rows("test").sort_index().assign(guess=outputs.value)
    north = rows[rows["shop"] == "north"].set_index("day")
    assert north["guess"]["2024-09-20"] == north["current"]["2024-09-19"]


def best_yet(train, rows):
    """What was usual for people as heavy as that."""
    assert not {"target", "truth"} & set(rows)
    light, heavy = train.groupby(train["bmi"] > 0)["target"].mean()
    return np.where(rows["bmi"] > 0, heavy, light)


def test_baselines_of_ones_own(cancer, diabetes):
    _, result = evaluated(
        diabetes,
        "outcome",
        LinearRegression(),
        guess=best_yet,
        baseline={"kind": "function", "function": ".b:best_yet"},
    )
    assert 0.0 < result.metrics["r2_baseline"] < result.metrics["r2"]

    guesses = cancer.assign(
        score=cancer["mean_area"].rank(pct=True), said=np.where(cancer["mean_area"] > 700, "malignant", "benign")
    )
    for column in ("score", "said"):
        target, baseline = {"column": "outcome", "positive": "malignant"}, {"kind": "column", "column": column}
        declaration = declare(guesses, target, baseline=baseline, features=["mean_texture"], metrics=["roc_auc", "f1"])
        made = make_training_set(declaration, guesses)
        outputs, measured = measure_baseline(made, declaration, judged(declaration))
        assert measured["roc_auc"] > 0.8
        assert (outputs.classes == "malignant").tolist() == (outputs.probabilities[:, 1] > 0.5).tolist()

    for answer, said in (
        (lambda train, rows: np.zeros(3), r"its shape is \(3,\); it has to answer each of the 111 rows"),
        (lambda train, rows: rows["bmi"].mask(rows["bmi"] > 0), r"answer to row \d+ is missing"),
        (lambda train, rows: rows["height"], r"test_evaluation.py:\d+: KeyError: 'height'"),
    ):
        with pytest.raises(MlopsError, match=said):
            evaluated(diabetes, "outcome", LinearRegression(), guess=answer,
                      baseline={"kind": "function", "function": ".b:answer"})  # fmt: skip


def correlation(truth, outputs):
    """A constant goes with nothing."""
    return np.corrcoef(truth, outputs.value)[0, 1] if np.ptp(outputs.value) else np.nan


def test_a_metric_that_the_baseline_cant_have_is_said(diabetes):
    declaration = declare(diabetes, "outcome", metrics=[".metrics:correlation"])
    made, metric = make_training_set(declaration, diabetes), metric_of(".metrics:correlation", declaration, correlation)
    with pytest.raises(MlopsError, match=r"baseline mean: metrics: .metrics:correlation is nan on these 111 rows"):
        measure_baseline(made, declaration, [metric])
    with pytest.raises(MlopsError, match="two metrics are called correlation"):
        check_metrics([metric, metric], LinearRegression(), made)


def test_the_importance_is_what_shuffling_costs(diabetes, demand):
    told = diabetes.assign(noise=np.random.default_rng(0).normal(size=442))
    declaration = declare(told, "outcome", metrics=["neg_mean_absolute_error"])
    made = make_training_set(declaration, told)
    model = RandomForestRegressor(20, random_state=0).fit(made.X_train, made.y_train)
    table = importance_of(model, made, judged(declaration)[0])
    assert set(table["feature"].head(2)) == {"bmi", "s5"}
    assert table["importance"].is_monotonic_decreasing
    assert table.set_index("feature")["importance"]["noise"] < 1 < table["importance"][0]
    # It is scikit-learn's own number, whose scorer's "larger is better" is ours turned around.
    rows = made.rows("test").sort_index()
    theirs = permutation_importance(
        model, made.inputs(rows), made.truth(rows), scoring="neg_mean_absolute_error", random_state=0
    )
    by_name = dict(zip(made.features, zip(theirs.importances_mean, theirs.importances_std, strict=True), strict=True))
    assert {name: (mean, std) for name, mean, std in table.to_numpy()} == {
        name: pytest.approx(numbers) for name, numbers in by_name.items()
    }

    # Of a forecast that learned a change: in the unit of what is forecast.
    series = forecast(demand.fillna({"sales": 90.0}))
    model = LinearRegression().fit(series.X_train, series.y_train)
    declaration = declare(demand, FORECAST, features=".f:f", metrics=["neg_mean_absolute_error"], time="day")
    table = importance_of(model, series, judged(declaration)[0]).set_index("feature")["importance"]
    assert table.idxmax() in ("today", "week_ago")


SCRIPT = """
import warnings; warnings.simplefilter("ignore")
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from mlops_dagster.modeling.evaluation import evaluate, importance_of, measure_baseline
from mlops_dagster.modeling.metrics import metric_of
from mlops_dagster.modeling.training_set import make_training_set
from mlops_dagster_tests.modeling.conftest import declare
table = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "outcome"})
said = declare(table, "outcome", metrics=["roc_auc"], baseline="stratified")
made = make_training_set(said, table)
model = RandomForestClassifier(5, random_state=0).fit(made.X_train, made.y_train)
metric = metric_of("roc_auc", said)
result = evaluate(model, made, said, [metric], measure_baseline(made, said, [metric]))
print(result.metrics, importance_of(model, made, metric).to_json(double_precision=15))
"""


@pytest.mark.slow
def test_another_process_says_the_same(capsys):
    exec(SCRIPT, {})
    here = capsys.readouterr().out
    there = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert here == there
    assert "roc_auc" in here
