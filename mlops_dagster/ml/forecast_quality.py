"""How good forecasts were: each one whose day has come beside the price that came, and what the last ones add up to."""

from __future__ import annotations

import numpy as np
import pandas as pd

WINDOWS = (20, 60)
"""Over how many scored days, the last ones, there are numbers: a trading month and a trading quarter."""


def score(forecasts: pd.DataFrame, prices: pd.DataFrame) -> pd.DataFrame:
    """Put beside each forecast the price that came.

    The truth is AdjClose `horizon` rows after the forecast's Date. Adjusted prices are rewritten whenever a dividend is
    paid or a share is split, all earlier ones by the same factor, so a forecast of last month isn't in today's units.
    Therefore the truth is rebased: the price that the forecast started from, times the change since then by today's
    prices. A later adjustment changes both days and isn't taken for an error.

    Parameters
    ----------
    forecasts : DataFrame
        As the table price_forecast has them, in the order in which they were made.
    prices : DataFrame
        Validated prices.

    Returns
    -------
    DataFrame
        One row per Date and horizon whose truth is known, the newest forecast of it, in the order of Date: Date,
        TargetDate (as the forecast said), TruthDate (the day that the truth came from), horizon, price, truth
        (rebased), forecast, lower, upper, interval, error (forecast - truth), squared_error,
        persistence_squared_error (of "the price stays as it is"), inside (the interval), expected_rmse, late,
        model_version, model_digest and made_at.
    """
    newest = forecasts.drop_duplicates(["Date", "horizon"], keep="last")
    places = pd.Series(np.arange(len(prices)), index=prices["Date"])
    found = newest["Date"].map(places)
    known = found.notna() & (found + newest["horizon"] < len(prices))
    rows = newest[known].sort_values(["Date", "horizon"], kind="stable").reset_index(drop=True)
    at = rows["Date"].map(places).astype("int64").to_numpy()
    then = at + rows["horizon"].to_numpy()
    adjusted = prices["AdjClose"].to_numpy()
    truth = rows["price"] * adjusted[then] / adjusted[at]
    error = rows["forecast"] - truth
    return pd.DataFrame(
        {
            "Date": rows["Date"],
            "TargetDate": rows["TargetDate"],
            "TruthDate": prices["Date"].to_numpy()[then].astype("datetime64[us]"),
            "horizon": rows["horizon"],
            "price": rows["price"],
            "truth": truth,
            **{name: rows[name] for name in ("forecast", "lower", "upper", "interval")},
            "error": error,
            "squared_error": error**2,
            "persistence_squared_error": (rows["price"] - truth) ** 2,
            "inside": (rows["lower"] <= truth) & (truth <= rows["upper"]),
            **{name: rows[name] for name in ("expected_rmse", "late", "model_version", "model_digest", "made_at")},
        }
    )


def of_newest_horizon(scored: pd.DataFrame) -> pd.DataFrame:
    """Return the scored days of the horizon that was scored last; errors over 1 and over 20 days can't be averaged."""
    if scored.empty:
        return scored
    newest = scored.sort_values("made_at", kind="stable")["horizon"].iloc[-1]
    same: pd.DataFrame = scored[scored["horizon"] == newest]
    return same


def rolling_metrics(scored: pd.DataFrame) -> dict[str, float]:
    """Return what the last scored days add up to, for each of `WINDOWS`.

    Returns
    -------
    dict of str to float
        days_scored (all there are), and, with the window's days behind the name, as in rmse_20: rmse,
        rmse_persistence, bias (the mean of forecast - truth), skill_vs_persistence (1 - mse / persistence's), coverage
        (the share of truths inside their interval) and interval (the share that was meant). While there are fewer days
        than a window has, those there are. Only days_scored if there is none.
    """
    metrics = {"days_scored": float(len(scored))}
    if scored.empty:
        return metrics
    for days in WINDOWS:
        last = scored.tail(days)
        mse, reference = float(last["squared_error"].mean()), float(last["persistence_squared_error"].mean())
        metrics |= {
            f"rmse_{days}": mse**0.5,
            f"rmse_persistence_{days}": reference**0.5,
            f"bias_{days}": float(last["error"].mean()),
            f"skill_vs_persistence_{days}": 1.0 - mse / reference if reference > 0 else 0.0,
            f"coverage_{days}": float(last["inside"].mean()),
            f"interval_{days}": float(last["interval"].mean()),
        }
    return metrics
