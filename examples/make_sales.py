"""Make `defs/demand/sales.parquet`: fifty shops' daily sales, the same each time."""

from pathlib import Path

import numpy as np
import pandas as pd


def sales():
    """Return one row per shop and day."""
    days = pd.date_range("2023-01-01", periods=500, freq="D")
    shops = []
    for number in range(50):
        draws = np.random.default_rng(number)
        week = 1 + 0.4 * np.sin(2 * np.pi * (np.arange(500) + number) / 7)
        year = 1 + 0.2 * np.sin(2 * np.pi * np.arange(500) / 365)
        level = draws.uniform(20, 200) * np.exp(np.cumsum(draws.normal(0, 0.01, 500)))
        sales = draws.poisson(level * week * year).astype(float)
        shops.append(pd.DataFrame({"series": f"shop_{number:02}", "day": days, "sales": sales}))
    return pd.concat(shops, ignore_index=True)


if __name__ == "__main__":
    sales().to_parquet(Path(__file__).parent / "defs" / "demand" / "sales.parquet", index=False)
