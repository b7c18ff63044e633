"""Scores and drift, on numbers that can be reckoned in the head."""

import numpy as np
import pandas as pd
import pytest

from mlops_dagster.ml.drift import chance_of_so_few_inside, error_drift
from mlops_dagster.ml.forecast_quality import of_newest_horizon, rolling_metrics, score

DAYS = pd.bdate_range("2024-01-01", periods=6)
PRICES = pd.DataFrame({"Date": DAYS, "AdjClose": [100.0, 110.0, 120.0, 100.0, 80.0, 100.0]})


def forecasts(*rows):
    """Of (day's number, horizon, price, forecast)."""
    made = pd.DataFrame(list(rows), columns=["day", "horizon", "price", "forecast"])
    return pd.DataFrame(
        {
            "Date": DAYS[made["day"]],
            "TargetDate": DAYS[0],
            **{name: made[name] for name in ("horizon", "price", "forecast")},
            "lower": made["forecast"] - 5.0,
            "upper": made["forecast"] + 5.0,
            "interval": 0.9,
            "expected_rmse": 0.05,
            "late": False,
            "model_version": "1",
            "model_digest": "d",
            "made_at": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(made)), unit="h"),
        }
    )


def test_a_forecast_is_scored_when_its_day_has_come():
    scored = score(forecasts((0, 1, 100.0, 112.0), (4, 1, 80.0, 80.0), (5, 1, 100.0, 99.0)), PRICES)
    assert scored["truth"].tolist() == [110.0, 100.0]  # the price of the last day's morrow isn't known
    assert scored["error"].tolist() == [2.0, -20.0]
    assert scored["squared_error"].tolist() == [4.0, 400.0]
    assert scored["persistence_squared_error"].tolist() == [100.0, 400.0]
    assert scored["inside"].tolist() == [True, False]
    assert scored["TruthDate"].tolist() == [DAYS[1], DAYS[5]]
    assert scored["TargetDate"].tolist() == [DAYS[0], DAYS[0]]


def test_the_newest_of_several_counts_for_each_horizon():
    several = forecasts((0, 1, 100.0, 1.0), (0, 3, 100.0, 2.0), (0, 1, 100.0, 111.0))
    scored = score(several, PRICES)
    assert scored[["horizon", "forecast", "truth"]].values.tolist() == [[1, 111.0, 110.0], [3, 2.0, 100.0]]
    assert of_newest_horizon(scored)["horizon"].tolist() == [1]


def test_prices_that_were_adjusted_since_are_no_error():
    made = forecasts((0, 1, 100.0, 112.0))
    adjusted = PRICES.assign(AdjClose=PRICES["AdjClose"] * 0.5)  # a split into two
    pd.testing.assert_frame_equal(score(made, adjusted), score(made, PRICES))


def test_a_day_that_the_prices_no_longer_have_is_left_out():
    made = forecasts((0, 1, 100.0, 112.0), (2, 1, 120.0, 100.0))
    assert score(made, PRICES[1:].reset_index(drop=True))["Date"].tolist() == [DAYS[2]]


def test_nothing_to_score_is_a_table_without_rows_but_with_its_columns():
    empty = score(forecasts((5, 1, 100.0, 99.0)), PRICES)
    full = score(forecasts((0, 1, 100.0, 112.0)), PRICES)
    assert empty.empty
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    assert rolling_metrics(empty) == {"days_scored": 0.0}


def scored_days(errors, *, inside=None, expected=0.01):
    return pd.DataFrame(
        {
            "error": errors,
            "price": 100.0,
            "squared_error": np.square(errors),
            "persistence_squared_error": 4.0,
            "inside": True if inside is None else inside,
            "interval": 0.9,
            "expected_rmse": expected,
        }
    )


def test_rolling_metrics_look_at_the_last_days_only():
    metrics = rolling_metrics(scored_days([9.0] * 10 + [3.0] * 40 + [1.0] * 20, inside=[False] * 50 + [True] * 20))
    assert metrics["days_scored"] == 70
    assert (metrics["rmse_20"], metrics["bias_20"], metrics["coverage_20"]) == (1.0, 1.0, 1.0)
    assert metrics["skill_vs_persistence_20"] == 0.75
    assert metrics["rmse_60"] == pytest.approx(((40 * 9 + 20) / 60) ** 0.5)
    assert metrics["coverage_60"] == pytest.approx(20 / 60)


def test_error_drift_is_relative_to_the_price_and_to_what_was_expected():
    drift = error_drift(scored_days([9.0] * 30 + [2.0] * 20))
    assert (drift.recent, drift.expected, drift.ratio, drift.days) == (0.02, 0.01, 2.0, 20)
    assert np.isnan(error_drift(scored_days([2.0], expected=np.nan)).ratio)
    assert error_drift(scored_days([])).days == 0


def test_the_chance_of_so_few_inside_is_the_binomials():
    inside = [True] * 59 + [False]
    assert chance_of_so_few_inside(scored_days([0.0] * 60, inside=inside)) == pytest.approx(1 - 0.9**60)
    assert chance_of_so_few_inside(scored_days([0.0] * 60, inside=[True] * 45 + [False] * 15)) < 0.001
