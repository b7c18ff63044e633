"""`mlops forecast`: what the champion says of the days to come, and what `mlops report` shows of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table

from mlops_dagster import pipelines
from mlops_dagster.shell.calling import shell_origin
from mlops_dagster.shell.output import (
    AsJson,
    DeploymentName,
    EachSymbol,
    End,
    PricePath,
    Sha256,
    Source,
    Start,
    Symbols,
    handle_errors,
    option,
    out,
    price_parameters,
    run_steps,
    say_next,
    shell_tracker,
)

if TYPE_CHECKING:
    from mlops_dagster.stack.store import Store


def forecast(
    symbol: Symbols,
    interval: Annotated[float | None, option("interval")] = None,
    catch_up: Annotated[int | None, option("catch_up")] = None,
    source: Source = None,
    path: PricePath = None,
    sha256: Sha256 = None,
    start: Start = None,
    end: End = None,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Forecast with the champion: prices, forecast, how good earlier forecasts were (forecast_pipeline).

    Example: mlops forecast --symbol GSPC --interval 0.9
    """
    given = {"interval": interval, "catch_up": catch_up}
    with handle_errors(as_json):
        for one in symbol:
            pipelines.check_symbol(one)
        pipelines.check_parameters(pipelines.PRICE_FORECAST.parameters, given)

        from mlops_dagster import steps
        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.stack.store import store_of

        settings = load_deployment(deployment)
        where = price_parameters(
            settings, symbol, {"source": source, "path": path, "sha256": sha256, "start": start, "end": end}
        )
        store, origin = store_of(settings), shell_origin()
        tools: Any = {"deployment": settings, "store": store, "tracker": shell_tracker(settings), "origin": origin}

        def forecast_one(one: str) -> dict[str, Any]:
            parameters = {"prices": where, "price_forecast": given, "forecast_quality": {}}
            calls = {step: partial(steps.run_step, step, one, parameters[step], **tools) for step in parameters}
            return run_steps(one, calls, settings, origin)

        each = EachSymbol(symbol)
        reports = each.do(forecast_one)

        def show() -> None:
            if reports:
                print_forecasts(latest_forecasts(store, list(reports)))
                for one, made in reports.items():
                    out.print(f"{one}: {made['forecast_quality']['summary']}", markup=False)
                say_next("mlops report --html state.html (a page of all), or mlops serve (for other programs)")

        each.say(as_json, {"pipeline": pipelines.FORECAST.name, "run_id": origin.run_id, "symbols": reports}, show)


def latest_forecasts(store: Store, symbols: list[str] | None = None) -> list[dict[str, Any]]:
    """Return what there is to know about the newest forecast of each symbol, as JSON values."""
    from mlops_dagster.steps import newest_as_json
    from mlops_dagster.steps.growing_tables import read_grown

    found = []
    for symbol in store.symbols("price_forecast") if symbols is None else symbols:
        frame, _ = read_grown("price_forecast", symbol, store)
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
