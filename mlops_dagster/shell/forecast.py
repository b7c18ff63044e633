"""`mlops forecast`: what the champion says of the days to come, and what `mlops report` shows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from mlops_dagster import pipelines
from mlops_dagster.shell.options import takes
from mlops_dagster.shell.output import AsJson, DeploymentName, Symbols, handle_errors, out, say_next
from mlops_dagster.shell.running import Reports, checked, run_pipeline

if TYPE_CHECKING:
    from mlops_dagster.session import Session
    from mlops_dagster.stack.store import Store


@takes(pipelines.FORECAST.parameters)
def forecast(
    symbol: Symbols, given: dict[str, Any], deployment: DeploymentName = None, as_json: AsJson = False
) -> None:
    """Forecast with the champion: prices, forecast, how good earlier forecasts were (forecast_pipeline).

    Example: mlops forecast --symbol GSPC --interval 0.9
    """
    with handle_errors(as_json):
        by_step = checked(pipelines.FORECAST, symbol, given)
        from mlops_dagster.stack.deployment_files import load_deployment

        run_pipeline(pipelines.FORECAST, symbol, by_step, load_deployment(deployment), as_json=as_json, show=_show)


def _show(reports: dict[str, Reports], session: Session) -> None:
    if not reports:
        return
    print_forecasts(latest_forecasts(session.store, list(reports)))
    for one, made in reports.items():
        out.print(f"{one}: {made['forecast_quality']['summary']}", markup=False)
    say_next("mlops report --html state.html (a page of all), or mlops serve (for other programs)")


def latest_forecasts(store: Store, symbols: list[str]) -> list[dict[str, Any]]:
    """Return what there is to know about the newest forecast of each symbol that has one, as JSON values."""
    from mlops_dagster.steps import newest_as_json
    from mlops_dagster.steps.growing_tables import what_is_there

    found = []
    for symbol in symbols:
        frame, _ = what_is_there("price_forecast", symbol, store)
        if frame is None:
            continue
        newest = frame.sort_values("Date", kind="stable").iloc[-1]
        made_at = newest["made_at"].isoformat(timespec="seconds")
        found.append({**newest_as_json(symbol, newest), "made_at": made_at})
    return found


def print_forecasts(forecasts: list[dict[str, Any]]) -> None:
    """Print the newest forecasts."""
    table = Table(title="The newest forecast of each symbol", title_justify="left")
    for column in ("symbol", "for"):
        table.add_column(column)
    for column in ("price", "forecast", "change", "interval"):
        table.add_column(column, justify="right")
    for one in forecasts:
        table.add_row(
            one["symbol"],
            one["target_date"],
            f"{one['price']:#,.6g}",
            f"{one['forecast']:#,.6g}",
            f"{one['forecast'] / one['price'] - 1:+.2%}",
            f"{one['lower']:#,.6g} to {one['upper']:#,.6g}",
        )
    out.print(table)
    for one in forecasts:
        out.print(
            f"{one['symbol']}: forecast from the price of {one['made_on']} by version {one['model_version']}; "
            f"{one['interval']:.0%} of the prices are meant to lie in the interval.",
            markup=False,
        )
