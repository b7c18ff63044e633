"""The pictures of predictions of a number over time: what is predicted beside what came, and how wrong it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mlops_dagster.modeling.drawing import FAINT, FORECAST, GAP, INK, finish, legend, new_figure, to_png
from mlops_dagster.spec.model import Declaration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RECENT, _ERRORS, _ROLLING = 60, 250, 20


def pngs_of_predictions(
    declaration: Declaration, called: str, table: pd.DataFrame, made: pd.DataFrame
) -> dict[str, bytes]:
    """Draw the last rows of the data with the newest predictions; nothing where there is no time, or several series.

    Parameters
    ----------
    table, made : DataFrame
        The tables data and predictions.
    """
    when = _when(declaration, made)
    if when is None or made[when].isna().all() or table.empty:
        return {}
    return {"predictions": to_png(_predictions_plot(declaration, called, table, made.dropna(subset=[when]), when))}


def pngs_of_quality(declaration: Declaration, called: str, scored: pd.DataFrame) -> dict[str, bytes]:
    """Draw the errors of scored predictions over time; nothing as :func:`pngs_of_predictions` says.

    Parameters
    ----------
    scored : DataFrame
        The table prediction_quality.
    """
    when = _when(declaration, scored)
    return {} if when is None or scored.empty else {"errors": to_png(_quality_plot(called, scored, when))}


def _when(declaration: Declaration, rows: pd.DataFrame) -> str | None:
    """Return the column that says for when a number is predicted."""
    if declaration.time is None or declaration.group is not None or "value" not in rows:
        return None
    return "truth_time" if "truth_time" in rows else declaration.time if declaration.time in rows else None


def _predictions_plot(
    declaration: Declaration, called: str, table: pd.DataFrame, made: pd.DataFrame, when: str
) -> Figure:
    shown = table.tail(_RECENT)
    time, column = str(declaration.time), declaration.target.column
    newest = made.drop_duplicates(when, keep="last").sort_values(when, kind="stable")
    drawn = newest[newest[when] >= shown[time].iloc[0]]
    last = newest.iloc[-1]
    dated = newest[when].dtype.kind == "M"
    interval = "lower" in last and last["lower"] == last["lower"]
    figure = new_figure(
        f"{called}: {column} of {last[when]:%Y-%m-%d}" if dated else f"{called}: {column} of {last[when]:g}",
        f"{last['value']:,.6g}"
        + (f", {last['interval']:.0%} between {last['lower']:,.6g} and {last['upper']:,.6g}" if interval else ""),
        height=4.1,
    )
    axes = figure.subplots()
    if interval:
        bars: dict[str, Any] = {"color": GAP, "linewidth": 3.2, "antialiased": False, "zorder": 1}
        axes.vlines(drawn[when], drawn["lower"], drawn["upper"], label=f"{last['interval']:.0%} interval", **bars)
    axes.plot(shown[time], shown[column], color=INK, linewidth=1.3, label=column)
    dots: dict[str, Any] = {"color": FORECAST, "markersize": 3, "antialiased": False}
    axes.plot(drawn[when], drawn["value"], "s", label="prediction", **dots)
    axes.axvline(shown[time].iloc[-1], color=FAINT, linewidth=0.8)
    legend(axes)
    finish(axes, ylabel=column, dated=dated)
    return figure


def _quality_plot(called: str, scored: pd.DataFrame, when: str) -> Figure:
    inside = scored["inside"].dropna() if "inside" in scored else scored["error"].head(0)
    figure = new_figure(
        f"{called}: errors of {len(scored):,} prediction{'s'[: len(scored) > 1]}",
        f"{inside.mean():.0%} inside the interval, {scored['interval'].mean():.0%} expected" if len(inside) else "",
        height=5.0,
    )
    over_time, rolling = figure.subplots(2, 1, sharex=True, height_ratios=[1.3, 1])
    drawn = scored.sort_values(when, kind="stable").tail(_ERRORS)
    times, dated = drawn[when].to_numpy(), drawn[when].dtype.kind == "M"
    if len(inside):
        bars: dict[str, Any] = {"color": GAP, "linewidth": 3.2 if len(drawn) < 100 else 1.4, "antialiased": False}
        low, high = drawn["value"] - drawn["upper"], drawn["value"] - drawn["lower"]
        over_time.vlines(times, low, high, label="interval", **bars)
    over_time.plot(times, drawn["error"], "s", color=FORECAST, markersize=3, antialiased=False, label="one error")
    over_time.axhline(0, color=INK, linewidth=0.8)
    legend(over_time)
    finish(over_time, ylabel="prediction - truth", dated=dated)
    line = (drawn["error"] ** 2).rolling(_ROLLING, min_periods=1).mean() ** 0.5
    rolling.plot(times, line, color=FORECAST, linewidth=1.3, label=f"rmse of the last {_ROLLING}")
    legend(rolling)
    finish(rolling, ylabel="rmse", dated=dated)
    return figure
