"""What the honest model sees of a day: ratios and changes that only look back, free of the price level."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd


def look_back(prices: pd.DataFrame) -> pd.DataFrame:
    """Compute features that only look back, each free of the price level.

    Parameters
    ----------
    prices : pandas.DataFrame
        Validated prices, n rows.

    Returns
    -------
    pandas.DataFrame
        n rows; NaN in the first 20, which have no full look-back. range_pct and change_pct are (High - Low) / Close and
        (Close - Open) / Open in per cent, the returns relative changes of AdjClose, volatility_20d is the standard
        deviation of the last 20 daily returns, volume_ratio_20d relative to the mean of the last 20 days: 1 where
        nothing was traded on any of them (some indices and currencies come without volumes).

    Examples
    --------
    >>> prices = pd.DataFrame({"Open": 4.0, "High": 5.0, "Low": 4.0, "Close": 5.0, "AdjClose": 2.0, "Volume": 7.0},
    ...                       index=range(25))
    >>> look_back(prices).iloc[-1].to_dict() == {
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
