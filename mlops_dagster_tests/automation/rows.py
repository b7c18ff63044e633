"""Prices that a forest can forecast, so that a first model becomes champion."""

import numpy as np
import pandas as pd


def reverting_prices(days=700, seed=3):
    """Daily prices of which most of a day's move is taken back on the next."""
    draws = np.random.default_rng(seed).normal(0, 0.01, days)
    moves = np.empty(days)
    moves[0] = draws[0]
    for day in range(1, days):
        moves[day] = -0.8 * moves[day - 1] + draws[day]
    close = 100 * np.exp(np.cumsum(moves))
    opened = close * 1.001
    return pd.DataFrame(
        {
            "Date": pd.bdate_range("2020-01-01", periods=days).strftime("%Y-%m-%d"),
            "Open": opened,
            "High": opened * 1.003,
            "Low": close * 0.997,
            "Close": close,
            "Adj Close": close,
            "Volume": 1_000_000 + 1000 * np.arange(days),
        }
    )
