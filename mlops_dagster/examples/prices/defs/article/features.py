"""What the article's model sees of a day: four columns, scaled over all rows, which looks ahead."""

from __future__ import annotations

import pandas as pd


def scaled(prices: pd.DataFrame) -> pd.DataFrame:
    """Compute the article's four features, standardised over ALL rows.

    The scaling is the article's and it is leakage: mean and deviation are those of the whole history, so that every
    row is scaled by prices that came years after it. It stays, since these are the article's features.

    Parameters
    ----------
    prices : pandas.DataFrame
        Validated prices, n rows.

    Returns
    -------
    pandas.DataFrame
        n rows, four columns, no NaN, each with mean 0 and deviation 1.
    """
    from sklearn.preprocessing import StandardScaler

    raw = pd.DataFrame(
        {
            "AdjClose": prices["AdjClose"],
            "Volume": prices["Volume"],
            "High_Low_Pert": (prices["High"] - prices["Low"]) / prices["Close"] * 100.0,
            "Pert_change": (prices["Close"] - prices["Open"]) / prices["Open"] * 100.0,
        }
    )
    # Scaled exactly as the article did it: its numbers are reproduced to 1e-9, and trees split on the last digit.
    same = StandardScaler().fit_transform(raw.to_numpy())
    features: pd.DataFrame = pd.DataFrame(same, columns=raw.columns, index=prices.index)
    return features
