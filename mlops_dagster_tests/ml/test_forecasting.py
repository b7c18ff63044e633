"""Forecasts and their intervals, beside a reference that follows the paper word by word."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor

from mlops_dagster.ml.forecasting import ForecastError, make_forecasts, rows_learned_from
from mlops_dagster.ml.model import fit_forest
from mlops_dagster.ml.prices import validate_prices
from mlops_dagster.ml.recipes import make_training_set
from mlops_dagster.modeling import leaf_quantiles as quantiles
from mlops_dagster.modeling.leaf_quantiles import leaf_quantiles
from mlops_dagster.pipelines import resolve_forest


def reference(model, learned, targets, asked, levels):
    """Meinshausen (2006), equations 4 and 6, in whole fractions: slow, and without a rounding error."""
    apply = [
        (tree.apply(learned.to_numpy(np.float32)), tree.apply(asked.to_numpy(np.float32))) for tree in trees(model)
    ]
    found = []
    for row in range(len(asked)):
        weights = [Fraction(0)] * len(learned)
        for leaves, its_leaves in apply:
            inside = [place for place, leaf in enumerate(leaves) if leaf == its_leaves[row]]
            for place in inside:
                weights[place] += Fraction(1, len(inside))
        order = sorted(range(len(targets)), key=lambda place: targets[place])
        quantiles = []
        for level in levels:
            reached, wanted = Fraction(0), Fraction(str(level)) * sum(weights)
            for place in order:
                reached += weights[place]
                if reached >= wanted:
                    quantiles.append(targets[place])
                    break
        found.append(quantiles)
    return np.array(found)


def trees(model):
    return [estimator.tree_ for estimator in model.estimators_]


@pytest.fixture(params=[1, 5])
def small(request):
    draws = np.random.default_rng(request.param)
    X = pd.DataFrame(draws.normal(size=(60, 3)), columns=["a", "b", "c"])
    y = np.round(X["a"] + draws.normal(size=60), 1)  # with ties
    model = RandomForestRegressor(7, min_samples_leaf=request.param, random_state=0).fit(X, y)
    return model, X, y.to_numpy(), pd.DataFrame(draws.normal(size=(9, 3)), columns=X.columns)


def test_quantiles_are_those_of_the_paper(small, monkeypatch):
    model, X, y, asked = small
    levels = [0.05, 0.25, 0.5, 0.95]
    expected = reference(model, X, y, asked, levels)
    assert leaf_quantiles(model, X, y, asked, levels).tolist() == expected.tolist()
    monkeypatch.setattr(quantiles, "_CELLS", 130)  # two rows at once
    assert leaf_quantiles(model, X, y, asked, levels).tolist() == expected.tolist()


def test_an_empty_leaf_has_no_say_and_where_all_are_empty_there_is_no_quantile():
    X = pd.DataFrame({"a": [0.0, 0.0, 10.0, 10.0]})
    y = np.array([1.0, 2.0, 30.0, 40.0])
    model = RandomForestRegressor(3, bootstrap=False, max_depth=1, random_state=0).fit(X, y)
    left = slice(0, 2)
    asked = pd.DataFrame({"a": [0.0, 10.0]})
    known, unknown = leaf_quantiles(model, X[left], y[left], asked, [0.5])[:, 0]
    assert known == 1.0
    assert np.isnan(unknown)


@pytest.fixture
def prices(price_rows):
    return validate_prices(price_rows, source="test")


@pytest.fixture
def data(prices):
    return make_training_set(prices)


@pytest.fixture
def model(data):
    return fit_forest(data, resolve_forest("honest", {"n_estimators": 20, "min_samples_leaf": 20}))


def knows(data):
    return str(data.frame["Date"].iloc[len(data.rows("train"))].date())  # the truth of the last training row


def test_what_was_learned_from_are_the_training_rows(data):
    learned = rows_learned_from(data, knows(data))
    assert learned["Date"].tolist() == data.rows("train")["Date"].tolist()


def test_a_forecast_is_the_forests_own_and_lies_in_its_interval(model, data):
    rows = data.frame[data.frame["split"].isin(["test", "forecast"])].tail(30)
    made = make_forecasts(model, data, rows, knows_until=knows(data), interval=0.9)
    assert made["Date"].tolist() == rows["Date"].tolist()
    predicted = rows["price"].to_numpy() * (1 + model.predict(rows[list(data.features)]))
    assert made["forecast"].tolist() == predicted.tolist()
    assert (made["lower"] < made["forecast"]).all()
    assert (made["forecast"] < made["upper"]).all()
    # The trees are nearly of one mind; prices aren't.
    assert (made["trees_upper"] - made["trees_lower"]).mean() < 0.5 * (made["upper"] - made["lower"]).mean()
    narrow = make_forecasts(model, data, rows, knows_until=knows(data), interval=0.5)
    assert (narrow["upper"] - narrow["lower"] < made["upper"] - made["lower"]).all()
    assert made["inputs_digest"].is_unique
    test = data.rows("test")
    error = test["price"].to_numpy() * (1 + model.predict(test[list(data.features)])) - test["truth"]
    assert made["expected_rmse"].iloc[0] == pytest.approx(float(((error / test["price"]) ** 2).mean() ** 0.5))


def test_of_a_model_that_has_learned_from_every_day_no_error_is_expected(model, data):
    last = str(data.frame["Date"].iloc[-1].date())
    made = make_forecasts(model, data, data.frame.tail(1), knows_until=last, interval=0.9)
    assert np.isnan(made["expected_rmse"]).all()


def test_prices_that_begin_after_what_was_learned_are_refused(model, data):
    with pytest.raises(ForecastError, match=r"learned from prices up to 2019-01-01, and today's begin with 2020-01-29"):
        make_forecasts(model, data, data.frame.tail(1), knows_until="2019-01-01", interval=0.9)


def test_what_is_not_a_number_is_refused(model, data):
    rows = data.frame.tail(1).assign(price=np.inf)
    with pytest.raises(ForecastError, match=r"the champion's forecast for 2021-07-13 isn't a number"):
        make_forecasts(model, data, rows, knows_until=knows(data), interval=0.9)
