"""The three pictures of a trained model, small enough to travel inside an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlops_dagster.ml.evaluation import Evaluation
from mlops_dagster.modeling.drawing import BAR, FAINT, FORECAST, GAP, INK, TEST, finish, legend, name_place, new_figure
from mlops_dagster.modeling.drawing import to_png as to_png

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from sklearn.ensemble import RandomForestRegressor

_PRICE = "adjusted close (points or currency)"
_RECENT = 60
_PIXELS = 600
"""About the width of a panel: more points than this can't be seen, they only make the PNG larger."""


def forecast_plot(evaluation: Evaluation) -> Figure:
    """Draw forecasts against the truth: the whole history above, the last 60 test days below.

    Above, the test period is shaded and the gap before it marked. A shuffled split has neither: its test days are
    drawn as dots where they lie.
    """
    figure = new_figure(_title("Forecasts", evaluation), _score(evaluation), height=5.4)
    whole, recent = figure.subplots(2, 1, height_ratios=[1.15, 1])
    history, forecasts = evaluation.history, evaluation.forecasts

    dates = history["Date"].to_numpy()
    seen = slice(None, None, max(1, len(dates) // _PIXELS))
    price = history["price"].to_numpy()
    # Hard edges where nobody sees them: smooth ones cost a kilobyte per line.
    whole.plot(dates[seen], price[seen], color=FAINT, linewidth=2.2, antialiased=False, label="price")
    when, forecast = forecasts["TargetDate"].to_numpy(), forecasts["forecast"].to_numpy()
    if _is_chronological(history):
        begin = history.loc[history["split"] == "test", "Date"].min()
        last_train = history.loc[history["split"] == "train", "Date"].max()
        whole.axvspan(begin, dates[-1], color=TEST, linewidth=0, zorder=0)
        rows = int((history["split"] == "gap").sum())
        whole.axvspan(last_train, begin, color=GAP, linewidth=0, zorder=0, label=f"gap, {rows} row{'s'[: rows > 1]}")
        whole.plot(when[seen], forecast[seen], color=FORECAST, linewidth=1.1, label="forecast")
        name_place(whole, dates[0], "training period")
        name_place(whole, begin, "test period")
    else:
        whole.plot(when, forecast, ".", color=FORECAST, markersize=1.6, label="forecast (test days)")
        name_place(whole, dates[0], "test days drawn at random from all days")
    low, high = whole.get_ylim()
    whole.set_ylim(low, high + 0.12 * (high - low))  # room for the names

    last = forecasts.tail(_RECENT)
    when = last["TargetDate"].to_numpy()
    recent.plot(when, last["truth"].to_numpy(), color=INK, linewidth=1.3, label="truth")
    recent.plot(
        when, last["forecast"].to_numpy(), "s", color=FORECAST, markersize=3, antialiased=False, label="forecast"
    )
    recent.set_title(f"the last {len(last)} test days", loc="right", fontsize=11, color=INK)
    for axes in (whole, recent):
        legend(axes)
        finish(axes, dated=True)
    figure.supylabel(_PRICE, fontsize=11, color=INK)
    return figure


def residual_plot(evaluation: Evaluation) -> Figure:
    """Draw the errors (forecast - truth) over time and their distribution, beside that of persistence."""
    figure = new_figure(_title("Errors", evaluation), _score(evaluation), height=4.1)
    over_time, distribution = figure.subplots(1, 2, sharey=True, width_ratios=[3.2, 1])
    forecasts = evaluation.forecasts
    errors = (forecasts["forecast"] - forecasts["truth"]).to_numpy()
    persistence = (forecasts["price"] - forecasts["truth"]).to_numpy()

    when, drawn = forecasts["TargetDate"].to_numpy(), np.ones(len(errors), dtype=bool)
    if len(errors) > _PIXELS // 2:
        # A thousand dots are a cloud. What is usual becomes a band, and only what isn't stays a dot.
        parts = np.array_split(np.arange(len(errors)), _PIXELS // 10)
        middle = np.array([when[part[len(part) // 2]] for part in parts])
        low, high = np.array([np.quantile(errors[part], (0.1, 0.9)) for part in parts]).T
        over_time.fill_between(
            middle, low, high, color=FORECAST, alpha=0.35, linewidth=0, label="middle 80 % of the errors"
        )
        rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        drawn = (errors < low[rows]) | (errors > high[rows])
    over_time.plot(when[drawn], errors[drawn], "s", color=FORECAST, markersize=2, antialiased=False, label="one error")
    legend(over_time)
    over_time.axhline(0, color=INK, linewidth=0.8)
    finish(over_time, ylabel="forecast - truth (points or currency)", dated=True)

    # One error in a hundred may lie outside: a single crash would squeeze all others into three bars.
    reach = float(np.quantile(np.abs(np.concatenate([errors, persistence])), 0.99)) or 1.0
    bins = np.linspace(-reach, reach, min(41, 7 + len(errors) // 10))
    counts: dict[str, Any] = {"bins": bins, "orientation": "horizontal"}
    distribution.hist(errors, color=FORECAST, alpha=0.55, label="model", **counts)
    distribution.hist(persistence, color=INK, histtype="step", linewidth=1.0, label="persistence", **counts)
    over_time.set_ylim(-1.6 * reach, 1.6 * reach)
    outside = int((np.abs(errors) > 1.6 * reach).sum())
    if outside:
        over_time.text(0.01, 0.02, f"{outside} more outside", transform=over_time.transAxes, color=FAINT, fontsize=10)
    legend(distribution)
    finish(distribution, xlabel="test days")
    return figure


def importance_plot(model: RandomForestRegressor, features: Sequence[str]) -> Figure:
    """Draw what each feature's splits take off the squared error of the training rows, the largest on top."""
    percent = 100 * np.asarray(model.feature_importances_)
    order = np.argsort(percent, kind="stable")
    figure = new_figure("Feature importance", f"{len(model.estimators_):,} trees", height=1.5 + 0.29 * len(order))
    axes = figure.subplots()
    bars = axes.barh([features[place] for place in order], percent[order], height=0.62, color=BAR)
    axes.bar_label(bars, fmt="%.1f %%", padding=4, fontsize=11, color=INK)
    axes.set_xlim(0, 1.12 * float(percent.max()) or 1.0)
    if not percent.any():
        axes.text(0.5, 0.5, "no tree has a split", transform=axes.transAxes, ha="center", color=INK, fontsize=12)
    finish(axes, xlabel="share of the impurity decrease (per cent, training rows)")
    axes.grid(False, axis="y")
    return figure


def _title(what: str, evaluation: Evaluation) -> str:
    days = "1 trading day" if evaluation.horizon == 1 else f"{evaluation.horizon} trading days"
    return f"{what} {days} ahead, {evaluation.recipe} recipe"


def _score(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    errors = f"rmse {metrics['rmse']:#,.4g}, persistence {metrics['rmse_persistence']:#,.4g}"
    return f"{errors}, skill {100 * metrics['skill_vs_persistence']:+.2f} %"


def _is_chronological(history: pd.DataFrame) -> bool:
    train, test = (history.loc[history["split"] == split, "Date"] for split in ("train", "test"))
    return bool(train.max() < test.min())
