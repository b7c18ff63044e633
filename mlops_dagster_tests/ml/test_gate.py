"""The gate's decision table: each row is one rule, everything else as it should be."""

import math

import numpy as np
import pandas as pd
import pytest

from mlops_dagster.ml import gate
from mlops_dagster.ml.recipes import make_training_set
from mlops_dagster.modeling.splits import Split

GOOD = {"challenger": 80.0, "persistence": 100.0, "champion": 90.0, "rows": 50, "first": "", "last": ""}
RULES = {"margin": 0.0, "beat_persistence": True, "allow_leaks": False}
NORMAL = {"leaks": [], "champion": "3"}
ELEVEN_PERCENT = 1 - 80 / 90


@pytest.mark.parametrize(
    ("measured", "rules", "circumstances", "promote", "outcome"),
    [
        ({}, {}, {}, True, "better"),
        ({"champion": None}, {}, {"champion": None}, True, "first"),
        ({"challenger": 90.0}, {}, {}, False, "not_better"),  # equal isn't better
        ({"challenger": 95.0}, {}, {}, False, "not_better"),
        ({}, {"margin": 0.11}, {}, True, "better"),
        ({}, {"margin": 0.12}, {}, False, "not_better"),
        ({}, {"margin": ELEVEN_PERCENT}, {}, False, "not_better"),  # the margin itself is not enough
        ({"champion": 0.0, "challenger": 0.0, "persistence": 1.0}, {}, {}, False, "not_better"),
        ({"persistence": 80.0}, {}, {}, False, "not_better_than_persistence"),
        ({"persistence": 70.0}, {}, {}, False, "not_better_than_persistence"),
        ({"persistence": 70.0}, {"beat_persistence": False}, {}, True, "better"),
        ({"persistence": math.nan}, {}, {}, False, "not_better_than_persistence"),
        ({"persistence": 70.0, "champion": None}, {}, {"champion": None}, False, "not_better_than_persistence"),
        ({"challenger": math.nan}, {}, {}, False, "not_a_number"),
        ({"challenger": math.inf}, {}, {}, False, "not_a_number"),
        ({"challenger": math.nan, "champion": None}, {}, {"champion": None}, False, "not_a_number"),
        ({"champion": math.nan}, {}, {}, True, "champion_unusable"),
        ({"champion": None}, {}, {}, True, "champion_unusable"),
        ({"champion": None}, {}, {"champion_problem": "its file is gone."}, True, "champion_unusable"),
        (
            {"champion": None, "persistence": 70.0},
            {},
            {"champion_problem": "its file is gone."},
            False,
            "not_better_than_persistence",
        ),
        ({}, {}, {"leaks": ["the future."]}, False, "leaks"),
        ({}, {"allow_leaks": True}, {"leaks": ["the future."]}, True, "better"),
        ({"champion": None}, {}, {"leaks": ["the future."], "champion": None}, False, "leaks"),
        ({}, {}, {"price_problem": "High is below Low."}, False, "bad_prices"),
        ({}, {"allow_leaks": True}, {"price_problem": "High is below Low."}, False, "bad_prices"),
        ({}, {}, {"is_champion": True}, False, "already_champion"),
        ({}, {}, {"rolled_back": True}, False, "rolled_back_before"),
    ],
)
def test_the_decision_table(measured, rules, circumstances, promote, outcome):
    decision = gate.decide(
        gate.Measured(**{**GOOD, **measured}), gate.Rules(**{**RULES, **rules}), **{**NORMAL, **circumstances}
    )
    assert (decision.promote, decision.outcome) == (promote, outcome)
    assert decision.reason.endswith(".")


@pytest.mark.parametrize(
    ("challenger", "champion", "margin", "said"),
    [
        (80.0, 90.0, 0.0, "11.1 % smaller than champion version 3's; it has to be smaller."),
        (80.0, 90.0, 0.12, "11.1 % smaller than champion version 3's; it has to be more than 12 % smaller."),
        (90.0, 90.0, 0.0, "the same as champion version 3's; it has to be smaller."),
        (90.0001, 90.0, 0.0, "0.000111 % larger than champion version 3's; it has to be smaller."),
        (89.0999, 90.0, 0.01, "1.00011 % smaller than champion version 3's; it has to be more than 1 % smaller."),
        (1.0, 0.0, 0.0, "larger than champion version 3's; it has to be smaller."),
    ],
)
def test_the_reason_has_the_digits_that_matter(challenger, champion, margin, said):
    measured = gate.Measured(**{**GOOD, "challenger": challenger, "champion": champion})
    assert gate.decide(measured, gate.Rules(**{**RULES, "margin": margin}), **NORMAL).reason == (
        f"Its squared error is {said}"
    )


@pytest.fixture
def data(price_rows):
    prices = price_rows.rename(columns={"Adj Close": "AdjClose"}).assign(Date=pd.to_datetime(price_rows["Date"]))
    return make_training_set(prices)


class Constant:
    """A model that always says the same."""

    def __init__(self, value):
        self.value = value

    def predict(self, X):
        return np.full(len(X), self.value)


def test_errors_are_those_of_the_price_on_the_days_that_are_asked_for(data):
    days = gate.days_to_judge_on(data)
    assert list(days) == list(data.rows("test")["Date"])
    rows = data.rows("test").iloc[:5]
    by_hand = ((rows["price"] * 1.01 - rows["truth"]) ** 2).mean()
    assert gate.squared_error(Constant(0.01), data, days.iloc[:5]) == pytest.approx(by_hand, rel=1e-12)
    # No return at all is what persistence forecasts.
    assert gate.squared_error(Constant(0.0), data, days) == pytest.approx(gate.persistence_error(data, days), rel=1e-12)


def test_nobody_is_judged_on_days_that_it_has_learned_from(data):
    known = gate.last_day_known(data)
    train = data.rows("train")
    following = data.frame["Date"].iloc[train.index.max() + data.horizon]
    assert known == str(following.date())

    later = data.with_split(Split(np.arange(300), np.arange(310, 370)))  # a champion that has seen more
    days = gate.days_to_judge_on(data, later, gate.last_day_known(later))
    assert len(days) > 0
    assert days.min() > pd.Timestamp(gate.last_day_known(later))
    assert set(days) < set(data.rows("test")["Date"])
