"""Where the rows come from: fifty shops' daily sales, made, the same each time."""

import numpy as np
import pandas as pd


def load(series=None):
    """Return one row per shop and day; of one shop if it is named."""
    days = pd.date_range("2023-01-01", periods=500, freq="D")
    shops = []
    for number in range(50):
        draws = np.random.default_rng(number)
        week = 1 + 0.4 * np.sin(2 * np.pi * (np.arange(500) + number) / 7)
        year = 1 + 0.2 * np.sin(2 * np.pi * np.arange(500) / 365)
        level = draws.uniform(20, 200) * np.exp(np.cumsum(draws.normal(0, 0.01, 500)))
        sales = draws.poisson(level * week * year).astype(float)
        shops.append(pd.DataFrame({"series": f"shop_{number:02}", "day": days, "sales": sales}))
    table = pd.concat(shops, ignore_index=True)
    return table if series is None else table[table["series"] == series].reset_index(drop=True)
