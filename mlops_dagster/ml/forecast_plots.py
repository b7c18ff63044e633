"""The pictures of forecasts: what is forecast beside what came, and how good it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mlops_dagster.modeling.drawing import FAINT, FORECAST, GAP, INK, finish, legend, new_figure
from mlops_dagster.modeling.drawing import to_png as to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RECENT = 60


def price_forecast_plot(symbol: str, prices: pd.DataFrame, forecasts: pd.DataFrame, newest: pd.DataFrame) -> Figure:
    """Draw the last prices with the forecasts that were made for these days and those that come, and their intervals.

    Parameters
    ----------
    newest : DataFrame
        Its rows that this run has made; the last of them is the forecast that the title speaks of.
    """
    last = newest.iloc[-1]
    change = 100 * (last["forecast"] / last["price"] - 1)
    figure = new_figure(
        f"{symbol}: forecast for {last['TargetDate']:%Y-%m-%d}",
        f"{last['forecast']:#,.6g} ({change:+.2f} %), {last['interval']:.0%} between {last['lower']:#,.6g} and "
        f"{last['upper']:#,.6g}",
        height=4.1,
    )
    axes = figure.subplots()
    shown = prices.tail(_RECENT)
    drawn = forecasts[forecasts["horizon"] == last["horizon"]].drop_duplicates("Date", keep="last")
    drawn = drawn[drawn["TargetDate"] >= shown["Date"].iloc[0]].sort_values("TargetDate")
    bars: dict[str, Any] = {"color": GAP, "linewidth": 3.2, "antialiased": False, "zorder": 1}
    axes.vlines(drawn["TargetDate"], drawn["lower"], drawn["upper"], label=f"{last['interval']:.0%} interval", **bars)
    axes.plot(shown["Date"], shown["AdjClose"], color=INK, linewidth=1.3, label="price")
    axes.plot(
        drawn["TargetDate"], drawn["forecast"], "s", color=FORECAST, markersize=3, antialiased=False, label="forecast"
    )
    axes.axvline(shown["Date"].iloc[-1], color=FAINT, linewidth=0.8)
    legend(axes)
    finish(axes, ylabel="adjusted close (points or currency)", dated=True)
    return figure


def quality_plot(symbol: str, scored: pd.DataFrame) -> Figure:
    """Draw the errors over time inside their intervals, and the rolling rmse beside that of persistence.

    Parameters
    ----------
    scored : DataFrame
        Rows of the table forecast_quality, of one horizon, at least one.
    """
    inside = scored["inside"].mean()
    figure = new_figure(
        f"{symbol}: errors of {len(scored):,} forecasts",
        f"{inside:.0%} inside the interval, {scored['interval'].mean():.0%} expected",
        height=5.0,
    )
    over_time, rolling = figure.subplots(2, 1, sharex=True, height_ratios=[1.3, 1])
    drawn = scored.tail(250)
    when = drawn["TruthDate"].to_numpy()
    over_time.vlines(
        when,
        drawn["forecast"] - drawn["upper"],
        drawn["forecast"] - drawn["lower"],
        color=GAP,
        linewidth=3.2 if len(drawn) < 100 else 1.4,
        antialiased=False,
        label="interval",
    )
    over_time.plot(when, drawn["error"], "s", color=FORECAST, markersize=3, antialiased=False, label="one error")
    over_time.axhline(0, color=INK, linewidth=0.8)
    legend(over_time)
    finish(over_time, ylabel="forecast - truth", dated=True)
    for column, colour, name in (
        ("squared_error", FORECAST, "model"),
        ("persistence_squared_error", INK, "persistence"),
    ):
        line = scored[column].rolling(20, min_periods=1).mean() ** 0.5
        rolling.plot(when, line.tail(250), color=colour, linewidth=1.3, label=f"{name}, last 20 days")
    legend(rolling)
    finish(rolling, ylabel="rmse", dated=True)
    return figure
