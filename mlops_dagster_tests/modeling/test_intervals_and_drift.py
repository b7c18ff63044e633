"""Intervals hold the share that they are meant to; drift names the features whose values are new."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

from mlops_dagster.errors import ParameterError
from mlops_dagster.modeling.drift import share_outside
from mlops_dagster.modeling.intervals import intervals
from mlops_dagster.modeling.training_set import make_training_set
from mlops_dagster_tests.modeling.conftest import declare, lagged


def wavy(rows, seed):
    """Noise that grows with x."""
    draws = np.random.default_rng(seed)
    x = draws.uniform(0, 3, rows)
    return pd.DataFrame({"x": x, "y": np.sin(x) + draws.normal(0, 0.05 + 0.3 * x, rows)})


@pytest.mark.parametrize(
    ("model", "made_of"),
    [
        (LinearRegression(), "made of the errors on those"),
        (
            RandomForestRegressor(20, min_samples_leaf=20, random_state=0),
            "made of the quantiles of the forest's leaves",
        ),
    ],
)
def test_intervals_hold_what_they_are_meant_to(model, made_of):
    made = make_training_set(declare(wavy(1000, 1), "y"), wavy(1000, 1))
    model.fit(made.X_train, made.y_train)
    fresh = wavy(2000, 2)
    widths = []
    for level in (0.5, 0.9):
        lower, upper, said = intervals(model, made, fresh, level)
        # 250 test rows: the share itself varies by about sqrt(0.9 * 0.1 / 250) = 2 %, at 50 % by 3 %.
        assert ((lower <= fresh["y"]) & (fresh["y"] <= upper)).mean() == pytest.approx(level, abs=0.07)
        assert said.startswith(f"The intervals hold {100 * level:g} % of truths as long as the rows are like the 250")
        assert made_of in said
        widths.append(upper - lower)
    assert (widths[1] > widths[0]).all()
    if "leaves" in made_of:  # they know where the noise is
        wide, narrow = (widths[1][(fresh["x"] > 2.5) == large].mean() for large in (True, False))
        assert wide > 1.3 * narrow


def test_intervals_of_a_change_are_around_the_value(demand):
    said = {"time": "day", "group": "shop", "features": ".f:lagged", "split": {"kind": "chronological"}}
    target = {"column": "sales", "horizon": 1, "learn": "return"}
    made = make_training_set(declare(demand, target, key=["shop", "day"], **said), demand, features=lagged)
    rows = made.rows("unknown").dropna(subset=["current"])
    train = made.frame["split"].eq("train") & made.frame[["today", "week_ago", "target"]].notna().all(axis=1)
    clean = replace(
        made, frame=made.frame[train | made.frame["split"].eq("test")].dropna(subset=["week_ago", "target"])
    )
    model = LinearRegression().fit(clean.X_train, clean.y_train)
    lower, upper, _ = intervals(model, clean, rows, 0.8)
    forecast = clean.to_value(model.predict(clean.inputs(rows)), rows)
    assert ((lower < forecast) & (forecast < upper)).all()
    # As much above as below, relative to what is now: the larger shop's are wider.
    assert (upper - lower) / rows["current"].to_numpy() == pytest.approx(((upper - lower) / rows["current"]).iloc[0])


def test_too_few_test_rows_for_an_interval():
    made = make_training_set(declare(wavy(70, 1), "y"), wavy(70, 1))
    model = LinearRegression().fit(made.X_train, made.y_train)
    with pytest.raises(ParameterError, match=r"interval=0\.99 \(float\): there are 18 test rows to take it from; 99"):
        intervals(model, made, wavy(5, 2), 0.99)


def test_share_outside_names_the_feature_with_the_most():
    learned = pd.DataFrame({"calm": np.arange(1000.0), "wild": np.arange(1000.0)})
    recent = pd.DataFrame({"calm": [0.0, 5.0, 500.0, 999.0], "wild": [-1.0, 1e9, -5.0, 7.0]})
    assert list(share_outside(learned, recent).items()) == [("wild", 0.75), ("calm", 0.5)]


def test_share_outside_of_texts_truth_values_and_missing_values():
    learned = pd.DataFrame(
        {
            "town": ["A"] * 600 + ["B"] * 399 + ["C"],
            "old": [True] * 1000,
            "often_missing": [np.nan] * 100 + [1.0] * 900,
            "never_missing": [1.0] * 1000,
            "never_known": [np.nan] * 1000,
        }
    )
    recent = pd.DataFrame(
        {
            "town": ["B", "C", "D", None],
            "old": [True, True, True, False],
            "often_missing": [np.nan, np.nan, 1.0, 1.0],
            "never_missing": [np.nan, np.nan, 1.0, 1.0],
            "never_known": [np.nan, np.nan, np.nan, 3.0],
        }
    )
    assert share_outside(learned, recent) == {
        "town": 0.75,
        "never_missing": 0.5,
        "old": 0.25,
        "never_known": 0.25,
        "often_missing": 0.0,
    }
