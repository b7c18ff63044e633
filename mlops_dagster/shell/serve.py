"""`mlops serve`: MLflow's own scoring server for a symbol's champion.

What belongs here: from a champion that was verified to a server that answers. What doesn't: what is looked at before a
model is opened (`stack/registry.py`), and the protocol, which is MLflow's.

The server runs in this process: there is nothing to leave behind, and a signal that stops the command stops it.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from mlops_dagster import pipelines
from mlops_dagster.shell.output import (
    DeploymentName,
    errors_said_well,
    open_tracker,
    out,
    progress,
    refuse_taken_port,
)


def serve(
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="Whose champion.", show_default=False)],
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 5001,
    host: Annotated[
        str, typer.Option(help="The address to listen on. Whoever reaches it may ask: there is no password.")
    ] = "127.0.0.1",
    deployment: DeploymentName = None,
) -> None:
    """Answer HTTP requests with the champion's predictions, by MLflow's scoring server. Stop it with Ctrl-C.

    Example: mlops serve --symbol GSPC --port 5001
    """
    with errors_said_well(as_json=False):
        pipelines.check_symbol(symbol)
        refuse_taken_port("port", host, port)

        from mlops_dagster import steps
        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.stack.store import store_of

        settings = load_deployment(deployment)
        with progress.status(f"Verifying and loading the champion of {symbol}"):
            model, registered = steps.load_champion(symbol, store_of(settings), open_tracker(settings).registry)
            app = _scoring_app(model)
        asked = ", ".join(model.feature_names_in_)
        out.print(
            f"{symbol}: version {registered.version} ({registered.tags['recipe']} recipe, horizon "
            f"{registered.tags['horizon']}) answers at http://{host}:{port}/invocations\n"
            f"It asks for {asked}.\nStop it with Ctrl-C.",
            soft_wrap=True,
            markup=False,
        )
        _serve(app, host, port)


def _scoring_app(model: Any) -> Any:
    """Return MLflow's scoring server with a forest that was verified.

    What MLflow reads is a copy that is made here of the forest in memory, in a folder that only this user can open, and
    that is gone when the server starts: nobody can put another one in its place in between.
    """
    from mlflow import pyfunc
    from mlflow.pyfunc import scoring_server

    from mlops_dagster.stack.registry import save_forest

    # MLflow asks for this even with skops, since a foreign MLmodel may trust any type. This one was written just now.
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
    with tempfile.TemporaryDirectory(prefix="mlops-serve-") as scratch:
        folder = Path(scratch, "model")
        save_forest(model, folder)
        return scoring_server.init(pyfunc.load_model(folder.as_uri()))


def _serve(app: Any, host: str, port: int) -> None:
    import uvicorn

    with suppress(KeyboardInterrupt):
        uvicorn.run(app, host=host, port=port, log_level="warning")
    progress.print("Stopped.")
