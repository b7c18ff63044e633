"""What the state of things says of a symbol's forecasts: their tables have names and columns of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.steps.inputs import Inputs


def newest_forecast(tables: Inputs) -> tuple[str, ...]:
    """Return the newest forecast: when it was made, of what, the value, the interval, by whom, how many there are."""
    newest = _newest_forecast(tables)
    return (
        f"{newest['made_at']:%Y-%m-%d %H:%M}",
        f"{newest['TargetDate']:%Y-%m-%d}, from {newest['price']:#,.6g} of {newest['Date']:%Y-%m-%d} "
        f"({newest['forecast'] / newest['price'] - 1:+.2%})",
        f"{newest['forecast']:#,.6g}",
        f"{newest['interval']:.0%}: {newest['lower']:#,.6g} to {newest['upper']:#,.6g}",
        newest["model_version"],
        f"{len(tables.read('price_forecast')[0]):,}",
    )


def _newest_forecast(tables: Inputs) -> pd.Series[Any]:
    return tables.read("price_forecast")[0].sort_values("Date", kind="stable").iloc[-1]


def forecast_picture(tables: Inputs) -> bytes:
    """Draw the newest forecast behind the prices."""
    from mlops_dagster.ml.forecast_plots import price_forecast_plot, to_png

    (prices, _), (frame, _) = tables.read("prices"), tables.read("price_forecast")
    return to_png(price_forecast_plot(tables.symbol, prices, frame, _newest_forecast(tables).to_frame().T))


def quality(tables: Inputs) -> tuple[str, ...] | None:
    """Return how many forecasts are scored, how good they were, the share inside the interval and what was meant."""
    from mlops_dagster.ml.forecast_quality import of_newest_horizon, rolling_metrics

    numbers = rolling_metrics(of_newest_horizon(tables.read("forecast_quality")[0]))
    if not numbers["days_scored"]:
        return None
    better = f"{numbers['skill_vs_persistence_60']:+.2%} better than 'the price stays as it is'"
    return f"{numbers['days_scored']:,.0f}", better, f"{numbers['coverage_60']:.0%}", f"{numbers['interval_60']:.0%}"


def quality_picture(tables: Inputs) -> bytes:
    """Draw how good the forecasts were."""
    from mlops_dagster.ml.forecast_plots import quality_plot, to_png
    from mlops_dagster.ml.forecast_quality import of_newest_horizon

    return to_png(quality_plot(tables.symbol, of_newest_horizon(tables.read("forecast_quality")[0])))
