"""`mlops launch`: a Dagster job from the shell, shown by Dagster's pages as if it had been launched there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlops_dagster.errors import ParameterError
from mlops_dagster.shell.output import DeploymentName, handle_errors, out
from mlops_dagster.shell.ui import prepare_dagster


def launch(
    job: Annotated[str, typer.Argument(help="A job of Dagster, such as build_model_pipeline.", show_default=False)],
    symbol: Annotated[
        str | None,
        typer.Option("--symbol", "-s", "--partition", "-p", help="For which symbol, or partition.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="A YAML file of run config, as in the launchpad.", show_default=False),
    ] = None,
    deployment: DeploymentName = None,
) -> None:
    """Run a Dagster job at once, without waiting in the queue; Dagster's pages show the run.

    Example: mlops launch build_model_pipeline --symbol GSPC
    """
    with handle_errors(as_json=False):
        given = _run_config(config)

        from mlops_dagster.stack.deployment_files import load_deployment

        home = prepare_dagster(load_deployment(deployment))
        from mlops_dagster.launch import execute

        run = execute(home, job, symbol, given)
        out.print(f"{job}{f', {symbol}' if symbol else ''}: {run.status.value}. Run {run.run_id}")
        if not run.is_success:
            raise typer.Exit(1)


def _run_config(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    from mlops_dagster.spec import limited_yaml

    try:
        given = limited_yaml.load(limited_yaml.text_of(file))
    except (OSError, ValueError) as error:
        raise ParameterError(f"config={str(file)!r}: {error}") from None
    if not isinstance(given, dict):
        raise ParameterError(f"config={str(file)!r}: a mapping is needed, such as 'ops: ...'.")
    return given
