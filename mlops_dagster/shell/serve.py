"""`mlops serve`: a web server for a symbol's champion.

The server runs in this process: there is nothing to leave behind, and a signal that stops the command stops it.
"""

from __future__ import annotations

from contextlib import suppress
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


def serve(
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="Whose champion.", show_default=False)],
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 5001,
    host: Annotated[
        str, typer.Option(help="The address to listen on. There is no password: whoever reaches it can use it.")
    ] = "127.0.0.1",
    deployment: DeploymentName = None,
) -> None:
    """Answer HTTP requests: the champion's next forecast, and its predictions by MLflow's protocol. Ctrl-C stops it.

    Example: mlops serve --symbol GSPC --port 5001
    """
    with handle_errors(as_json=False):
        pipelines.check_symbol(symbol)
        refuse_taken_port("port", host, port)

        from mlops_dagster import steps
        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.stack.store import store_of

        settings = load_deployment(deployment)
        with progress.status(f"Verifying and loading the champion of {symbol}"):
            store = store_of(settings)
            model, registered = steps.load_champion(
                symbol, steps.Inputs(symbol, store), open_tracker(settings).registry
            )
        served = Served(model, registered, store, settings.schedules.exchange)
        url = url_of(host, port)
        out.print(
            f"{symbol}: version {registered.version} answers. How to ask: {url}\n"
            f"The next forecast: {url}/forecast/{symbol}\nStop it with Ctrl-C.",
            markup=False,
        )
        _serve(scoring_app(served, host), host, port)


def _serve(app: Any, host: str, port: int) -> None:
    import uvicorn

    with suppress(KeyboardInterrupt):
        uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)
    progress.print("Stopped.")
