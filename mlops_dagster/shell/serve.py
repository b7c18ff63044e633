"""`mlops serve`: a web server for a champion.

The server runs in this process: there is nothing to leave behind, and a signal that stops the command stops it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer

from mlops_dagster.shell.output import (
    open_tracker,
    out,
    progress,
    refuse_taken_port,
    url_of,
)
from mlops_dagster.shell.scoring import Served, scoring_app
from mlops_dagster.shell.scoring_rows import Kind
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.steps import rows_ahead, steps_of

Port = Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)]
Host = Annotated[
    str, typer.Option(help="The address to listen on. There is no password: whoever reaches it can use it.")
]


def serve_champion(
    partition: str,
    model: Declaration,
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
        tables = steps.Inputs(partition, store_of(settings, model), known=steps_of(model))
        champion = steps.load_champion(partition, tables, open_tracker(settings, model).registry, model)
        served = served_by(settings, tables, *champion)
    url = url_of(host, port)
    forecast = f"The next forecast: {url}{served.path()}\n" if served.forecast else ""
    out.print(
        f"{name}: version {served.champion.version} answers. How to ask: {url}\n{forecast}Stop it with Ctrl-C.",
        markup=False,
    )
    _serve(scoring_app(served, host), host, port)


def of_declared(declaration: Declaration, settings: Any, tables: Any, model: Any, champion: Any) -> Served:
    """Return what is served of a model."""
    from mlops_dagster.steps.champion import called
    from mlops_dagster.steps.inputs import Inputs
    from mlops_dagster.steps.predict import next_predictions
    from mlops_dagster.steps.promote import training_set_of

    def forecast(interval: float | None) -> list[dict[str, Any]]:
        newest = Inputs(tables.symbol, tables.store, known=steps_of(declaration))
        return next_predictions(declaration, model, learned, newest, {} if interval is None else {"interval": interval})

    learned, said = training_set_of(champion, tables), declaration.predictions
    seen = learned.inputs(learned.frame)
    ahead = f", {rows_ahead(learned.horizon)} ahead" if learned.horizon else ""
    change = "" if learned.learn == "value" else f", as a {learned.learn} of what it is now"
    return Served(
        called(tables.symbol, declaration).name,
        declaration.name if declaration.partitions is None else tables.symbol,
        model,
        champion,
        {str(name): _kind(values) for name, values in seen.items()},
        lambda: seen,
        f"It predicts {learned.column}{ahead}{change}.",
        forecast if learned.horizon and said else None,
        said is not None and "interval" in said.output,
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
