"""Features by hand, and the proof that those of the honest recipe look back only."""

import numpy as np
import pandas as pd
import pytest

from mlops_dagster.ml.features import (
    ARTICLE_FEATURES,
    HONEST_FEATURES,
    article_features,
    features_that_look_ahead,
    honest_features,
)
from mlops_dagster.ml.recipes import RECIPES


def by_hand():
    """22 days: AdjClose 100, 101, ..., 121; Volume 10, but 40 on the last day; Open 10, High 12, Low 9, Close 11."""
    days = range(22)
    return pd.DataFrame(
        {
            "Open": 10.0,
            "High": 12.0,
            "Low": 9.0,
            "Close": 11.0,
            "AdjClose": [100.0 + day for day in days],
            "Volume": [10.0] * 21 + [40.0],
        },
        index=days,
    )


def test_honest_features_by_hand():
    features = honest_features(by_hand())
    assert tuple(features.columns) == tuple(HONEST_FEATURES)
    last = features.iloc[-1]
    assert last["range_pct"] == pytest.approx(3 / 11 * 100)
    assert last["change_pct"] == pytest.approx(10.0)
    assert last["return_1d"] == pytest.approx(121 / 120 - 1)
    assert last["return_5d"] == pytest.approx(121 / 116 - 1)
    assert last["return_20d"] == pytest.approx(121 / 101 - 1)
    assert last["volatility_20d"] == pytest.approx(np.std([1 / (101 + day) for day in range(20)], ddof=1))
    assert last["volume_ratio_20d"] == pytest.approx(40 / ((19 * 10 + 40) / 20))


def test_honest_features_begin_where_the_look_back_is_full():
    complete = honest_features(by_hand()).notna().all(axis=1)
    assert complete.tolist() == [False] * 20 + [True] * 2


def test_a_symbol_without_volumes_has_its_usual_volume():
    assert (honest_features(by_hand().assign(Volume=0.0))["volume_ratio_20d"].iloc[19:] == 1.0).all()


def test_honest_features_of_a_month_are_those_of_the_whole_history(gspc):
    # Bit for bit: a forecast made from recent prices must not differ from one that was tested.
    whole = honest_features(gspc)
    for end in (60, 1000, len(gspc)):
        recent = honest_features(gspc.iloc[end - 21 : end])
        pd.testing.assert_frame_equal(recent.iloc[[-1]], whole.iloc[[end - 1]], check_exact=True)


def test_article_features_by_hand(gspc):
    features = article_features(gspc)
    assert tuple(features.columns) == tuple(ARTICLE_FEATURES)
    raw = (gspc["High"] - gspc["Low"]) / gspc["Close"] * 100
    np.testing.assert_allclose(features["High_Low_Pert"], (raw - raw.mean()) / raw.std(ddof=0), rtol=1e-9, atol=1e-12)
    raw = (gspc["Close"] - gspc["Open"]) / gspc["Open"] * 100
    np.testing.assert_allclose(features["Pert_change"], (raw - raw.mean()) / raw.std(ddof=0), rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------------------------- looking ahead

# The article's scaling takes mean and deviation from all rows, the future included.
AHEAD = {"honest": (), "article": tuple(ARTICLE_FEATURES)}


@pytest.mark.parametrize("recipe", RECIPES)
def test_which_features_look_ahead(recipe, gspc):
    assert features_that_look_ahead(RECIPES[recipe].compute, gspc) == AHEAD[recipe]


@pytest.mark.parametrize("cut", [1, 21, 22, 300, 2500, 5030])
def test_no_past_feature_of_the_honest_recipe_moves_when_the_future_changes(cut, gspc):
    # Said once more without our own helper: the future becomes noise, the past stays as it is, bit for bit.
    changed = gspc.copy()
    noise = np.random.default_rng(cut).lognormal(3, 2, (len(gspc) - cut, 6))
    changed.iloc[cut:, 1:] = noise
    before, after = honest_features(gspc), honest_features(changed)
    pd.testing.assert_frame_equal(before.iloc[:cut], after.iloc[:cut], check_exact=True)
    assert not before.iloc[cut:].equals(after.iloc[cut:])


LEAKS = {
    "tomorrow's price": lambda prices: prices["AdjClose"].shift(-1),
    "tomorrow's return": lambda prices: prices["AdjClose"].shift(-1) / prices["AdjClose"] - 1,
    "the ratio of two future days": lambda prices: prices["AdjClose"].shift(-2) / prices["AdjClose"].shift(-1),
    "a centred window": lambda prices: prices["Close"].rolling(5, center=True).mean(),
    "scaled over all rows": lambda prices: prices["Close"] / prices["Close"].std(),
    "rank among all rows": lambda prices: prices["Volume"].rank(pct=True),
    "filled from behind": lambda prices: prices["Close"].where(prices.index % 3 == 0).bfill(),
    "counted from the end": lambda prices: (prices["High"] > prices["High"].iloc[-1]).astype(float),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_look_ahead_is_caught_and_nothing_else(leak, gspc):
    def planted(prices):
        return honest_features(prices).assign(planted=LEAKS[leak](prices))

    assert features_that_look_ahead(planted, gspc) == ("planted",)
