"""Metrics by hand, forecasts that stand where they belong, and leaks that are found when they are planted."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from mlops_dagster.ml.evaluation import evaluate, find_leaks
from mlops_dagster.ml.model import fit_forest
from mlops_dagster.ml.recipes import RECIPES, TrainingSet, make_training_set
from mlops_dagster.ml.splits import chronological_split, shuffled_split
from mlops_dagster.modeling.splits import Split
from mlops_dagster.pipelines import resolve_forest
from mlops_dagster_tests.ml.conftest import bundled


class Always:
    """Predicts one number."""

    def __init__(self, number):
        self.number = number

    def predict(self, X):
        return np.full(len(X), self.number)


class TellsTheFuture:
    """Knows every target by its row."""

    def __init__(self, training_set):
        self.answers = training_set.frame["target"]

    def predict(self, X):
        return self.answers.loc[X.index]


def by_hand(recipe):
    """Six days: 10, 20, 10, 20, 30, 40. Trained on the first two, one in the gap, tested on two."""
    price = pd.Series([10.0, 20.0, 10.0, 20.0, 30.0, 40.0])
    truth = price.shift(-1)
    frame = pd.DataFrame(
        {
            "Date": pd.date_range("2020-01-01", periods=6),
            "feature": [5.0, 3.0, 8.0, 1.0, 9.0, 2.0],
            "price": price,
            "truth": truth,
            "target": truth if recipe == "article" else truth / price - 1,
            "split": ["train", "train", "gap", "test", "test", "forecast"],
            "position": [0, 1, 0, 0, 1, 0],
        }
    )
    return TrainingSet(frame, recipe, ("feature",), 1, 0.33)


# ------------------------------------------------------------------------------------------------------------ metrics


def test_metrics_by_hand_on_prices():
    metrics = evaluate(Always(32.0), by_hand("article")).metrics
    # Forecasts 32, 32; truths 30, 40; errors 2, -8. Persistence says 20, 30: errors -10, -10.
    # The training rows' truths are 20 and 10, their mean is 15: errors -15, -25.
    assert metrics == pytest.approx(
        {
            "rmse": 34**0.5,
            "mae": 5.0,
            "r2": 1 - 68 / 50,
            "rmse_persistence": 10.0,
            "r2_persistence": 1 - 200 / 50,
            "rmse_training_mean": 425**0.5,
            "skill_vs_persistence": 1 - 34 / 100,
            "skill_vs_training_mean": 1 - 34 / 425,
            "train_rows": 2,
            "test_rows": 2,
        }
    )


def test_metrics_by_hand_on_returns():
    evaluation = evaluate(Always(0.5), by_hand("honest"))
    # Forecasts 20 * 1.5, 30 * 1.5 = 30, 45; truths 30, 40; errors 0, 5.
    # The training rows' returns are +100 % and -50 %, their mean is +25 %: forecasts 25, 37.5; errors -5, -2.5.
    assert evaluation.forecasts["forecast"].tolist() == [30.0, 45.0]
    assert evaluation.metrics["rmse"] == pytest.approx(12.5**0.5)
    assert evaluation.metrics["rmse_training_mean"] == pytest.approx(((25 + 6.25) / 2) ** 0.5)
    assert evaluation.metrics["skill_vs_persistence"] == pytest.approx(1 - 12.5 / 100)


def test_forecasts_say_when_they_are_made_and_for_when():
    evaluation = evaluate(Always(0.0), by_hand("honest"))
    assert evaluation.forecasts.columns.tolist() == ["Date", "TargetDate", "price", "forecast", "truth"]
    assert evaluation.forecasts.iloc[0].tolist() == [
        pd.Timestamp("2020-01-04"),
        pd.Timestamp("2020-01-05"),
        20.0,
        20.0,
        30.0,
    ]
    assert evaluation.forecasts["TargetDate"].iloc[1] == pd.Timestamp("2020-01-06")
    assert len(evaluation.history) == 6


def test_standing_still_has_no_skill_and_knowing_the_future_has_all(honest):
    assert evaluate(Always(0.0), honest).metrics["skill_vs_persistence"] == 0.0
    metrics = evaluate(TellsTheFuture(honest), honest).metrics
    assert metrics["skill_vs_persistence"] == pytest.approx(1.0)
    assert metrics["r2"] == pytest.approx(1.0)


def test_the_training_mean_has_no_skill_against_itself(honest, article):
    for made in (honest, article):
        metrics = evaluate(Always(made.y_train.mean()), made).metrics
        assert metrics["skill_vs_training_mean"] == pytest.approx(0.0, abs=1e-12)


def test_a_price_that_never_moves_gives_finite_metrics():
    made = by_hand("honest")
    made.frame[["price", "truth"]] = 10.0
    made.frame["target"] = 0.0
    assert all(np.isfinite(value) for value in evaluate(Always(0.1), made).metrics.values())


@pytest.mark.parametrize("recipe", RECIPES)
def test_forecasts_are_chronological_and_stand_beside_their_truth(recipe, gspc):
    made = make_training_set(gspc, recipe=recipe)
    evaluation = evaluate(TellsTheFuture(made), made)
    assert evaluation.forecasts["Date"].is_monotonic_increasing
    assert (evaluation.forecasts["TargetDate"] > evaluation.forecasts["Date"]).all()
    np.testing.assert_allclose(evaluation.forecasts["forecast"], evaluation.forecasts["truth"], rtol=1e-12)
    close = gspc.set_index("Date")["AdjClose"]
    assert close[evaluation.forecasts["TargetDate"]].tolist() == evaluation.forecasts["truth"].tolist()


# -------------------------------------------------------------------------------------------- what the article's r2 is


def test_the_articles_r2_is_leakage(article):
    """The same features and target, split chronologically with a gap of one horizon: 0.978 becomes -2.28."""
    known = len(article.frame) - article.horizon
    fair = article.with_split(chronological_split(known, test_size=0.33, gap=article.horizon))
    metrics = evaluate(fit_forest(fair, resolve_forest("article", {}), n_jobs=-1), fair).metrics
    assert metrics["r2"] == pytest.approx(-2.28, abs=0.005)
    assert metrics["r2_persistence"] == pytest.approx(0.939, abs=0.0005)
    assert metrics["skill_vs_persistence"] < -50


@pytest.mark.parametrize("symbol", ["GSPC", "IXIC"])
def test_the_honest_defaults_beat_persistence_and_the_training_mean(symbol):
    made = make_training_set(bundled(symbol))
    metrics = evaluate(fit_forest(made, resolve_forest("honest", {}), n_jobs=-1), made).metrics
    assert metrics["skill_vs_persistence"] > 0
    assert metrics["skill_vs_training_mean"] > 0


# -------------------------------------------------------------------------------------------------------------- leaks


def the_leak(training_set):
    (leak,) = find_leaks(training_set)
    return leak


def rows_of(training_set, split):
    return np.flatnonzero(training_set.frame["split"] == split)


@pytest.mark.parametrize("horizon", [1, 5, 20, 100])
def test_the_honest_recipe_leaks_nothing(horizon, gspc):
    assert find_leaks(make_training_set(gspc, horizon=horizon)) == []


def test_the_articles_leaks_are_all_found(article):
    inside, ahead, scaled = find_leaks(article)
    assert "3,328 of 3,336 training rows lie at or after the first test day, 1999-01-14" in inside
    assert "8 training rows before the first test day" in ahead
    assert "the row of 1999-01-04 has the price of 1999-03-18" in ahead
    assert scaled.startswith("AdjClose, Volume, High_Low_Pert, Pert_change: mean 0 and deviation 1 over all rows")


def test_a_fair_split_of_the_article_leaves_its_scaling(article):
    known = len(article.frame) - article.horizon
    fair = article.with_split(chronological_split(known, test_size=0.33, gap=article.horizon))
    assert the_leak(fair).startswith("AdjClose, Volume")


@pytest.mark.parametrize("horizon", [1, 5, 20])
def test_a_single_training_row_in_the_gap_is_a_leak(horizon, gspc):
    made = make_training_set(gspc, horizon=horizon)
    train, test = rows_of(made, "train"), rows_of(made, "test")
    first_of_the_gap = len(train)
    leaky = made.with_split(Split(np.append(train, first_of_the_gap), test))
    assert the_leak(leaky).startswith("1 training rows before the first test day")
    assert f"a gap of at least {horizon} rows" in the_leak(leaky)


def test_a_gap_that_is_one_row_too_short_is_a_leak(gspc):
    made = make_training_set(gspc, horizon=10)
    known = len(made.frame) - 10
    assert find_leaks(made.with_split(chronological_split(known, test_size=0.33, gap=10))) == []
    assert "1 training rows" in the_leak(made.with_split(chronological_split(known, test_size=0.33, gap=9)))
    assert "10 training rows" in the_leak(made.with_split(chronological_split(known, test_size=0.33, gap=0)))


def test_a_shuffled_split_is_a_leak(honest):
    leaks = find_leaks(honest.with_split(shuffled_split(len(honest.frame) - 1, test_size=0.33, seed=0)))
    assert "training rows lie at or after the first test day" in leaks[0]


def test_a_training_row_after_the_test_period_is_a_leak(honest):
    train, test = rows_of(honest, "train"), rows_of(honest, "test")
    leaky = honest.with_split(Split(np.append(train, test[-1]), test[:-1]))
    assert the_leak(leaky).startswith("1 of 3,356 training rows lie at or after")


PLANTED = {
    "the target": lambda frame: frame["target"],
    "the price to come": lambda frame: frame["truth"],
    "the price to come, in other units": lambda frame: 3.0 * frame["truth"] + 7.0,
    "the price to come, scaled around zero": lambda frame: (frame["truth"] - 1500.0) / 500.0,
    "the price to come, with noise": lambda frame: frame["truth"] + np.random.default_rng(0).normal(0, 0.1, len(frame)),
    "the target, turned": lambda frame: 1.0 - frame["target"],
}


@pytest.mark.parametrize("horizon", [1, 20])
@pytest.mark.parametrize("planted", PLANTED)
def test_a_feature_that_is_the_answer_is_a_leak(planted, horizon, gspc):
    made = make_training_set(gspc, horizon=horizon)
    frame = made.frame.assign(volume_ratio_20d=PLANTED[planted])
    assert the_leak(dataclasses.replace(made, frame=frame)).startswith("volume_ratio_20d: moves with the price")


def test_the_target_is_recognised_though_the_price_grew_four_hundredfold(gspc):
    grown = gspc.copy()
    grown.iloc[:, 1:6] = grown.iloc[:, 1:6].mul(np.exp(np.linspace(0, 6, len(grown))), axis=0)
    made = make_training_set(grown)
    leaky = dataclasses.replace(made, frame=made.frame.assign(return_1d=made.frame["target"]))
    assert the_leak(leaky).startswith("return_1d: moves with the price")


def test_scaling_over_all_rows_is_a_leak_and_over_the_training_rows_is_not(honest):
    column, train = honest.frame["volatility_20d"], honest.frame["split"] == "train"
    over_all = honest.frame.assign(volatility_20d=(column - column.mean()) / column.std(ddof=0))
    assert the_leak(dataclasses.replace(honest, frame=over_all)).startswith("volatility_20d: mean 0 and deviation 1")
    fair = honest.frame.assign(volatility_20d=(column - column[train].mean()) / column[train].std(ddof=0))
    assert find_leaks(dataclasses.replace(honest, frame=fair)) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: dataclasses.replace(made, horizon=made.horizon - 1),
        lambda made: dataclasses.replace(made, frame=made.frame.iloc[::-1]),
        lambda made: dataclasses.replace(made, frame=made.frame.drop(index=70)),
    ],
    ids=["a horizon that is understated", "rows in another order", "a row that was dropped"],
)
def test_a_truth_that_lies_elsewhere_than_it_says_is_a_leak(spoil, gspc):
    assert the_leak(spoil(make_training_set(gspc, horizon=5))).startswith("truth isn't the price")
