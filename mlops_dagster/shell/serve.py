"""`mlops serve`: a web server for the champion of a declared model, or of a symbol.

The server runs in this process: there is nothing to leave behind, and a signal that stops the command stops it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import typer

from mlops_dagster import pipelines
from mlops_dagster.shell.output import (
    DeploymentName,
    handle_errors,
    open_tracker,
    out,
    progress,
    refuse_taken_port,
    url_of,
)
from mlops_dagster.shell.scoring import Served, scoring_app
from mlops_dagster.shell.scoring_rows import Kind
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.steps import steps_of

Port = Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)]
Host = Annotated[
    str, typer.Option(help="The address to listen on. There is no password: whoever reaches it can use it.")
]


def serve(
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="Whose champion.", show_default=False)],
    port: Port = 5001,
    host: Host = "127.0.0.1",
    deployment: DeploymentName = None,
) -> None:
    """Answer HTTP requests: the champion's next forecast, and its predictions by MLflow's protocol. Ctrl-C stops it.

    Of a declared model: mlops serve NAME.

    Example: mlops serve --symbol GSPC --port 5001
    """
    with handle_errors(as_json=False):
        pipelines.check_symbol(symbol)
        serve_champion(symbol, None, partial(_of_symbol, symbol), port, host, deployment)


def serve_champion(
    partition: str,
    model: Declaration | None,
    served_by: Callable[[Any, Any, Any, Any], Served],
    port: int,
    host: str,
    deployment: str | None,
) -> None:
    """Load a champion and serve it until somebody stops this process."""
    refuse_taken_port("port", host, port)

    from mlops_dagster import steps
    from mlops_dagster.stack.deployment_files import load_deployment
    from mlops_dagster.stack.store import store_of
    from mlops_dagster.steps.champion import called

    settings = load_deployment(deployment)
    name = called(partition, model).name
    with progress.status(f"Verifying and loading the champion of {name}"):
        known = pipelines.STEPS if model is None else steps_of(model)
        tables = steps.Inputs(partition, store_of(settings, model), known=known)
        champion = steps.load_champion(partition, tables, open_tracker(settings, model).registry, model)
        served = served_by(settings, tables, *champion)
    url = url_of(host, port)
    forecast = f"The next forecast: {url}/forecast/{name}\n" if served.forecast else ""
    out.print(
        f"{name}: version {served.champion.version} answers. How to ask: {url}\n{forecast}Stop it with Ctrl-C.",
        markup=False,
    )
    _serve(scoring_app(served, host), host, port)


def _of_symbol(symbol: str, settings: Any, tables: Any, model: Any, champion: Any) -> Served:
    from mlops_dagster import steps
    from mlops_dagster.steps.price_models import training_set_of

    def prices() -> Any:
        return tables.store.read("prices", symbol)[0]

    def forecast(interval: float) -> dict[str, Any]:
        return steps.next_forecast(model, champion, prices(), interval=interval, exchange=settings.schedules.exchange)

    horizon = int(champion.tags["horizon"])
    what = "relative change of the price" if champion.tags["recipe"] == "honest" else "price"
    return Served(
        symbol,
        model,
        champion,
        {str(name): Kind() for name in model.feature_names_in_},
        lambda: training_set_of(model, champion, prices()).frame,
        f"It forecasts {horizon} trading day{'s' if horizon > 1 else ''} ahead; each prediction is a {what}.",
        forecast,
    )


def of_declared(declaration: Declaration, settings: Any, tables: Any, model: Any, champion: Any) -> Served:
    """Return what is served of a declared model."""
    from mlops_dagster.steps.champion import called
    from mlops_dagster.steps.declared.promote import training_set_of

    learned = training_set_of(champion, tables)
    seen = learned.inputs(learned.frame)
    ahead = f", {learned.horizon} rows ahead" if learned.horizon else ""
    change = "" if learned.learn == "value" else f", as a {learned.learn} of what it is now"
    return Served(
        called(tables.symbol, declaration).name,
        model,
        champion,
        {str(name): _kind(values) for name, values in seen.items()},
        lambda: seen,
        f"It predicts {learned.column}{ahead}{change}.",
    )


def _kind(values: Any) -> Kind:
    missing = bool(values.isna().any())
    if values.dtype.kind in "iuf":
        return Kind("number", missing)
    known = values.dropna()
    return Kind("boolean" if len(known) and known.map(lambda one: isinstance(one, bool)).all() else "text", missing)


def _serve(app: Any, host: str, port: int) -> None:
    import uvicorn

    with suppress(KeyboardInterrupt):
        uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)
    progress.print("Stopped.")
