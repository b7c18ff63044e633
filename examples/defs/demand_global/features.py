"""What a model sees of a day: sales of the days and weeks before, and the day of the week."""

import pandas as pd


def look_back(table):
    """Return one row of features per row of the table; nothing comes from later days."""
    sales = table.groupby("series")["sales"]
    lags = {f"sales_{lag}_days_ago": sales.shift(lag) for lag in (0, 1, 2, 3, 4, 5, 6, 7, 14)}
    means = {
        f"mean_of_{days}_days": sales.transform(lambda one, days=days: one.rolling(days).mean()) for days in (7, 28)
    }
    return pd.DataFrame({**lags, **means, "weekday": table["day"].dt.dayofweek})
