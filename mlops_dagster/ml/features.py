"""What a model sees of a day: features computed from prices."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

# What each holds, its unit in brackets.
ARTICLE_FEATURES: Mapping[str, str] = {
    "AdjClose": "Last price, standardised over all rows",
    "Volume": "Shares traded, standardised over all rows",
    "High_Low_Pert": "The article's (High - Low) / Close [%], standardised over all rows",
    "Pert_change": "The article's (Close - Open) / Open [%], standardised over all rows",
}
HONEST_FEATURES: Mapping[str, str] = {
    "range_pct": "The day's (High - Low) / Close [%]",
    "change_pct": "The day's (Close - Open) / Open [%]",
    "return_1d": "Relative change of AdjClose over 1 trading day",
    "return_5d": "Relative change of AdjClose over 5 trading days",
    "return_20d": "Relative change of AdjClose over 20 trading days",
    "volatility_20d": "Standard deviation of the last 20 daily returns",
    "volume_ratio_20d": "Volume relative to its mean over the last 20 trading days",
}


def article_features(prices: pd.DataFrame) -> pd.DataFrame:
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
        n rows, no NaN, the columns of `ARTICLE_FEATURES`, each with mean 0 and deviation 1.
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
    scaled = StandardScaler().fit_transform(raw.to_numpy())
    features: pd.DataFrame = pd.DataFrame(scaled, columns=list(ARTICLE_FEATURES), index=prices.index)
    return features


def honest_features(prices: pd.DataFrame) -> pd.DataFrame:
    """Compute features that only look back, each free of the price level.

    Parameters
    ----------
    prices : pandas.DataFrame
        Validated prices, n rows.

    Returns
    -------
    pandas.DataFrame
        n rows, the columns of `HONEST_FEATURES`; NaN in the first 20, which have no full look-back. volume_ratio_20d
        is 1 where nothing was traded on any of the 20 days (some indices and currencies come without volumes).

    Examples
    --------
    >>> prices = pd.DataFrame({"Open": 4.0, "High": 5.0, "Low": 4.0, "Close": 5.0, "AdjClose": 2.0, "Volume": 7.0},
    ...                       index=range(25))
    >>> honest_features(prices).iloc[-1].to_dict() == {
    ...     "range_pct": 20.0, "change_pct": 25.0, "return_1d": 0.0, "return_5d": 0.0, "return_20d": 0.0,
    ...     "volatility_20d": 0.0, "volume_ratio_20d": 1.0}
    True
    """
    close, volume = prices["AdjClose"], prices["Volume"]
    daily = close / close.shift(1) - 1.0
    usual_volume = _over_window(volume, 20, lambda window: window.mean(axis=1))
    features: pd.DataFrame = pd.DataFrame(
        {
            "range_pct": (prices["High"] - prices["Low"]) / prices["Close"] * 100.0,
            "change_pct": (prices["Close"] - prices["Open"]) / prices["Open"] * 100.0,
            "return_1d": daily,
            "return_5d": close / close.shift(5) - 1.0,
            "return_20d": close / close.shift(20) - 1.0,
            "volatility_20d": _over_window(daily, 20, lambda window: window.std(axis=1, ddof=1)),
            "volume_ratio_20d": (volume / usual_volume).mask(usual_volume == 0, 1.0),
        }
    )
    return features


def _over_window(
    values: pd.Series[float],
    days: int,
    function: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> pd.Series[float]:
    # Not Series.rolling: it carries a running sum along, so its last digits depend on all rows before the window, and
    # a forecast from a month of prices would differ from one made with the whole history.
    result = np.full(len(values), np.nan)
    if len(values) >= days:
        windows = np.lib.stride_tricks.sliding_window_view(values.to_numpy(), days)
        result[days - 1 :] = function(np.ascontiguousarray(windows))
    series: pd.Series[float] = pd.Series(result, index=values.index)
    return series


def features_that_look_ahead(
    function: Callable[[pd.DataFrame], pd.DataFrame], prices: pd.DataFrame, *, cuts: int = 7
) -> tuple[str, ...]:
    """Find the features whose past values move when the future changes.

    The future is changed by scaling all prices and volumes after a day, at several days spread over the history.
    Whatever was computed for that day and those before it must stay the same, bit for bit.

    Parameters
    ----------
    function : callable
        From prices to features, row by row, such as :func:`honest_features`.
    prices : pandas.DataFrame
        Validated prices, at least `cuts` + 1 rows.
    cuts : int
        At how many days the future is changed.

    Returns
    -------
    tuple of str
        Their names; empty if every feature looks back only.

    Examples
    --------
    >>> days = range(40)
    >>> prices = pd.DataFrame({"AdjClose": [float(2 + day % 3) for day in days]}, index=days)
    >>> def look(prices):
    ...     return pd.DataFrame({"today": prices["AdjClose"], "tomorrow": prices["AdjClose"].shift(-1)})
    >>> features_that_look_ahead(look, prices)
    ('tomorrow',)
    """
    before = function(prices)
    numbers = [column for column in prices.columns if column != "Date"]
    guilty: set[str] = set()
    for cut in np.linspace(1, len(prices) - 1, cuts, dtype=int):
        changed = prices.copy()
        # Another factor each day: if all rows had the same one, ratios of two future days would not move.
        factors = np.linspace(1.5, 3.0, len(prices) - cut)
        changed.loc[changed.index[cut:], numbers] = prices[numbers].iloc[cut:].mul(factors, axis=0)
        past, past_after = before.iloc[:cut], function(changed).iloc[:cut]
        guilty |= {name for name in before.columns if not past[name].equals(past_after[name])}
    return tuple(name for name in before.columns if name in guilty)
