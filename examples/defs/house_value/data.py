"""Where the rows come from: made, the same each time."""

import numpy as np
import pandas as pd

DISTRICTS = [f"district_{number:02}" for number in range(40)]


def load():
    """Return one row per house: some have no year, some no garden."""
    draws = np.random.default_rng(20)
    rows = 2000
    district = draws.integers(len(DISTRICTS), size=rows)
    area = draws.gamma(9, 14, rows).round(1)
    year = draws.integers(1900, 2024, rows).astype(float)
    garden = np.where(draws.random(rows) < 0.4, draws.gamma(3, 120, rows).round(0), np.nan)
    kind = draws.choice(["flat", "terraced", "detached"], rows, p=[0.5, 0.3, 0.2])
    price_per_metre = 2500 + 200 * draws.normal(size=len(DISTRICTS))[district] + 8 * (year - 1960)
    value = area * price_per_metre * np.where(kind == "detached", 1.25, 1.0) + 90 * np.nan_to_num(garden)
    year[draws.random(rows) < 0.08] = np.nan
    return pd.DataFrame(
        {
            "house": np.arange(rows),
            "district": [DISTRICTS[one] for one in district],
            "kind": kind,
            "area": area,
            "year": year,
            "garden": garden,
            "value": (value * draws.lognormal(0, 0.08, rows)).round(-2),
        }
    )
